"""Many requests at a gateway, and whether its books balance after them."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.support.client import HELLO, bearer, post
from tests.support.gateway import RunningGateway
from tests.support.recorded import RecordedUpstream, wait_until

# Tokens cost a millionth of a dollar each, so that what is spent has few digits.
PRICE = {"input": 1, "output": 1}


class Answer(NamedTuple):
    """What one client got; status 0 if the connection broke."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


def paid(base_url: str, name: str = "paid", **more: Any) -> dict[str, Any]:
    """A deployment that costs money, so that budgets count it."""
    return {
        "provider": "openai",
        "base_url": base_url,
        "model": "up",
        "name": name,
        "credential": None,
        "price": PRICE,
        **more,
    }


def own(base_url: str, name: str = "own", **more: Any) -> dict[str, Any]:
    return {"provider": "vllm", "base_url": base_url, "model": "up", "name": name, **more}


def ask_all(gateway: RunningGateway, requests: Iterable[Mapping[str, Any]], at_once: int = 300) -> list[Answer]:
    """Sends chat requests with these fields, so many at a time, and reads every answer to its end.

    A field `key` is the key that it is sent with.
    """

    async def main() -> list[Answer]:
        free = asyncio.Semaphore(at_once)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=30, limits=limits) as client:

            async def ask(fields: Mapping[str, Any]) -> Answer:
                body = {"model": "m", "messages": [HELLO], "max_tokens": 50, **fields}
                headers = bearer(body.pop("key", None))
                async with free:
                    try:
                        response = await client.post("/v1/chat/completions", json=body, headers=headers)
                    except httpx2.TransportError:
                        return Answer(0)
                return Answer(response.status_code, dict(response.headers), response.content)

            return await asyncio.gather(*map(ask, requests))

    return asyncio.run(main())


def spent(gateway: RunningGateway, user: str | None = None, model: str = "paid", key: str | None = None) -> float:
    """The dollars that are spent or reserved of the user's budget, as the gateway says when it refuses too much."""
    response = post(gateway, model=model, max_tokens=10**12, x_user_id=user, key=key)
    assert response.status_code == 429, response.text
    found = re.search(r"\$(\S+) are spent or reserved", response.json()["error"]["message"])
    assert found, response.text
    return float(found[1])


def tokens_left(gateway: RunningGateway, limit: int, **fields: Any) -> int:
    """What is left of a limit of tokens a minute, as the gateway says when it refuses a request for nearly all."""
    response = post(gateway, max_tokens=limit - 100, **fields)
    assert response.status_code == 429, response.text
    return int(response.headers["x-ratelimit-remaining-tokens"])


def within_a_minute(seconds: float) -> None:
    """Waits until so much of the minute is left."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left + 0.01)


def requests_at(*upstreams: RecordedUpstream) -> Counter[str]:
    """How often the upstreams got each request, by its id."""
    return Counter(received.headers["x-request-id"] for upstream in upstreams for received in upstream.received)


def check_records(gateway: RunningGateway, reached: Counter[str], seconds: float = 10) -> list[dict[str, Any]]:
    """That each request that has reached an upstream has exactly one record, which knows of every attempt.

    Waits for the records, and gives all that there are by then.
    """
    wait_until(lambda: set(reached) <= {r["request_id"] for r in gateway.records()}, "the records", seconds)
    time.sleep(0.6)  # those that have reached none, and whatever would be written twice
    records = gateway.records()
    attempts = {record["request_id"]: record["attempts"] for record in records}
    assert len(attempts) == len(records)
    # An attempt over a kept connection that is closed without an answer is sent once more, over a fresh one.
    assert not {id_: times for id_, times in reached.items() if 2 * attempts[id_] < times}
    return records


def check_money(gateway: RunningGateway, users: Iterable[str], model: str = "paid") -> None:
    """That what counts as spent of each budget is what the records say: nothing is reserved any more."""
    cost: Counter[str] = Counter()
    for record in gateway.records():
        cost[record["user_id"]] += record["cost_usd"] or 0.0
    for user in users:
        assert spent(gateway, user, model) == pytest.approx(cost[user], rel=1e-5, abs=1e-9), user


def check_at_rest(gateway: RunningGateway, key: str | None = None) -> None:
    """That nobody is on the way: no queue has anybody in it, nor anybody waiting."""

    def busy() -> list[Any]:
        queues = httpx2.get(f"{gateway.url}/stats", timeout=10, headers=bearer(key)).json()["queues"]
        return [queue for queue in queues.values() if queue["running"] or queue["waiting"]]

    wait_until(lambda: not busy(), "the queues to be empty", 10)


class Held(NamedTuple):
    """What a gateway holds open."""

    sockets: int
    files: int


def held(gateway: RunningGateway) -> Held:
    return Held(len(gateway.sockets()), gateway.open_files())


def check_held(gateway: RunningGateway, before: Held) -> None:
    """That no more is open than before; idle connections take some seconds to be closed.

    One more may be there at any time: the one over which the gateway looks whether the own server is up.
    """

    def no_more() -> bool:
        now = held(gateway)
        return now.sockets <= before.sockets + 1 and now.files <= before.files + 1

    wait_until(no_more, f"what is open to be {before} again", 15)


def body_of(answer: Answer) -> Any:
    return json.loads(answer.body)
