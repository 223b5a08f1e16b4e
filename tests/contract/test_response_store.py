"""What every `ResponseStore` must do, wherever it keeps its responses."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from lexora.adapters.dynamodb_responses import DynamoResponses
from lexora.adapters.sqlite_responses import SqliteResponses
from lexora.core.ports import MOST_RESPONSE_BYTES, RESPONSE_SECONDS, ResponseStore, StoredResponse
from tests.support.emulator import Emulator

AT = 1_795_000_000.25
ONE = StoredResponse("resp_1", "ann", AT, None, b'[{"type":"message"}]', b'{"id":"resp_1"}')
OTHER = StoredResponse("resp_2", "ann 日本", AT, "resp_1", '["日本"]'.encode(), b"{}")


class Clock:
    now = AT

    def __call__(self) -> float:
        return self.now


class Subject(NamedTuple):
    store: ResponseStore
    reopen: Callable[[], ResponseStore]
    clock: Clock


def _sqlite(request: pytest.FixtureRequest) -> Iterator[Subject]:
    path: Path = request.getfixturevalue("tmp_path") / "new" / "responses.db"
    clock = Clock()
    with closing(SqliteResponses(path, clock)) as one, closing(SqliteResponses(path, clock)) as again:
        yield Subject(one, lambda: again, clock)


def _dynamodb(request: pytest.FixtureRequest) -> Iterator[Subject]:
    emulator: Emulator = request.getfixturevalue("emulator")
    client, table, clock = emulator.client("dynamodb"), emulator.table(pk="S", sk="S"), Clock()
    client.put_item(TableName=table, Item={"pk": {"S": "keys"}, "sk": {"S": "resp_1"}})
    yield Subject(DynamoResponses(client, table, clock), lambda: DynamoResponses(client, table, clock), clock)


ADAPTERS = {"sqlite": _sqlite, "dynamodb": _dynamodb}


@pytest.fixture(params=ADAPTERS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from ADAPTERS[request.param](request)


def test_an_empty_store_has_nothing(subject: Subject) -> None:
    assert subject.store.get("ann", "resp_1") is None
    assert subject.store.delete("ann", "resp_1") is False


@pytest.mark.parametrize("response", [ONE, OTHER, ONE._replace(owner=""), ONE._replace(input=b"", response=b"")])
def test_a_response_comes_back_as_it_was(subject: Subject, response: StoredResponse) -> None:
    subject.store.put(response)
    assert subject.reopen().get(response.owner, response.id) == response


@pytest.mark.parametrize("noise", [True, False])
def test_the_largest_comes_back_as_it_was(subject: Subject, noise: bool) -> None:
    """Bytes of chance cannot be made smaller."""
    size = MOST_RESPONSE_BYTES - 1000
    words = random.Random(1).randbytes(size) if noise else b"a" * size
    large = ONE._replace(input=words, response=b"b" * 1000)
    subject.store.put(large)
    assert subject.reopen().get("ann", "resp_1") == large
    assert subject.store.delete("ann", "resp_1") is True
    assert subject.reopen().get("ann", "resp_1") is None


@pytest.mark.parametrize(
    ("owner", "response_id"),
    [
        ("bob", "resp_1"),
        ("", "resp_1"),
        ("Ann", "resp_1"),
        ("ann", "resp_2"),
        ("ann", ""),
        ("ann", "resp_1 "),
        ("ann", "r" * 5000),
        ("ann", "首" * 1000),
    ],
)
def test_nobody_else_and_no_other_id_finds_it(subject: Subject, owner: str, response_id: str) -> None:
    subject.store.put(ONE)
    assert subject.store.get(owner, response_id) is None
    assert subject.store.delete(owner, response_id) is False
    assert subject.store.get("ann", "resp_1") == ONE


def test_what_is_deleted_is_gone_for_whoever_looks_next(subject: Subject) -> None:
    subject.store.put(ONE)
    subject.store.put(OTHER)
    assert subject.store.delete("ann", "resp_1") is True
    assert subject.reopen().get("ann", "resp_1") is None
    assert subject.store.delete("ann", "resp_1") is False
    assert subject.store.get(OTHER.owner, OTHER.id) == OTHER


def test_a_response_that_is_put_again_takes_its_own_place(subject: Subject) -> None:
    subject.store.put(ONE._replace(response=random.Random(1).randbytes(1_000_000)))
    subject.store.put(ONE)
    assert subject.store.get("ann", "resp_1") == ONE


def test_a_response_ends_after_thirty_days(subject: Subject) -> None:
    subject.store.put(ONE)
    subject.clock.now = AT + RESPONSE_SECONDS - 2
    assert subject.store.get("ann", "resp_1") == ONE
    subject.clock.now = AT + RESPONSE_SECONDS + 1
    assert subject.store.get("ann", "resp_1") is None
    assert subject.store.delete("ann", "resp_1") is False


def test_a_store_that_cannot_be_used_is_an_os_error(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "responses.db").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"responses\.db"):
        SqliteResponses(tmp_path / "responses.db", Clock())
    nowhere = DynamoResponses(emulator.client("dynamodb"), "test-nowhere", Clock())
    for act in (lambda: nowhere.get("a", "b"), lambda: nowhere.delete("a", "b"), lambda: nowhere.put(ONE)):
        with pytest.raises(OSError, match="test-nowhere"):
            act()


def test_dynamodb_is_asked_consistently_and_told_when_to_forget(emulator: Emulator) -> None:
    client, table = emulator.client("dynamodb"), emulator.table(pk="S", sk="S")
    asked: list[dict[str, object]] = []
    client.meta.events.register("provide-client-params.dynamodb.Query", lambda params, **_: asked.append(params))
    store = DynamoResponses(client, table, Clock())
    store.put(ONE)
    assert store.get("ann", "resp_1") == ONE
    assert asked[-1]["ConsistentRead"] is True
    assert [item["expires_at"] for item in emulator.items(table)] == [{"N": str(int(AT) + RESPONSE_SECONDS)}]


def test_a_response_of_which_a_piece_is_missing_is_none(emulator: Emulator) -> None:
    client, table = emulator.client("dynamodb"), emulator.table(pk="S", sk="S")
    store = DynamoResponses(client, table, Clock())
    store.put(ONE._replace(input=random.Random(1).randbytes(1_000_000)))
    assert len(emulator.items(table)) == 3
    client.delete_item(TableName=table, Key={"pk": {"S": "response#resp_1"}, "sk": {"S": "000"}})
    assert store.get("ann", "resp_1") is None


def test_sqlite_lets_the_oldest_go_when_it_is_full(tmp_path: Path) -> None:
    clock = Clock()
    with closing(SqliteResponses(tmp_path / "r.db", clock, most_bytes=3000)) as store:
        for number in range(5):
            store.put(ONE._replace(id=f"r{number}", created_at=AT - 9 + number, input=b"a" * 500, response=b"b" * 500))
        assert [store.get("ann", f"r{number}") is not None for number in range(5)] == [False, False, True, True, True]
        assert store.delete("ann", "r3") is True
        store.put(ONE._replace(id="r5", input=b"a" * 900))
    with closing(SqliteResponses(tmp_path / "r.db", clock, most_bytes=3000)) as store:
        assert [store.get("ann", f"r{number}") is not None for number in (2, 4, 5)] == [True, True, True]
        store.put(ONE._replace(id="r6", input=b"a" * 900))
        assert [store.get("ann", f"r{number}") is not None for number in (2, 4, 5, 6)] == [False, True, True, True]


def test_sqlite_leaves_no_trace_of_what_was_deleted(tmp_path: Path) -> None:
    with closing(SqliteResponses(tmp_path / "r.db", Clock())) as store:
        store.put(ONE._replace(input=b"a secret of Ann's"))
        store.put(OTHER)
        assert any(b"a secret" in path.read_bytes() for path in tmp_path.iterdir())
        store.delete("ann", "resp_1")
        assert not any(b"a secret" in path.read_bytes() for path in tmp_path.iterdir())
