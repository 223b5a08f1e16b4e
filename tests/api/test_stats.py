"""GET /stats over a real file and a real socket."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Scope

from lexora.adapters.sqlite import SqliteRecords
from lexora.adapters.sqlite_stats import SqliteStats
from lexora.api.errors import ErrorLayer
from lexora.api.http import headers_of
from lexora.api.stats import StatsEndpoint
from lexora.core.errors import Unauthorized
from lexora.core.record import Record, RequestIds
from tests.support.served import served

FIELDS = ["total_requests", "total_tokens", "avg_latency_ms", "requests_per_minute", "errors_last_hour"]
LIVE = {"queues": {"vllm/a": {"waiting": 2}}}


async def allow(scope: Scope) -> None:
    if b"authorization" not in headers_of(scope):
        raise Unauthorized("No key.")


def endpoint(path: Path) -> ErrorLayer:
    return ErrorLayer(StatsEndpoint(SqliteStats(path), allow, lambda: LIVE))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ids = RequestIds(1)
    path = tmp_path / "lexora.db"
    now = time.time()
    ages: list[tuple[float, dict[str, Any]]] = [
        (60, {"outcome": "failed", "status": 502}),
        (60, {"outcome": "client_left", "status": 499}),
        (2 * 3600, {"outcome": "failed", "status": 502}),
        (30 * 3600, {}),
        (800 * 3600, {}),
    ]
    with closing(SqliteRecords(path)) as sink:
        sink.write(
            [Record(ids.new(now - age), now - age, "x", tokens_in=1, tokens_out=2, **facts) for age, facts in ages]
        )
    return path


@pytest.fixture
def web(path: Path) -> Iterator[httpx2.Client]:
    with served(endpoint(path)) as url, httpx2.Client(base_url=url, headers={"authorization": "Bearer x"}) as client:
        yield client


def test_the_last_day_is_reported_with_what_is_so_at_the_moment(web: httpx2.Client) -> None:
    response = web.get("/stats")
    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert list(body)[:5] == FIELDS
    assert [body[name] for name in FIELDS] == [3, 9, 0, 0.03, 1]
    assert set(body) == {*FIELDS, "since", "saved_usd", "models", "users", "origins", "queues"}
    assert abs(body["since"] - (time.time() - 86_400)) < 60


@pytest.mark.parametrize(("hours", "requests"), [(1, 2), (24, 3), (31, 4), (744, 4)])
def test_or_as_many_hours_as_are_asked_for(web: httpx2.Client, hours: int, requests: int) -> None:
    body = web.get("/stats", params={"hours": hours}).json()
    assert (body["total_requests"], body["errors_last_hour"]) == (requests, 1)


@pytest.mark.parametrize("query", ["hours=0", "hours=745", "hours=", "hours=-1", "hours=1.5", "hours=%D9%A1",
                                   "hours=1&hours=2", "hours=99999999999999999"])  # fmt: skip
def test_other_hours_are_refused(web: httpx2.Client, query: str) -> None:
    response = web.get(f"/stats?{query}")
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_value", "hours")


def test_a_report_is_kept_for_a_second(web: httpx2.Client) -> None:
    since = {web.get("/stats").json()["since"] for _ in range(5)}
    assert len(since) < 5
    assert web.get("/stats?hours=1").json()["total_requests"] == 2
    time.sleep(1.1)
    assert web.get("/stats").json()["since"] not in since


def test_whoever_may_not_see_it_does_not(web: httpx2.Client) -> None:
    response = httpx2.get(f"{web.base_url}/stats")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


def test_records_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with served(endpoint(tmp_path / "nowhere.db")) as url:
        response = httpx2.get(f"{url}/stats", headers={"authorization": "Bearer x"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "stats_unavailable")
    assert response.headers["retry-after"] == "2"
