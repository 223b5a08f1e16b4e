"""What every `KeyStore` must do, wherever it keeps its keys."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from lexora.adapters.dynamodb_keys import DynamoKeys
from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.keys import Key, Limits
from lexora.core.ports import KeyStore
from tests.support.emulator import Emulator

KEY = Key("0123456789ab", "ann", "f" * 64, 1000.5)
FULL = Key(
    "ba9876543210", "ann 日本", "e" * 64, 999.0, "n", ("gpt-*",), "high", Limits(1, 2, 0.5, 9), 1.5, 2.5, True, True
)


def _sqlite(request: pytest.FixtureRequest) -> Iterator[tuple[KeyStore, KeyStore]]:
    path: Path = request.getfixturevalue("tmp_path") / "new" / "lexora.db"
    with closing(SqliteKeys(path)) as one, closing(SqliteKeys(path)) as other:
        yield one, other


def _dynamodb(request: pytest.FixtureRequest) -> Iterator[tuple[KeyStore, KeyStore]]:
    emulator: Emulator = request.getfixturevalue("emulator")
    client, table = emulator.client("dynamodb"), emulator.table(pk="S", sk="S")
    client.put_item(TableName=table, Item={"pk": {"S": "limit#all"}, "sk": {"S": "day:x"}})
    yield DynamoKeys(client, table), DynamoKeys(client, table)


ADAPTERS: dict[str, Callable[[pytest.FixtureRequest], Iterator[tuple[KeyStore, KeyStore]]]] = {
    "sqlite": _sqlite,
    "dynamodb": _dynamodb,
}


@pytest.fixture(params=ADAPTERS)
def stores(request: pytest.FixtureRequest) -> Iterator[tuple[KeyStore, KeyStore]]:
    """The same store, opened twice."""
    yield from ADAPTERS[request.param](request)


def test_an_empty_store_has_no_keys(stores: tuple[KeyStore, KeyStore]) -> None:
    assert (stores[0].get(KEY.id), stores[0].all()) == (None, [])


@pytest.mark.parametrize("key", [KEY, FULL])
def test_a_key_comes_back_as_it_was(stores: tuple[KeyStore, KeyStore], key: Key) -> None:
    stores[0].put(key)
    assert (stores[1].get(key.id), stores[1].all()) == (key, [key])
    assert stores[1].get("000000000000") is None


def test_a_change_is_seen_by_whoever_looks_next(stores: tuple[KeyStore, KeyStore]) -> None:
    stores[0].put(KEY)
    assert stores[1].get(KEY.id) == KEY
    revoked = msgspec.structs.replace(KEY, revoked_at=2000.0)
    stores[0].put(revoked)
    assert (stores[1].get(KEY.id), stores[1].all()) == (revoked, [revoked])


def test_keys_are_listed_oldest_first(stores: tuple[KeyStore, KeyStore]) -> None:
    for number, at in enumerate((3.0, 1.0, 2.0)):
        stores[0].put(msgspec.structs.replace(KEY, id=f"{number:012}", created_at=at))
    assert [key.created_at for key in stores[1].all()] == [1.0, 2.0, 3.0]


def test_a_store_that_cannot_be_used_is_an_os_error(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "lexora.db").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"lexora\.db"):
        SqliteKeys(tmp_path / "lexora.db")
    nowhere = DynamoKeys(emulator.client("dynamodb"), "test-nowhere")
    for act in (lambda: nowhere.get("a"), nowhere.all, lambda: nowhere.put(KEY)):
        with pytest.raises(OSError, match="test-nowhere"):
            act()


def test_dynamodb_is_asked_consistently(emulator: Emulator) -> None:
    client, asked = emulator.client("dynamodb"), []
    client.meta.events.register("provide-client-params.dynamodb.GetItem", lambda params, **_: asked.append(params))
    assert DynamoKeys(client, emulator.table(pk="S", sk="S")).get("0" * 12) is None
    assert asked[-1]["ConsistentRead"] is True
