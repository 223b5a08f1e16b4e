"""What every `RecordSink` must do, whatever it writes to."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from lexora.adapters.dynamodb import DynamoRecords
from lexora.adapters.json_log import JsonLog
from lexora.adapters.sqlite import SqliteRecords
from lexora.core.ports import RecordSink
from lexora.core.record import Record, RequestIds
from tests.support.emulator import Emulator


class Subject(NamedTuple):
    """A sink, the facts that have reached its other end (named as in Record), and how to make it fail and recover."""

    sink: RecordSink
    read: Callable[[], list[dict[str, Any]]]
    fail: Callable[[], Any]
    recover: Callable[[], Any]


def _sqlite(request: pytest.FixtureRequest) -> Iterator[Subject]:
    path: Path = request.getfixturevalue("tmp_path") / "lexora.db"
    sink = SqliteRecords(path)
    other = sqlite3.connect(path)

    def read() -> list[dict[str, Any]]:
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY request_id")]

    yield Subject(sink, read, lambda: other.execute("BEGIN IMMEDIATE").close(), other.rollback)
    other.close()
    sink.close()


def _json_log(request: pytest.FixtureRequest) -> Iterator[Subject]:
    path: Path = request.getfixturevalue("tmp_path") / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink = JsonLog(partial(os.write, descriptor))

    def point_to(flags: int) -> None:
        other = os.open(path, flags)
        os.dup2(other, descriptor)
        os.close(other)

    def read() -> list[dict[str, Any]]:
        lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        return [{_snake(name): value for name, value in line.items()} for line in lines]

    yield Subject(sink, read, lambda: point_to(os.O_RDONLY), lambda: point_to(os.O_WRONLY | os.O_APPEND))
    sink.close()
    os.close(descriptor)


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


def _dynamodb(request: pytest.FixtureRequest) -> Iterator[Subject]:
    emulator: Emulator = request.getfixturevalue("emulator")
    client, table = emulator.client("dynamodb"), emulator.table(day="S", request_id="S")

    def read() -> list[dict[str, Any]]:
        unknown = dict.fromkeys(Record.__struct_fields__)
        found = [{**unknown, **{name: _plain(value) for name, value in item.items()}} for item in emulator.items(table)]
        return sorted(found, key=lambda record: record["request_id"])

    yield Subject(
        DynamoRecords(client, table, ttl_days=1),
        read,
        fail=lambda: client.delete_table(TableName=table),
        recover=lambda: emulator.table(table, day="S", request_id="S"),
    )


def _plain(value: dict[str, Any]) -> Any:
    """`{"N": "1"}` as 1."""
    ((kind, content),) = value.items()
    return json.loads(content) if kind == "N" else content


ADAPTERS = {"sqlite": _sqlite, "json log": _json_log, "dynamodb": _dynamodb}


@pytest.fixture(params=ADAPTERS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from ADAPTERS[request.param](request)


def records(count: int, **facts: Any) -> list[Record]:
    ids = RequestIds(7)
    return [Record(ids.new(1_795_260_267.5), 1_795_260_267.5, "chat.completions", **facts) for _ in range(count)]


FULL = {
    "user_id": "takahito",
    "model": "chat",
    "upstream_model": "qwen3-32b",
    "deployment": "vllm/qwen3-32b",
    "origin": "own",
    "tokens_in": 12,
    "tokens_out": 34,
    "cost_usd": 0.000123,
    "saved_usd": 0.25,
    "attempts": 2,
    "ttft_ms": 12.5,
    "duration_ms": 99.25,
    "outcome": "failed",
    "status": 502,
    "error_code": "upstream_broken",
    "error_message": '日本 "quoted"\n🗻',
    "malformed_events": 1,
}


def test_nothing_is_there_before_something_is_written(subject: Subject) -> None:
    subject.sink.write([])
    assert subject.read() == []


@pytest.mark.parametrize("count", [1, 99, 100, 101, 1234])
def test_every_record_of_a_batch_arrives(subject: Subject, count: int) -> None:
    batch = records(count)
    subject.sink.write(batch)
    assert [record["request_id"] for record in subject.read()] == [record.request_id for record in batch]


def test_batches_follow_each_other(subject: Subject) -> None:
    batch = records(30)
    for start in range(0, 30, 10):
        subject.sink.write(batch[start : start + 10])
    assert [record["request_id"] for record in subject.read()] == [record.request_id for record in batch]


def test_the_facts_arrive_as_they_are(subject: Subject) -> None:
    subject.sink.write(records(1, **FULL))
    (found,) = subject.read()
    assert {name: found[name] for name in FULL} == FULL


@pytest.mark.parametrize("name", ["user_id", "origin", "cost_usd", "ttft_ms"])
def test_what_is_not_known_is_null(subject: Subject, name: str) -> None:
    subject.sink.write(records(1, **{**FULL, name: None}))
    assert subject.read()[0][name] is None


@pytest.mark.parametrize("origin", ["edge", "fixed", "cache", "own", "paid"])
@pytest.mark.parametrize("outcome", ["completed", "failed", "client_left"])
def test_every_origin_and_outcome_can_be_kept(subject: Subject, origin: str, outcome: str) -> None:
    subject.sink.write(records(1, origin=origin, outcome=outcome))
    (found,) = subject.read()
    assert (found["origin"], found["outcome"]) == (origin, outcome)


def test_an_impossible_count_of_an_upstream_keeps_no_other_record_out(subject: Subject) -> None:
    """A record that could never be written would stand before all that come after it."""
    batch = records(3)
    batch[1].tokens_in = 10**30
    subject.sink.write(batch)
    assert [record["request_id"] for record in subject.read()] == [record.request_id for record in batch]
    assert subject.read()[1]["tokens_in"] >= 2**63 - 1


def test_a_sink_that_fails_says_so_and_has_written_nothing(subject: Subject) -> None:
    batch = records(150)
    subject.fail()
    with pytest.raises((OSError, sqlite3.Error)):
        subject.sink.write(batch)
    subject.recover()
    assert subject.read() == []
    subject.sink.write(batch)
    assert [record["request_id"] for record in subject.read()] == [record.request_id for record in batch]
