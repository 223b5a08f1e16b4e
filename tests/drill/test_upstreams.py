"""The fault drill, the upstream's part: whatever it does, the books balance and nothing is left behind."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drill.books import (
    Answer,
    ask_all,
    check_at_rest,
    check_held,
    check_money,
    check_records,
    held,
    own,
    paid,
    requests_at,
)
from tests.support.client import events, post
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.recorded import (
    DONE,
    STREAM_END,
    STREAM_HEAD,
    Action,
    Close,
    RecordedUpstream,
    Reset,
    Script,
    Sleep,
    completion,
    finish,
    json_response,
    piece,
    recorded_upstream,
    stream,
    token,
    usage,
)

pytestmark = pytest.mark.slow

USERS = [f"u{number}" for number in range(5)]
GOOD = json_response(completion())
FOREVER = Sleep(float("inf"))
ONE = piece(token("one"))
SLOW: list[Action] = [action for _ in range(15) for action in (piece(token("t")), Sleep(0.1))]


def lie(**tokens: Any) -> list[Action]:
    return [json_response(completion(usage=tokens))]


# What each is asked as: whether a stream.
FAULTS: dict[str, tuple[bool, Script]] = {
    "good": (False, [GOOD]),
    "good stream": (True, stream(token("one"), finish(), usage(7, 2), DONE)),
    "reset": (False, [Reset()]),
    "closed": (False, [Close()]),
    "reset in the middle": (True, [STREAM_HEAD, ONE, Reset()]),
    "closed in the middle": (True, [STREAM_HEAD, ONE, Close()]),
    "half an answer": (False, [GOOD[:-20], Close()]),
    "hung": (False, [FOREVER]),
    "hung before the first token": (True, [STREAM_HEAD, FOREVER]),
    "hung in the middle": (True, [STREAM_HEAD, ONE, FOREVER]),
    "slow": (False, [Sleep(0.6), GOOD]),
    "slow stream": (True, [STREAM_HEAD, *SLOW, piece(finish() + usage(7, 15) + DONE), STREAM_END]),
    "counts a lot": (False, lie(prompt_tokens=90_000, completion_tokens=40_000, total_tokens=3)),
    "counts below nothing": (False, lie(prompt_tokens=-5, completion_tokens=-7, total_tokens=-12)),
    "counts in words": (False, lie(prompt_tokens="many", completion_tokens=None, total_tokens={})),
    "counts half tokens": (False, lie(prompt_tokens=1.5, completion_tokens=1e300, total_tokens=True)),
    "no count": (False, [json_response({"choices": []})]),
    "counts below nothing in a stream": (True, stream(token("one"), finish(), usage(-7, -2), DONE)),
    "not HTTP": (False, [b"\x00\x01 garbage \xff\r\n\r\n" * 20, Close()]),
    "not JSON": (False, [json_response(b"<html>" + b"\xff" * 100)]),
    "garbage in a stream": (True, stream(token("one"), b"data: \xff\xfe{{{\n\n", b"\x00" * 50, DONE)),
    "no chunks": (True, [STREAM_HEAD, b"zzzz\r\nnothing\r\n", Close()]),
    "an error": (False, [json_response({"error": {"message": "boom"}}, "500 Internal Server Error")]),
    "busy": (False, [json_response({"error": {"message": "slow down"}}, "429 Too Many Requests")]),
}


def config(first: str, second: str, **more: Any) -> dict[str, Any]:
    """Model `paid` at the first upstream, then at the second; `alone` at the first only; `m` at an own one."""
    brief = {"timeouts": {"first_token": 0.5, "idle": 0.5, "total": 3}}
    return {
        "models": {
            "paid": {"deployments": [paid(first, "first", **brief), paid(second, "second", **brief)]},
            "alone": {"deployments": [paid(first, "alone", **brief)]},
            "m": {"deployments": [own(first, "own", concurrency=20, **brief)]},
        },
        "budgets": {"default": {"usd_per_day": 1_000}, "everyone": {"usd_per_month": 10_000}},
        "queue": {"max_size": 1_000},
        "circuit": {"failures": 1_000_000},
        **more,
    }


def mixed(models: list[str], of_each: int) -> Iterator[dict[str, Any]]:
    kinds = [(name, model) for name in FAULTS for model in models] * of_each
    random.shuffle(kinds)
    for number, (name, model) in enumerate(kinds):
        user = USERS[number % len(USERS)]
        yield {"model": model, "script": name, "stream": FAULTS[name][0], "x_user_id": user, "x_timeout": 10}


def check(gateway: RunningGateway, *upstreams: RecordedUpstream, answers: list[Answer]) -> list[dict[str, Any]]:
    """That the books balance and agree with what the clients saw."""
    records = check_records(gateway, requests_at(*upstreams))
    assert 0 not in [answer.status for answer in answers]
    by_id = {record["request_id"]: record for record in records}
    for answer in answers:
        record = by_id[answer.headers["x-request-id"]]
        assert answer.status < 500 or answer.status in (502, 503, 504), answer.body
        whole = answer.status == 200
        if answer.headers["content-type"].startswith("text/event-stream"):
            whole = events(answer.body)[-1] == "[DONE]"
        assert whole == (record["outcome"] == "completed"), (record, answer)
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    check_at_rest(gateway)
    check_money(gateway, USERS)
    return records


def test_whatever_upstreams_do_the_books_balance(folder: Path) -> None:
    scripts = {name: script for name, (_, script) in FAULTS.items()}
    with recorded_upstream([b""]) as first, recorded_upstream([b""]) as second:
        first.play_as_asked(scripts)
        second.play([Sleep(0.05), GOOD])
        with running_gateway(folder, config(first.base_url, second.base_url)) as gateway:
            ask_all(gateway, [{"x_user_id": user, "model": "paid", "script": "good"} for user in USERS])
            before = held(gateway)
            answers = ask_all(gateway, mixed(["paid", "alone", "m"], 6))
            records = check(gateway, first, second, answers=answers)
            assert all(record["tokens_in"] >= 0 and record["tokens_out"] >= 0 for record in records)
            assert all((record["cost_usd"] or 0) >= 0 for record in records)
            check_held(gateway, before)
            assert not [line for line in gateway.log_lines() if "unexpected" in line.get("message", "")]
            assert post(gateway, model="alone", script="good", x_user_id="u0").status_code == 200


def test_an_upstream_that_dies_under_load(folder: Path) -> None:
    long = [STREAM_HEAD, ONE, *SLOW, piece(finish() + usage(7, 16) + DONE), STREAM_END]
    requests = [{"model": "paid", "stream": True, "x_user_id": USERS[n % 5]} for n in range(150)]
    with (
        contextlib.ExitStack() as first_up,
        recorded_upstream(stream(token("b"), finish(), usage(7, 1), DONE)) as second,
    ):
        first = first_up.enter_context(recorded_upstream(long))
        settings = config(first.base_url, second.base_url, circuit={"failures": 5, "cooldown_seconds": 0.5})
        with running_gateway(folder, settings) as gateway:
            before = held(gateway)

            def kill() -> None:
                first.wait_until_received(120, 20)
                first_up.close()

            answers = ask_all(gateway, requests[:20])
            killer = threading.Thread(target=kill)
            killer.start()
            answers += ask_all(gateway, requests)
            killer.join()
            answers += ask_all(gateway, requests)
            records = check(gateway, first, second, answers=answers)
            assert {answer.status for answer in answers} == {200}
            assert {record["deployment"] for record in records} == {"first", "second"}
            assert any(record["failed_attempts"] for record in records)
            assert {record["outcome"] for record in records[-len(requests) :]} == {"completed"}
            check_held(gateway, before)


def test_an_upstream_that_flaps(folder: Path) -> None:
    """Its circuit opens and closes again and again, and each attempt is in the books."""
    flap: list[Script] = []
    for _ in range(30):
        flap += [[GOOD]] * 4 + [[Reset()]] * 3 + [[json_response({}, "503 Service Unavailable")]] * 4
    with recorded_upstream(*flap, [GOOD]) as first, recorded_upstream([GOOD]) as second:
        settings = config(
            first.base_url,
            second.base_url,
            circuit={"failures": 3, "cooldown_seconds": 0.1},
            retry={"max_attempts": 3, "delay_seconds": 0.05},
        )
        with running_gateway(folder, settings) as gateway:
            before = held(gateway)
            answers: list[Answer] = []
            until = time.monotonic() + 3
            while time.monotonic() < until:
                models = ["paid", "alone", "m"]
                answers += ask_all(gateway, [{"model": models[n % 3], "x_user_id": USERS[n % 5]} for n in range(30)], 8)
            records = check(gateway, first, second, answers=answers)
            by_model = {model: [r for r in records if r["model"] == model] for model in ("paid", "alone", "m")}
            assert {record["outcome"] for record in by_model["paid"]} == {"completed"}  # by the second, if need be
            assert {record["deployment"] for record in by_model["paid"]} == {"first", "second"}
            assert any(record["error_code"] == "circuit_open" for record in by_model["alone"] + by_model["m"])
            check_held(gateway, before)
