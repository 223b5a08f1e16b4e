"""What every `KeyStore` must do, wherever it keeps its keys."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lexora.adapters.dynamodb_keys import DynamoKeys
from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.keys import Key, Limits
from lexora.core.ports import KeyStore
from tests.support.emulator import Emulator

KEY = Key("0123456789ab", "ann", "f" * 64, 1000.5)
FULL = Key(
    "ba9876543210",
    "ann 日本",
    "e" * 64,
    999.0,
    "n",
    ("gpt-*",),
    "high",
    Limits(1, 2, 0.5, 9),
    1.5,
    2.5,
    True,
    True,
    3.5,
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
    assert stores[0].put(key, None)
    assert (stores[1].get(key.id), stores[1].all()) == (key, [key])
    assert stores[1].get("000000000000") is None


def test_a_change_is_seen_by_whoever_looks_next(stores: tuple[KeyStore, KeyStore]) -> None:
    assert stores[0].put(KEY, None)
    assert stores[1].get(KEY.id) == KEY
    revoked = msgspec.structs.replace(KEY, revoked_at=2000.0)
    assert stores[0].put(revoked, KEY)
    assert (stores[1].get(KEY.id), stores[1].all()) == (revoked, [revoked])


def test_a_change_of_what_is_no_more_is_refused(stores: tuple[KeyStore, KeyStore]) -> None:
    revoked, kept = (msgspec.structs.replace(KEY, revoked_at=at) for at in (2000.0, 9000.0))
    assert not stores[0].put(revoked, KEY)  # nobody has made it
    assert stores[0].put(KEY, None)
    assert stores[0].put(revoked, KEY)
    assert not stores[1].put(kept, KEY)
    assert not stores[1].put(KEY, None)
    assert (stores[1].get(KEY.id), stores[1].all()) == (revoked, [revoked])


def test_of_changes_at_once_only_one_is_made(stores: tuple[KeyStore, KeyStore]) -> None:
    stores[0].put(KEY, None)
    changes = [msgspec.structs.replace(KEY, revoked_at=float(at)) for at in range(20)]
    with ThreadPoolExecutor(len(changes)) as pool:
        made = list(pool.map(lambda at: stores[at % 2].put(changes[at], KEY), range(len(changes))))
    assert sum(made) == 1
    assert stores[0].get(KEY.id) == changes[made.index(True)]


def test_keys_are_listed_oldest_first(stores: tuple[KeyStore, KeyStore]) -> None:
    for number, at in enumerate((3.0, 1.0, 2.0)):
        stores[0].put(msgspec.structs.replace(KEY, id=f"{number:012}", created_at=at), None)
    assert [key.created_at for key in stores[1].all()] == [1.0, 2.0, 3.0]


def test_a_store_that_cannot_be_used_is_an_os_error(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "lexora.db").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"lexora\.db"):
        SqliteKeys(tmp_path / "lexora.db")
    nowhere = DynamoKeys(emulator.client("dynamodb"), "test-nowhere")
    for act in (lambda: nowhere.get("a"), nowhere.all, lambda: nowhere.put(KEY, None), lambda: nowhere.put(KEY, KEY)):
        with pytest.raises(OSError, match="test-nowhere"):
            act()


def test_dynamodb_is_asked_consistently(emulator: Emulator) -> None:
    client, asked = emulator.client("dynamodb"), []
    client.meta.events.register("provide-client-params.dynamodb.GetItem", lambda params, **_: asked.append(params))
    assert DynamoKeys(client, emulator.table(pk="S", sk="S")).get("0" * 12) is None
    assert asked[-1]["ConsistentRead"] is True


def test_a_key_of_an_older_version_can_be_changed(emulator: Emulator, tmp_path: Path) -> None:
    """It has fewer fields, and those in another order."""
    text = '{"created_at":1,"id":"0123456789ab","user_id":"ann","secret_hash":"f"}'
    revoked = Key("0123456789ab", "ann", "f", 1, revoked_at=2.0)
    client, table = emulator.client("dynamodb"), emulator.table(pk="S", sk="S")
    client.put_item(TableName=table, Item={"pk": {"S": "keys"}, "sk": {"S": KEY.id}, "key": {"S": text}})
    with closing(SqliteKeys(tmp_path / "lexora.db")) as sqlite:
        with closing(sqlite3.connect(tmp_path / "lexora.db")) as raw, raw:
            raw.execute("INSERT INTO keys VALUES (?, ?)", (KEY.id, text))
        stores: tuple[KeyStore, ...] = (sqlite, DynamoKeys(client, table))
        for store in stores:
            assert store.put(revoked, store.get(KEY.id))
            assert store.get(KEY.id) == revoked


def test_dynamodb_says_of_a_change_that_was_made_and_not_heard_of_that_it_is_made(emulator: Emulator) -> None:
    """boto3 sends a call again if its answer is lost, and the condition does not hold the second time."""
    client, table = emulator.client("dynamodb"), emulator.table(pk="S", sk="S")
    store = DynamoKeys(client, table)

    sent: list[Any] = []

    def send_once_before(params: dict[str, Any], **_: object) -> None:
        if params not in sent:
            sent.append(params)
            client.put_item(**params)

    client.meta.events.register("provide-client-params.dynamodb.PutItem", send_once_before)
    assert store.put(KEY, None)
    assert store.put(msgspec.structs.replace(KEY, revoked_at=1.0), KEY)
    assert len(sent) == 2
