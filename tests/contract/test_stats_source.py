"""What every `StatsSource` must do, over records as the ledger writes them."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lexora.adapters.dynamodb import DynamoRecords
from lexora.adapters.dynamodb_stats import DynamoStats
from lexora.adapters.sqlite import SqliteRecords
from lexora.adapters.sqlite_stats import SqliteStats
from lexora.core.ports import RecordSink
from lexora.core.record import Record, RequestIds
from lexora.core.stats import Counts, Group, StatsSource
from tests.support.emulator import Emulator


class Subject(NamedTuple):
    """A source, the sink whose records it sums up, and one that has nothing to read from."""

    source: StatsSource
    sink: RecordSink
    broken: StatsSource


def _sqlite(request: pytest.FixtureRequest) -> Iterator[Subject]:
    path: Path = request.getfixturevalue("tmp_path") / "data # 1" / "lexora.db"
    with closing(SqliteRecords(path)) as sink:
        yield Subject(SqliteStats(path), sink, SqliteStats(path.parent / "nowhere.db"))


def _dynamodb(request: pytest.FixtureRequest) -> Iterator[Subject]:
    emulator: Emulator = request.getfixturevalue("emulator")
    client, table = emulator.client("dynamodb"), emulator.table(day="S", request_id="S")
    yield Subject(DynamoStats(client, table), DynamoRecords(client, table, ttl_days=1), DynamoStats(client, "nowhere"))


ADAPTERS: dict[str, Callable[[pytest.FixtureRequest], Iterator[Subject]]] = {"sqlite": _sqlite, "dynamodb": _dynamodb}
IDS = RequestIds(7)


@pytest.fixture(params=ADAPTERS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from ADAPTERS[request.param](request)


def record(created_at: float, **facts: Any) -> Record:
    return Record(IDS.new(created_at), created_at, "chat.completions", **facts)


def in_order(groups: list[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (group.model, group.user_id or "", group.origin or "", group.deployment))


def test_of_nothing_there_are_no_groups(subject: Subject) -> None:
    since = time.time() - 90_000
    assert subject.source.groups(since) == []
    assert subject.source.counts(since) == Counts(0, 0)


def test_requests_are_summed_up_by_model_user_origin_and_deployment(subject: Subject) -> None:
    now = time.time()
    chat: dict[str, Any] = {"model": "chat", "user_id": "takahito", "origin": "own", "deployment": "vllm/a"}
    subject.sink.write(
        [
            record(now, **chat, tokens_in=1, tokens_out=2, duration_ms=10, ttft_ms=3),
            record(now, **chat, tokens_in=10, tokens_out=20, duration_ms=20.5, outcome="failed", status=502),
            record(now, **chat, tokens_in=100, duration_ms=1, ttft_ms=5.5, outcome="client_left", status=499),
            record(now, **{**chat, "deployment": "vllm/b"}),
            record(now, **{**chat, "origin": "paid"}, cost_usd=0.25),
            record(now, **{**chat, "origin": "paid"}, cost_usd=None),
            record(now, **{**chat, "origin": "cache"}, saved_usd=0.25),
            record(now, **{**chat, "origin": "cache"}, saved_usd=0.5),
            record(now, **{**chat, "origin": "cache"}),
            record(now, **{**chat, "user_id": None}),
            record(now, model="nope", outcome="failed", status=404),
        ]
    )
    assert in_order(subject.source.groups(now - 60)) == [
        Group("chat", None, "own", "vllm/a", requests=1),
        Group("chat", "takahito", "cache", "vllm/a", requests=3, saved_usd=0.75),
        Group("chat", "takahito", "own", "vllm/a", 3, 1, 111, 22, duration_ms=31.5, ttft_ms=8.5, ttft_count=2),
        Group("chat", "takahito", "own", "vllm/b", requests=1),
        Group("chat", "takahito", "paid", "vllm/a", requests=2, cost_usd=0.25, unpriced=1),
        Group("nope", None, None, "", requests=1, errors=1),
    ]
    assert subject.source.counts(now - 60) == Counts(11, 2)


def test_the_period_begins_to_the_moment(subject: Subject) -> None:
    """Within one millisecond, over midnight and days before."""
    midnight = time.time() // 86_400 * 86_400
    moments = [midnight - 90_000, midnight - 86_400, midnight - 0.25, midnight, midnight + 0.00025, midnight + 0.0005]
    subject.sink.write([record(moment, model=f"{number}") for number, moment in enumerate(moments)])
    for number, moment in enumerate(moments):
        found = in_order(subject.source.groups(moment))
        assert [group.model for group in found] == [str(later) for later in range(number, len(moments))]
        assert subject.source.counts(moment) == Counts(len(moments) - number, 0)


def test_an_impossible_count_of_an_upstream_does_no_harm(subject: Subject) -> None:
    now = time.time()
    subject.sink.write([record(now, tokens_in=10**30), record(now, tokens_in=10**30)])
    (group,) = subject.source.groups(now - 1)
    assert group.requests == 2
    assert group.tokens_in >= 2**63


def test_many_records_are_all_read(subject: Subject) -> None:
    """More than a page of a query, 1 MB."""
    now = time.time()
    text = "x" * 9_000
    subject.sink.write([record(now, error_message=text, tokens_in=1) for _ in range(250)])
    (group,) = subject.source.groups(now - 1)
    assert (group.requests, group.tokens_in) == (250, 250)


def test_a_source_that_cannot_be_read_says_so(subject: Subject) -> None:
    for ask in (subject.broken.groups, subject.broken.counts):
        with pytest.raises(OSError, match="nowhere"):
            ask(0)
