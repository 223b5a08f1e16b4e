"""The fault drill, this machine's part: the database locked, the disk full, clients gone, the gateway killed."""

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.drill.books import (
    Answer,
    ask_all,
    body_of,
    check_at_rest,
    check_held,
    check_money,
    check_records,
    held,
    own,
    paid,
    requests_at,
    spent,
)
from tests.support.client import chat_body, post
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.recorded import (
    DONE,
    STREAM_HEAD,
    RecordedUpstream,
    Sleep,
    completion,
    finish,
    json_response,
    piece,
    recorded_upstream,
    stream,
    token,
    usage,
    wait_until,
)

pytestmark = pytest.mark.slow

USERS = [f"u{number}" for number in range(5)]
FOREVER = Sleep(float("inf"))
HANGING = [{"model": "paid", "script": "hung", "stream": True, "x_user_id": "u0"}] * 10
SCRIPTS = {
    "plain": [Sleep(0.02), json_response(completion())],
    "stream": stream(token("one"), token("two"), finish(), usage(7, 2), DONE),
    "hung": [STREAM_HEAD, piece(token("one")), FOREVER],
}


def config(upstream: RecordedUpstream, **more: Any) -> dict[str, Any]:
    return {
        "models": {
            "paid": {"deployments": [paid(upstream.base_url)]},
            "m": {"deployments": [own(upstream.base_url, concurrency=100)]},
        },
        "budgets": {"default": {"usd_per_day": 1_000}, "everyone": {"usd_per_month": 10_000}},
        "queue": {"max_size": 2_000},
        **more,
    }


def requests(count: int, *models: str) -> Iterator[dict[str, Any]]:
    for number in range(count):
        plain = bool(number % 2)
        yield {
            "model": models[number // 2 % len(models)],
            "script": "plain" if plain else "stream",
            "stream": not plain,
            "x_user_id": USERS[number % len(USERS)],
        }


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


HOLD_THE_FILE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another process holds the database for writing until the block ends."""
    command = [sys.executable, "-c", HOLD_THE_FILE, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            process.stdin.write(b"\n")


def test_another_process_holds_the_database(folder: Path) -> None:
    """Requests go on, and their records are written when it lets go."""
    with recorded_upstream([b""]) as upstream:
        upstream.play_as_asked(SCRIPTS)
        with running_gateway(folder, config(upstream)) as gateway:
            before = held(gateway)
            with locked(folder / "data" / "lexora.db"):
                until = time.monotonic() + 3
                answers: list[Answer] = []
                while time.monotonic() < until:
                    answers += ask_all(gateway, requests(100, "m", "paid"))
                assert set(statuses(answers)) == {200}
                assert len(gateway.records()) < len(answers)
            records = check_records(gateway, requests_at(upstream))
            assert len(records) == len(upstream.received) == len(answers)
            assert all(record["outcome"] == "completed" for record in records)
            check_money(gateway, USERS)
            check_at_rest(gateway)
            check_held(gateway, before)


def test_the_gateway_ends_or_is_killed_while_the_database_is_held(folder: Path) -> None:
    """What could not be written then is written by the next one."""
    with recorded_upstream([b""]) as upstream:
        upstream.play_as_asked(SCRIPTS)
        with running_gateway(folder, config(upstream)) as gateway:
            with locked(folder / "data" / "lexora.db"):
                answers = ask_all(gateway, requests(100, "m", "paid"))
                gateway.stop(signal.SIGKILL)
            assert set(statuses(answers)) == {200}
        with running_gateway(folder, config(upstream)) as gateway:
            records = check_records(gateway, requests_at(upstream))
            assert len(records) == len(answers)
            # What a free request came to is not noted as long as nobody knows that the table is held.
            assert {record["outcome"] for record in records if record["model"] == "paid"} == {"completed"}
            check_money(gateway, USERS)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of its own at `folder`."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk that can be filled takes the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue
        except OSError:
            pass
    return filler


def test_the_disk_is_full_for_a_while(folder: Path) -> None:
    """Own models answer, paid ones do not, as nobody could say later what was spent; nothing is lost but the room."""
    with recorded_upstream([b""]) as upstream, small_disk(folder / "data", 8):
        upstream.play_as_asked(SCRIPTS)
        with running_gateway(folder, config(upstream)) as gateway:
            assert set(statuses(ask_all(gateway, requests(50, "m", "paid")))) == {200}
            check_records(gateway, requests_at(upstream))
            before = held(gateway)
            filler = fill(folder / "data")
            # The room that the files have already is used first.
            until = time.monotonic() + 20
            while post(gateway, model="paid", script="plain", x_user_id="u0").status_code == 200:
                assert time.monotonic() < until
                ask_all(gateway, requests(400, "m"))
            assert set(statuses(ask_all(gateway, requests(200, "m")))) == {200}
            refused = ask_all(gateway, requests(50, "paid"))
            assert set(statuses(refused)) == {503}
            assert {body_of(answer)["error"]["code"] for answer in refused} == {"limits_unavailable"}
            assert {answer.headers["retry-after"] for answer in refused} == {"2"}
            check_at_rest(gateway)
            filler.unlink()
            wait_until(
                lambda: post(gateway, model="paid", script="plain", x_user_id="u0").status_code == 200, "room", 10
            )
            records = check_records(gateway, requests_at(upstream), 20)
            assert sum(record["attempts"] > 0 for record in records) == len(upstream.received)
            check_money(gateway, USERS)
            check_held(gateway, before)
        with running_gateway(folder, config(upstream)) as gateway:
            check_records(gateway, requests_at(upstream))
            check_money(gateway, USERS)


def test_a_thousand_clients_leave_at_once(folder: Path) -> None:
    """Some in the middle of a stream, some before it has begun, some in the queue."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    try:
        with recorded_upstream([b""]) as upstream:
            upstream.play_as_asked({**SCRIPTS, "silent": [FOREVER]})
            with running_gateway(folder, config(upstream)) as gateway:
                before = held(gateway)
                asyncio.run(leave_at_once(gateway, upstream))

                def gone() -> bool:
                    return sum(record["outcome"] == "client_left" for record in gateway.records()) == 1_000

                wait_until(gone, "a thousand records", 20)
                wait_until(lambda: not upstream.open_connections, "the upstream to be left alone", 10)
                records = check_records(gateway, requests_at(upstream))
                assert len(records) == 1_000
                assert sum(record["attempts"] for record in records) == len(upstream.received) == 700 + 100
                check_at_rest(gateway)
                check_money(gateway, USERS)
                check_held(gateway, before)
                assert ask_all(gateway, requests(100, "m", "paid"))[-1].status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def leave_at_once(gateway: RunningGateway, upstream: RecordedUpstream) -> None:
    """700 ask a paid model, and 300 an own one that takes 100 at a time."""

    async def ask(number: int) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        fields = {
            "model": "paid" if number < 700 else "m",
            "script": "hung" if number % 2 else "silent",
            "stream": True,
            "x_user_id": USERS[number % len(USERS)],
        }
        body = json.dumps(chat_body(**fields)).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        return writer

    writers = []
    for start in range(0, 1_000, 100):
        writers += await asyncio.gather(*map(ask, range(start, start + 100)))
    until = time.monotonic() + 20
    while len(upstream.received) < 800:
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)  # the 200 who wait have come as well
    for number, writer in enumerate(writers):
        if number % 3:
            writer.transport.abort()
        else:
            writer.close()
    await asyncio.sleep(0.5)


