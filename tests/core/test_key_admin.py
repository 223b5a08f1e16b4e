"""How keys are made, over a real file."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core import key_admin
from lexora.core.errors import InvalidRequest, NotFound
from lexora.core.key_admin import NewKey
from lexora.core.keys import Key

ID, NEW_ID, NOW = "0123456789ab", "ba9876543210", 1_000_000.0


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[SqliteKeys]:
    with closing(SqliteKeys(tmp_path / "lexora.db")) as store:
        yield store


def test_a_key_is_kept_as_a_hash(keys: SqliteKeys) -> None:
    key, plain = key_admin.create(keys, NewKey(user_id="ann", expires_in_days=1), NOW, ID, "s" * 43)
    assert plain == f"sk-lexora-{ID}-{'s' * 43}"
    assert keys.get(ID) == key
    assert (key.secret_hash, key.expires_at) == (sha256(plain.encode()).hexdigest(), NOW + 86_400)
    assert key.secret_hash not in json.dumps(key_admin.public(key, NOW))


@pytest.mark.parametrize(("fields", "param"), [
    ({}, "user_id"), ({"user_id": ""}, "user_id"), ({"user_id": "a\n"}, "user_id"), ({"user_id": "a", "x": 1}, ""),
    ({"user_id": "a", "models": []}, "models"), ({"user_id": "a", "models": ["a", 1]}, "models[1]"),
    ({"user_id": "a", "priority": "top"}, "priority"),
    ({"user_id": "a", "requests_per_minute": -1}, "requests_per_minute"),
    ({"user_id": "a", "usd_per_day": 1e300}, "usd_per_day"), ({"user_id": "a", "expires_at": NOW}, "expires_at"),
    ({"user_id": "a", "expires_at": NOW + 1, "expires_in_days": 1}, "expires_at"),
])  # fmt: skip
def test_a_wish_that_cannot_be_met_names_the_field(keys: SqliteKeys, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        key_admin.create(keys, key_admin.parse(json.dumps(fields).encode(), NewKey), NOW, ID, "s" * 43)
    assert (raised.value.param or "") == param
    assert keys.all() == []


@pytest.mark.parametrize("body", [b"", b"{", b'{"user_id":"\xff"}'])
def test_a_body_that_is_no_json(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        key_admin.parse(body, NewKey)


def test_a_key_ends_once(keys: SqliteKeys) -> None:
    key_admin.create(keys, NewKey(user_id="ann"), NOW, ID, "s" * 43)
    assert key_admin.revoke(keys, ID, NOW + 1).revoked_at == key_admin.revoke(keys, ID, NOW + 9).revoked_at == NOW + 1
    with pytest.raises(InvalidRequest, match="revoked"):
        key_admin.rotate(keys, ID, NOW + 2, NEW_ID, "n" * 43)
    with pytest.raises(NotFound):
        key_admin.revoke(keys, NEW_ID, NOW)


def test_a_key_that_was_to_go_on_can_be_ended_now(keys: SqliteKeys) -> None:
    key_admin.create(keys, NewKey(user_id="ann", tokens_per_minute=5), NOW, ID, "s" * 43)
    new, _ = key_admin.rotate(keys, ID, NOW, NEW_ID, "n" * 43, keep_seconds=60)
    assert (new.user_id, new.limits.tokens_per_minute, new.revoked_at) == ("ann", 5, None)
    old = key_admin.find(keys, ID)
    assert (old.status(NOW + 59), old.status(NOW + 60)) == ("active", "revoked")
    assert key_admin.revoke(keys, ID, NOW + 1).revoked_at == NOW + 1


class Meanwhile:
    """The store, where something else happens once between a look at a key and its change."""

    def __init__(self, keys: SqliteKeys, happens: Callable[[], object]) -> None:
        self._keys = keys
        self._happens: list[Callable[[], object]] = [happens]

    def get(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def all(self) -> list[Key]:
        return self._keys.all()

    def put(self, key: Key, before: Key | None) -> bool:
        if before is not None and self._happens:
            self._happens.pop()()
        return self._keys.put(key, before)


def test_a_key_that_is_revoked_while_it_is_rotated_stays_so(keys: SqliteKeys) -> None:
    key_admin.create(keys, NewKey(user_id="ann"), NOW, ID, "s" * 43)
    meanwhile = Meanwhile(keys, lambda: key_admin.revoke(keys, ID, NOW + 1))
    key_admin.rotate(meanwhile, ID, NOW, NEW_ID, "n" * 43, keep_seconds=3600)
    assert key_admin.find(keys, ID).revoked_at == NOW + 1


def test_of_two_rotations_the_earlier_end_counts(keys: SqliteKeys) -> None:
    key_admin.create(keys, NewKey(user_id="ann"), NOW, ID, "s" * 43)
    key_admin.rotate(keys, ID, NOW, NEW_ID, "n" * 43, keep_seconds=60)
    third, _ = key_admin.rotate(keys, ID, NOW, "c" * 12, "n" * 43, keep_seconds=3600)
    assert (key_admin.find(keys, ID).ends_at, third.ends_at) == (NOW + 60, None)


def test_a_key_that_is_rotated_while_it_is_revoked_ends(keys: SqliteKeys) -> None:
    key_admin.create(keys, NewKey(user_id="ann"), NOW, ID, "s" * 43)
    meanwhile = Meanwhile(keys, lambda: key_admin.rotate(keys, ID, NOW, NEW_ID, "n" * 43, keep_seconds=3600))
    assert key_admin.revoke(meanwhile, ID, NOW + 1).revoked_at == NOW + 1
    assert key_admin.find(keys, ID).revoked_at == NOW + 1


def test_a_key_never_takes_the_place_of_another(keys: SqliteKeys) -> None:
    key, _ = key_admin.create(keys, NewKey(user_id="ann"), NOW, ID, "s" * 43)
    with pytest.raises(OSError, match=ID):
        key_admin.create(keys, NewKey(user_id="bob"), NOW, ID, "t" * 43)
    assert keys.all() == [key]
