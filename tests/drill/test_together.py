"""A team at one gateway: many at once, and nobody gets more than there is."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from tests.drill.books import (
    ask_all,
    body_of,
    check_at_rest,
    check_money,
    check_records,
    own,
    paid,
    requests_at,
    spent,
    tokens_left,
    within_a_minute,
)
from tests.support.client import chat_body, post
from tests.support.command import LEXORA, run
from tests.support.gateway import models_config, running_gateway
from tests.support.recorded import Sleep, Until, completion, json_response, recorded_upstream, wait_until

MANY = 200
ANSWER = json_response(completion(usage={"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60}))


def test_200_at_once_share_the_last_1000_tokens(folder: Path) -> None:
    limit = {"requests_per_minute": 10_000, "tokens_per_minute": 1_000}
    with recorded_upstream([Sleep(0.2), ANSWER]) as upstream:
        config = {**models_config(m=own(upstream.base_url)), "rate_limits": {"default": limit}}
        with running_gateway(folder, config) as gateway:
            within_a_minute(10)
            answers = ask_all(gateway, [{"x_user_id": "u"}] * MANY)
            good = [answer for answer in answers if answer.status == 200]
            refused = [answer for answer in answers if answer.status == 429]
            assert len(good) + len(refused) == MANY
            assert 0 < len(good) == len(upstream.received)
            assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
            records = check_records(gateway, requests_at(upstream))
            used = sum(record["tokens_in"] + record["tokens_out"] for record in records)
            assert used == 60 * len(good) <= 1_000
            assert tokens_left(gateway, 1_000, x_user_id="u") == 1_000 - used
            # What is left can be used, to the last request that fits.
            while post(gateway, max_tokens=40, x_user_id="u").status_code == 200:
                pass
            used = 60 * len(upstream.received)
            assert used <= 1_000 < used + 200
            assert tokens_left(gateway, 1_000, x_user_id="u") == 1_000 - used
            assert post(gateway, max_tokens=40, x_user_id="other").status_code == 200


def test_200_at_once_share_the_last_dollar(folder: Path) -> None:
    dear = {"input": 100, "output": 1_000}
    with recorded_upstream([Sleep(0.2), ANSWER]) as upstream:
        config = {
            **models_config(paid=paid(upstream.base_url, price=dear)),
            "budgets": {"default": {"usd_per_day": 1}, "everyone": {"usd_per_day": 1.5}},
        }
        with running_gateway(folder, config) as gateway:
            answers = ask_all(gateway, [{"model": "paid", "x_user_id": "u"}] * MANY)
            good = [answer for answer in answers if answer.status == 200]
            refused = [body_of(answer)["error"] for answer in answers if answer.status == 429]
            assert len(good) + len(refused) == MANY
            assert {error["type"] for error in refused} == {"insufficient_quota"}
            assert 0 < len(good) == len(upstream.received)
            check_records(gateway, requests_at(upstream))
            check_money(gateway, ["u"])
            while post(gateway, model="paid", max_tokens=50, x_user_id="u").status_code == 200:
                pass
            assert 0.9 < spent(gateway, "u") <= 1
            # Another user has a dollar as well, but all together have one and a half.
            while post(gateway, model="paid", max_tokens=50, x_user_id="other").status_code == 200:
                pass
            records = check_records(gateway, requests_at(upstream))
            assert 1.4 < sum(record["cost_usd"] for record in records) <= 1.5
            check_money(gateway, ["u", "other"])


def test_a_key_is_made_and_revoked_while_the_gateway_runs(folder: Path) -> None:
    with recorded_upstream([ANSWER]) as upstream:
        config = {**models_config(m=own(upstream.base_url)), "auth": {"required": True}}
        with running_gateway(folder, config) as gateway:

            def status(key: str) -> int:
                headers = {"authorization": f"Bearer {key}"}
                url = f"{gateway.url}/v1/chat/completions"
                return httpx2.post(url, json=chat_body(), headers=headers, timeout=10).status_code

            assert post(gateway).status_code == 401
            made = run(LEXORA, "keys", "create", "--user", "alice", "--data", folder / "data")
            assert made.status == 0, made.err
            key = made.out.strip()
            assert status(key) == 200
            assert status(key[:-1] + ("a" if key[-1] != "a" else "b")) == 401
            records = check_records(gateway, requests_at(upstream))
            (key_id,) = [record["key_id"] for record in records if record["user_id"] == "alice"]
            assert run(LEXORA, "keys", "revoke", key_id, "--data", folder / "data").status == 0
            wait_until(lambda: status(key) == 401, "the key to be refused", 3)
            assert key not in gateway.stdout + gateway.stderr


def test_two_models_of_one_server_share_its_places(folder: Path) -> None:
    """The server, which says that it has one, is sent one request at a time, of whichever model."""
    go = [threading.Event() for _ in range(3)]
    with recorded_upstream(*([Until(event), ANSWER] for event in go)) as upstream:
        upstream.about = json_response({"data": [], "total_slots": 1})
        own_ones = {name: own(upstream.base_url, name, provider="llamacpp") for name in ("one", "two")}
        with running_gateway(folder, models_config(**own_ones)) as gateway, ThreadPoolExecutor(3) as pool:

            def queues() -> Any:
                return httpx2.get(f"{gateway.url}/stats").json()["queues"]

            wait_until(lambda: [queue["concurrency"] for queue in queues().values()] == [1, 1], "the slots", 10)
            answers = [pool.submit(post, gateway, model="one")]
            upstream.wait_until_received(1)
            for count, (model, priority) in enumerate((("one", "low"), ("two", "high")), 1):
                answers.append(pool.submit(post, gateway, model=model, x_user_id=model, x_priority=priority))
                wait_until(lambda count=count: [q["waiting"] for q in queues().values()] == [count] * 2, "the wait", 10)
            for number, event in enumerate(go, 1):
                upstream.wait_until_received(number)
                time.sleep(0.05)
                assert len(upstream.received) == number
                event.set()
            assert [answer.result(30).status_code for answer in answers] == [200] * 3
            records = check_records(gateway, requests_at(upstream))
            by_id = {record["request_id"]: record["model"] for record in records}
            order = [by_id[received.headers["x-request-id"]] for received in upstream.received]
            assert order == ["one", "two", "one"]  # the other model's request is the more urgent one
            check_at_rest(gateway)


def test_those_who_wait_go_by_priority_and_once_each(folder: Path) -> None:
    go = [threading.Event() for _ in range(4)]
    with recorded_upstream(*([Until(event), ANSWER] for event in go)) as upstream:
        config = {**models_config(m=own(upstream.base_url, concurrency=1)), "queue": {"max_size": 3}}
        with running_gateway(folder, config) as gateway, ThreadPoolExecutor(4) as pool:

            def waiting() -> int:
                (queue,) = httpx2.get(f"{gateway.url}/stats").json()["queues"].values()
                return int(queue["waiting"])

            answers: list[Future[httpx2.Response]] = [pool.submit(post, gateway, x_user_id="first")]
            upstream.wait_until_received(1)
            for count, priority in enumerate(("low", "normal", "high"), 1):
                answers.append(pool.submit(post, gateway, x_user_id=priority, x_priority=priority))
                wait_until(lambda count=count: waiting() == count, "it to wait", 10)
            full = post(gateway, x_user_id="late", x_priority="high")
            assert full.status_code == 503
            assert full.json()["error"]["code"] == "queue_full"
            assert int(full.headers["retry-after"]) > 0
            assert full.headers["x-lexora-queue-position"] == "2"
            for number, event in enumerate(go, 1):
                upstream.wait_until_received(number)
                time.sleep(0.05)
                assert len(upstream.received) == number  # one at a time
                event.set()
            responses = [answer.result(30) for answer in answers]
            assert [response.status_code for response in responses] == [200] * 4
            # Each was the first in line when it came, as those before it had a lower priority.
            assert [response.headers["x-lexora-queue-position"] for response in responses[1:]] == ["1"] * 3
            assert "x-lexora-queue-position" not in responses[0].headers
            records = check_records(gateway, requests_at(upstream))
            by_id = {record["request_id"]: record["user_id"] for record in records}
            order = [by_id[received.headers["x-request-id"]] for received in upstream.received]
            assert order == ["first", "high", "normal", "low"]
            assert all(record["queue_ms"] > 0 for record in records if record["user_id"] in ("high", "normal", "low"))
            check_at_rest(gateway)