def test_killed_in_the_middle_of_writes_again_and_again(folder: Path) -> None:
    """The next gateway on the same folder has every request in its books once, and counts what was spent."""
    answered: set[str] = set()
    with recorded_upstream([b""]) as upstream, ThreadPoolExecutor(1) as pool:
        upstream.play_as_asked(SCRIPTS)
        for run in range(4):
            with running_gateway(folder, config(upstream)) as gateway:
                if run:
                    check_after_a_kill(gateway, upstream, answered)
                killer = threading.Timer(0.7 + 0.17 * run, os.kill, (gateway.process.pid, signal.SIGKILL))
                killer.start()
                hanging = pool.submit(ask_all, gateway, HANGING)
                while gateway.process.poll() is None:
                    answers = ask_all(gateway, requests(50, "m", "paid"))
                    answered |= {answer.headers["x-request-id"] for answer in answers if answer.status == 200}
                assert set(statuses(hanging.result(30))) == {0}
                killer.join()
                assert gateway.process.returncode == -signal.SIGKILL
        with running_gateway(folder, config(upstream)) as gateway:
            records = check_after_a_kill(gateway, upstream, answered)
            killed = [record for record in records if record["error_code"] == "gateway_killed"]
            assert len(killed) >= 4 * len(HANGING)
            assert all(record["cost_usd"] > 0 for record in killed if record["model"] == "paid")
        with running_gateway(folder, config(upstream)) as gateway:  # once more in peace: nothing counts twice
            check_after_a_kill(gateway, upstream, answered)
            assert "was killed" not in gateway.stdout


def check_after_a_kill(gateway: RunningGateway, upstream: RecordedUpstream, answered: set[str]) -> list[dict[str, Any]]:
    records = check_records(gateway, requests_at(upstream))
    assert answered <= {record["request_id"] for record in records}
    check_money(gateway, USERS)
    assert spent(gateway, "nobody") == 0
    check_at_rest(gateway)
    return records
