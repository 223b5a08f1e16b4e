"""What every `CacheStore` must do, wherever it keeps its answers."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from lexora.adapters.dynamodb_cache import DynamoCache
from lexora.adapters.sqlite_cache import SqliteCache
from lexora.core.ports import CacheStore, KeptAnswer
from lexora.core.usage import Usage
from tests.support.emulator import Emulator

AT = 1_795_000_000.25
KEY = "a" * 64
ONE = KeptAnswer(
    '{"choices": ["日本"]}'.encode(), Usage(1, 2, 3, 4, 5, 6), True, "vllm/日本", "vllm", "up", AT, AT + 60.5
)


class Subject(NamedTuple):
    """A store, another one over the same, one that has nothing to keep in, and what spoils all that is kept."""

    store: CacheStore
    reopen: Callable[[], CacheStore]
    broken: CacheStore
    spoil: Callable[[], None]


def _sqlite(request: pytest.FixtureRequest) -> Iterator[Subject]:
    folder: Path = request.getfixturevalue("tmp_path")
    (folder / "broken").mkdir()
    stores = [SqliteCache(folder / name, lambda: AT, 10**7, 100) for name in ("new/one", "new/one", "broken")]
    with closing(stores[0]), closing(stores[1]), closing(stores[2]):
        yield Subject(stores[0], lambda: stores[1], stores[2], lambda: _spoil(folder / "new/one"))


def _spoil(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE kept SET answer = x'00'")


def _dynamodb(request: pytest.FixtureRequest) -> Iterator[Subject]:
    emulator: Emulator = request.getfixturevalue("emulator")
    client, table = emulator.client("dynamodb"), emulator.table(key="S")
    spoilt = {"key": {"S": KEY}, "answer": {"B": b"0"}}
    yield Subject(
        DynamoCache(client, table),
        lambda: DynamoCache(client, table),
        DynamoCache(client, "nowhere"),
        lambda: client.put_item(TableName=table, Item=spoilt),
    )


ADAPTERS = {"sqlite": _sqlite, "dynamodb": _dynamodb}


@pytest.fixture(params=ADAPTERS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from ADAPTERS[request.param](request)


def get(store: CacheStore, key: str = KEY) -> KeptAnswer | None:
    return asyncio.run(store.get(key))


def put(store: CacheStore, answer: KeptAnswer, key: str = KEY) -> None:
    asyncio.run(store.put(key, answer))


def test_an_empty_store_has_nothing(subject: Subject) -> None:
    assert get(subject.store) is None


@pytest.mark.parametrize("answer", [ONE, msgspec.structs.replace(ONE, body=b"", usage_estimated=False)])
def test_an_answer_comes_back_as_it_was(subject: Subject, answer: KeptAnswer) -> None:
    put(subject.store, answer)
    assert get(subject.store) == answer
    assert get(subject.reopen()) == answer
    assert get(subject.store, "b" * 64) is None


def test_a_newer_one_takes_its_place(subject: Subject) -> None:
    newer = msgspec.structs.replace(ONE, body=b"newer")
    put(subject.store, ONE)
    put(subject.store, newer)
    assert get(subject.store) == newer


def test_a_large_one_comes_back_as_it_was(subject: Subject) -> None:
    large = msgspec.structs.replace(ONE, body=b'{"embedding": [0.125]}' * 40_000)
    put(subject.store, large)
    assert get(subject.store) == large


def test_what_cannot_be_read_is_a_failure_until_a_newer_one_takes_its_place(subject: Subject) -> None:
    put(subject.store, ONE)
    subject.spoil()
    with pytest.raises(OSError):
        get(subject.store)
    put(subject.store, ONE)
    assert get(subject.store) == ONE


def test_a_store_that_fails_says_so(subject: Subject) -> None:
    with pytest.raises(OSError, match=r"broken|nowhere"):
        get(subject.broken)
    with pytest.raises(OSError, match=r"broken|nowhere"):
        put(subject.broken, ONE)
