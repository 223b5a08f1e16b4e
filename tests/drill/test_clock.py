"""The fault drill, the clock's part: it jumps forth and back, and nobody has more, less, or longer for it."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.drill.books import (
    Answer,
    ask_all,
    check_at_rest,
    check_held,
    check_records,
    held,
    own,
    paid,
    requests_at,
    spent,
)
from tests.support.client import bearer, events, post
from tests.support.command import LEXORA, run
from tests.support.gateway import running_gateway
from tests.support.recorded import (
    DONE,
    STREAM_END,
    STREAM_HEAD,
    Action,
    RecordedUpstream,
    Sleep,
    Until,
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
from tests.support.wall_clock import WallClock

pytestmark = pytest.mark.slow

NOON = datetime(2031, 1, 30, 12, tzinfo=UTC)
JUMPS = [
    timedelta(minutes=3),
    timedelta(minutes=-3),
    timedelta(seconds=-20),
    timedelta(days=1),
    timedelta(days=-1),
    timedelta(days=3),  # into the next month
    timedelta(days=45),
    timedelta(days=-400),
    timedelta(0),
]
USERS = [f"u{number}" for number in range(5)]
GOOD = [Sleep(0.02), json_response(completion())]
SLOW: list[Action] = [action for _ in range(15) for action in (piece(token("t")), Sleep(0.1))]
SCRIPTS = {
    "plain": GOOD,
    "stream": stream(token("one"), token("two"), finish(), usage(7, 2), DONE),
    "slow": [STREAM_HEAD, *SLOW, piece(finish() + usage(7, 15) + DONE), STREAM_END],
}


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    clock = WallClock(tmp_path)
    clock.set(NOON)
    return clock


def config(upstream: RecordedUpstream, concurrency: int = 20, **more: Any) -> dict[str, Any]:
    brief = {"timeouts": {"first_token": 5, "idle": 5, "total": 20}}
    return {
        "models": {
            "paid": {"deployments": [paid(upstream.base_url, **brief)]},
            "m": {"deployments": [own(upstream.base_url, concurrency=concurrency, **brief)]},
        },
        "auth": {"required": True},
        "rate_limits": {"default": {"requests_per_minute": 100_000, "tokens_per_minute": 10**13}},
        "budgets": {"default": {"usd_per_day": 1_000}, "everyone": {"usd_per_month": 10_000}},
        "queue": {"max_size": 1_000, "default_timeout": 30},
        **more,
    }


def make_key(folder: Path, *options: str) -> str:
    made = run(LEXORA, "keys", "create", "--data", folder / "data", *options)
    assert made.status == 0, made.err
    return made.out.strip()


def keys_of(folder: Path) -> dict[str, str]:
    return {user: make_key(folder, "--user", user) for user in USERS}


def requests(count: int, keys: dict[str, str], *scripts: str) -> Iterator[dict[str, Any]]:
    for number in range(count):
        script = scripts[number % len(scripts)]
        yield {
            "model": ("m", "paid")[number // 2 % 2],
            "script": script,
            "stream": script != "plain",
            "key": keys[USERS[number % len(USERS)]],
            "x_timeout": 15,
        }


def test_the_clock_jumps_under_load(folder: Path, clock: WallClock) -> None:
    """Every request is answered whole and is in the books once; what was paid is counted in one day each."""
    keys = keys_of(folder)
    with recorded_upstream([b""]) as upstream:
        upstream.play_as_asked(SCRIPTS)
        with running_gateway(folder, config(upstream), env=clock.environment) as gateway, ThreadPoolExecutor() as pool:
            before = held(gateway)
            over = threading.Event()

            def load(*scripts: str) -> list[Answer]:
                answers: list[Answer] = []
                while not over.is_set():
                    answers += ask_all(gateway, requests(20, keys, *scripts))
                return answers

            loads = [pool.submit(load, "plain", "stream"), pool.submit(load, "slow")]
            try:
                for jump in JUMPS:
                    time.sleep(0.8)
                    clock.set(NOON + jump)
                time.sleep(0.8)
            finally:
                over.set()
            answers = [answer for each in loads for answer in each.result(60)]
            assert {answer.status for answer in answers} == {200}
            for answer in answers:
                if answer.headers["content-type"].startswith("text/event-stream"):
                    assert events(answer.body)[-1] == "[DONE]"
            records = check_records(gateway, requests_at(upstream))
            assert len(records) == len(answers) == len(upstream.received)
            assert {record["outcome"] for record in records} == {"completed"}
            assert all(0 < record["duration_ms"] < 15_000 for record in records)
            days = {datetime.fromtimestamp(record["created_at"], UTC).date() for record in records}
            assert len(days) > 3  # a machine that is slow may miss a jump
            for user, key in keys.items():
                cost = sum(record["cost_usd"] for record in records if record["user_id"] == user)
                counted = 0.0
                for day in days:
                    clock.set(datetime(day.year, day.month, day.day, 12, tzinfo=UTC))
                    counted += spent(gateway, key=key)
                assert counted == pytest.approx(cost, rel=1e-5, abs=1e-9), user
            clock.set(NOON)
            admin = make_key(folder, "--user", "root", "--admin")
            check_at_rest(gateway, admin)
            check_held(gateway, before)
            assert not [line for line in gateway.log_lines() if line["level"] == "ERROR"]


def test_deadlines_do_not_go_by_the_clock(folder: Path, clock: WallClock) -> None:
    """Neither who waits for a place nor who waits for an answer is given up early, or waits for longer."""
    go = threading.Event()
    keys = keys_of(folder)
    with recorded_upstream([Until(go), *GOOD], [Until(go), *GOOD], GOOD) as upstream:
        settings = config(upstream, concurrency=1)
        with running_gateway(folder, settings, env=clock.environment) as gateway, ThreadPoolExecutor() as pool:
            key = keys["u0"]
            first = pool.submit(post, gateway, key=key)
            upstream.wait_until_received(1)
            paid_one = pool.submit(post, gateway, model="paid", key=key)
            upstream.wait_until_received(2)
            waits = pool.submit(post, gateway, key=key)
            brief = pool.submit(post, gateway, x_timeout=3, key=key)

            def waiting() -> int:
                url = f"{gateway.url}/stats"
                return int(httpx2.get(url, headers=bearer(admin)).json()["queues"]["own"]["waiting"])

            admin = make_key(folder, "--user", "root", "--admin")
            wait_until(lambda: waiting() == 2, "two to wait", 10)
            for jump in (timedelta(days=2), timedelta(days=-2), timedelta(minutes=-90)):
                clock.set(NOON + jump)
                time.sleep(0.3)
                assert not any(answer.done() for answer in (first, paid_one, waits, brief))
            assert brief.result(20).status_code == 504
            go.set()
            assert [answer.result(20).status_code for answer in (first, paid_one, waits)] == [200] * 3
            health = httpx2.get(f"{gateway.url}/health").json()
            assert health["uptime"] == "0m"
            records = check_records(gateway, requests_at(upstream))
            assert [record["attempts"] for record in records if record["status"] == 504] == [0]
            check_at_rest(gateway, admin)


def test_limits_are_those_of_the_window_that_the_clock_is_in(folder: Path, clock: WallClock) -> None:
    """Nobody is refused for longer than a window, and no window is handed out twice."""
    limits = {"default": {"requests_per_minute": 5, "tokens_per_minute": 1_000_000}}
    keys = keys_of(folder)
    with (
        recorded_upstream(GOOD) as upstream,
        running_gateway(folder, config(upstream, rate_limits=limits), env=clock.environment) as gateway,
    ):

        def pass_at(jump: timedelta, user: str = "u0") -> int:
            """How many of ten requests pass when the clock stands still there."""
            clock.set(NOON + jump, stopped=True)
            answers = ask_all(gateway, [{"key": keys[user]}] * 10)
            assert {answer.status for answer in answers} <= {200, 429}
            refused = [answer for answer in answers if answer.status == 429]
            assert all(0 < int(answer.headers["retry-after"]) <= 60 for answer in refused)
            return sum(answer.status == 200 for answer in answers)

        assert pass_at(timedelta(0)) == 5
        for jump in JUMPS[:-1]:
            assert (pass_at(jump), pass_at(jump)) == (5, 0), jump
        assert (pass_at(timedelta(0)), pass_at(timedelta(0), "u1")) == (0, 5)
        check_records(gateway, requests_at(upstream))


def test_a_gateway_that_starts_before_its_clock_is_right_hands_no_budget_out_twice(
    folder: Path, clock: WallClock
) -> None:
    """A machine without a battery, or one whose clock was set wrong."""
    budgets = {"default": {"usd_per_day": 0.001}, "everyone": {"usd_per_month": 0.0015}}
    keys = keys_of(folder)
    wanted = [{"model": "paid", "key": keys[user]} for user in ("u0", "u1")] * 60
    with recorded_upstream(GOOD) as upstream:
        settings = config(upstream, budgets=budgets)
        with running_gateway(folder, settings, env=clock.environment) as gateway:
            while any(answer.status == 200 for answer in ask_all(gateway, wanted, 10)):
                pass
            gateway.stop(signal.SIGKILL)
        clock.set(NOON - timedelta(days=4_000))
        with running_gateway(folder, settings, env=clock.environment) as gateway:
            assert post(gateway, model="paid", max_tokens=50, key=keys["u2"]).status_code == 200
            clock.set(NOON)
            assert {answer.status for answer in ask_all(gateway, wanted, 10)} == {429}
            records = check_records(gateway, requests_at(upstream))
            month = [record["cost_usd"] for record in records if record["created_at"] > NOON.timestamp() - 86_400]
            assert 0.0013 < sum(month) <= 0.0015
            clock.set(NOON + timedelta(days=2))  # another month
            assert {answer.status for answer in ask_all(gateway, wanted[:2])} == {200}


def test_keys_end_once_whatever_the_clock_says(folder: Path, clock: WallClock) -> None:
    admin = make_key(folder, "--user", "root", "--admin")
    with (
        recorded_upstream(GOOD) as upstream,
        running_gateway(folder, config(upstream), env=clock.environment) as gateway,
    ):

        def call(method: str, path: str, **body: Any) -> Any:
            response = httpx2.request(method, f"{gateway.url}{path}", headers=bearer(admin), json=body or None)
            assert response.is_success, response.text
            return response.json()

        def works(key: Any) -> bool:
            status = post(gateway, key=key["key"]).status_code
            assert status in (200, 401)
            return status == 200

        forever, brief, ended, replaced, kept = (
            call("POST", "/admin/keys", user_id="ann", **more) for more in ({}, {"expires_in_days": 10}, {}, {}, {})
        )
        all_of_them = (forever, brief, ended, replaced, kept)
        assert all(map(works, all_of_them))
        clock.set(NOON + timedelta(days=1))  # where some are ended
        assert all(map(works, all_of_them))
        call("DELETE", f"/admin/keys/{ended['id']}")
        new = call("POST", f"/admin/keys/{replaced['id']}/rotate")
        newer = call("POST", f"/admin/keys/{kept['id']}/rotate", keep_hours=48)
        expected = {
            timedelta(days=1): (True, True, False, False, True, True, True),
            timedelta(0): (True, True, False, False, True, True, True),
            timedelta(days=-400): (True, True, False, False, True, True, True),
            timedelta(days=5): (True, True, False, False, False, True, True),
            timedelta(days=45): (True, False, False, False, False, True, True),
            timedelta(minutes=1): (True, True, False, False, True, True, True),
        }
        for jump, who in expected.items():
            clock.set(NOON + jump)
            wait_until(lambda who=who: tuple(map(works, (*all_of_them, new, newer))) == who, f"{jump}: {who}", 4)
        clock.set(NOON)
        listed = {key["id"]: key["status"] for key in call("GET", "/admin/keys")["keys"]}
        assert (listed[ended["id"]], listed[replaced["id"]], listed[kept["id"]]) == ("revoked", "revoked", "active")
        check_records(gateway, requests_at(upstream))
