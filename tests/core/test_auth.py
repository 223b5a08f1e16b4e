"""Who asks, over a real file of keys."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core import key_admin
from lexora.core.auth import FRESH_SECONDS, STALE_SECONDS, Auth
from lexora.core.errors import AuthUnavailable, Unauthorized
from lexora.core.key_admin import NewKey
from lexora.core.keys import ANYBODY, Caller, Key
from lexora.core.ports import KeyStore

ID, NEW_ID, SECRET = "0123456789ab", "ba9876543210", "s" * 43


class Clock:
    at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


class Door:
    """A store that counts who comes, and can be shut."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self.shut = False
        self.asked = 0

    def get(self, key_id: str) -> Key | None:
        self.asked += 1
        if self.shut:
            raise OSError("shut")
        return self._keys.get(key_id)

    def all(self) -> list[Key]:
        return self._keys.all()

    def put(self, key: Key, before: Key | None) -> bool:
        return self._keys.put(key, before)


class Tokens:
    """Knows one token."""

    def __init__(self, claims: Mapping[str, Any] | Exception) -> None:
        self._claims = claims

    async def claims(self, token: str) -> Mapping[str, Any]:
        if isinstance(self._claims, Exception):
            raise self._claims
        return self._claims


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Door]:
    with closing(SqliteKeys(tmp_path / "lexora.db")) as store:
        yield Door(store)


@pytest.fixture
def auth(keys: Door, clock: Clock) -> Auth:
    return Auth(keys, None, required=True, prepared=False, now=clock)


def ask(auth: Auth, token: str | None) -> Caller | None:
    """As the endpoints do: what was seen just now needs no second look."""
    header = None if token is None else f"Bearer {token}".encode("latin-1")
    return auth.recall(header) or asyncio.run(auth.identify(header))


def make(keys: KeyStore, clock: Clock, key_id: str = ID, **fields: Any) -> str:
    return key_admin.create(keys, NewKey(user_id="ann", **fields), clock(), key_id, SECRET)[1]


def test_a_key_says_who_asks_and_what_they_may(auth: Auth, keys: Door, clock: Clock) -> None:
    plain = make(keys, clock, models=("gpt-*",), priority="low", usd_per_day=2.5, admin=True)
    caller = ask(auth, plain)
    assert caller is not None
    assert (caller.user_id, caller.key_id, caller.models, caller.priority) == ("ann", ID, ("gpt-*",), "low")
    assert (caller.highest, caller.limits.usd_per_day, caller.admin, caller.on_behalf) == ("low", 2.5, True, False)
    assert asyncio.run(auth.identify(f"  bEARER   {plain} ".encode())) == caller


@pytest.mark.parametrize("token", [
    f"sk-lexora-{ID}-{'t' * 43}", f"sk-lexora-{NEW_ID}-{SECRET}", f"sk-lexora-{ID}-{SECRET}x", f"sk-lexora-{ID}",
    "sk-lexora-", f"sk-lexora--{SECRET}", f"sk-lexora-{'a' * 5000}-{SECRET}", "sk-other", "a.b.c", "", "ÿ",
])  # fmt: skip
def test_another_credential_is_refused(auth: Auth, keys: Door, clock: Clock, token: str) -> None:
    make(keys, clock)
    with pytest.raises(Unauthorized) as raised:
        ask(auth, token)
    assert raised.value.headers == ((b"www-authenticate", b"Bearer"),)


def test_no_store_is_asked_for_what_can_be_no_id(auth: Auth, keys: Door) -> None:
    for token in ("sk-lexora-", f"sk-lexora-{'a' * 5000}-{SECRET}"):
        with pytest.raises(Unauthorized):
            ask(auth, token)
    assert keys.asked == 0


def test_where_no_key_is_needed_clients_send_none_or_a_dummy(auth: Auth) -> None:
    assert ask(auth, None) is None
    auth.required = False
    assert ask(auth, None) is ask(auth, "sk-dummy") is ask(auth, "a.b.c") is ANYBODY
    with pytest.raises(Unauthorized):  # whoever means to be somebody is not taken for anybody
        ask(auth, f"sk-lexora-{ID}-{SECRET}")


def test_what_was_seen_just_now_needs_no_second_look(auth: Auth, keys: Door, clock: Clock) -> None:
    header = f"Bearer {make(keys, clock)}".encode()
    assert auth.recall(header) is None
    caller = asyncio.run(auth.identify(header))
    clock.at += FRESH_SECONDS - 0.1
    assert auth.recall(header) is caller
    assert auth.recall(header + b"x") is None
    clock.at += 0.1
    assert auth.recall(header) is None
    asyncio.run(auth.identify(header))
    clock.at -= 100  # a clock that is put back makes nobody stay
    assert auth.recall(header) is None


def test_what_is_remembered_is_bounded_and_soon_forgotten(auth: Auth, keys: Door, clock: Clock) -> None:
    plain = make(keys, clock)
    for spaces in range(1, 2000):  # all are the same key
        asyncio.run(auth.identify(b"Bearer" + b" " * spaces + plain.encode()))
    assert len(auth._seen) < 200
    clock.at += FRESH_SECONDS
    asyncio.run(auth.identify(f"Bearer {plain}".encode()))
    assert len(auth._seen) == 1


def test_a_key_expires(auth: Auth, keys: Door, clock: Clock) -> None:
    plain = make(keys, clock, expires_at=clock.at + 1)
    assert ask(auth, plain)
    clock.at += 1
    with pytest.raises(Unauthorized, match="expired"):
        ask(auth, plain)


def test_a_revoked_key_ends_within_two_seconds(auth: Auth, keys: Door, clock: Clock) -> None:
    assert FRESH_SECONDS <= 2
    plain = make(keys, clock)
    ask(auth, plain)
    key_admin.revoke(keys, ID, clock())
    clock.at += 2
    with pytest.raises(Unauthorized, match="revoked"):
        ask(auth, plain)


def test_a_rotated_key_goes_on_as_long_as_it_shall(auth: Auth, keys: Door, clock: Clock) -> None:
    plain = make(keys, clock, admin=True)
    _, new = key_admin.rotate(keys, ID, clock(), NEW_ID, "n" * 43, keep_seconds=60)
    clock.at += 59
    old_caller, new_caller = ask(auth, plain), ask(auth, new)
    assert old_caller and new_caller and new_caller.admin
    clock.at += 1
    assert ask(auth, new)
    with pytest.raises(Unauthorized, match="revoked"):
        ask(auth, plain)


def test_a_store_that_is_down_ends_nobody_who_was_known(keys: Door, clock: Clock) -> None:
    said: list[str] = []
    auth = Auth(keys, None, required=True, prepared=False, now=clock, say=said.append)
    plain = make(keys, clock)
    other = make(keys, clock, NEW_ID)
    ask(auth, plain)
    keys.shut = True
    clock.at += STALE_SECONDS - 1
    asked = keys.asked
    assert ask(auth, plain) == ask(auth, plain)
    assert keys.asked == asked + 1  # not for each request, as it may take its time to fail
    with pytest.raises(AuthUnavailable):
        ask(auth, other)
    assert said == ["keys cannot be looked up: shut"]  # once a minute
    clock.at += FRESH_SECONDS
    with pytest.raises(AuthUnavailable):
        ask(auth, plain)
    assert len(said) == 1
    clock.at += 60
    with pytest.raises(AuthUnavailable):
        ask(auth, plain)
    assert len(said) == 2
    keys.shut = False
    assert ask(auth, plain)


def test_ten_thousand_keys_cost_what_one_does(auth: Auth, keys: Door, clock: Clock) -> None:
    """One look-up by its id for each key, and none while it is fresh, however many there are."""
    made = [make(keys, clock, f"{number:012x}") for number in range(50)]
    for token in (*made, *made, *made):
        ask(auth, token)
    assert keys.asked == len(made)


@pytest.mark.parametrize(
    ("roles", "admin"),
    [("admin", True), (["x", "admin"], True), (["x"], False), ("administrator", False), (None, False)],
)
def test_a_token_says_who_asks(auth: Auth, roles: Any, admin: bool) -> None:
    auth.tokens = Tokens({"email": "bob", "realm": {"roles": roles}})
    auth.user_claim, auth.admin_claim = "email", "realm.roles"
    assert ask(auth, "a.b.c") == Caller("bob", admin=admin)


@pytest.mark.parametrize("claims", [{}, {"sub": ""}, {"sub": 7}])
def test_a_token_of_nobody_is_refused(auth: Auth, claims: dict[str, Any]) -> None:
    auth.tokens = Tokens(claims)
    with pytest.raises(Unauthorized, match="'sub'"):
        ask(auth, "a.b.c")


def test_tokens_that_cannot_be_checked(auth: Auth) -> None:
    auth.tokens = Tokens(OSError("no issuer"))
    with pytest.raises(AuthUnavailable):
        ask(auth, "a.b.c")
    auth.tokens = Tokens(Unauthorized("forged"))
    with pytest.raises(Unauthorized, match="forged"):
        ask(auth, "a.b.c")


def test_a_clock_that_is_set_back_keeps_no_revoked_key(keys: Door, clock: Clock) -> None:
    _, plain = key_admin.create(keys, NewKey(user_id="ann"), 0.0, ID, SECRET)
    auth = Auth(keys, None, required=True, prepared=False, now=clock)
    asyncio.run(auth.identify(plain.encode()))
    key_admin.revoke(keys, ID, clock())
    clock.at -= 3600  # and it was not revoked yet
    with pytest.raises(Unauthorized, match="revoked"):
        asyncio.run(auth.identify(plain.encode()))
    clock.at += 3600
    assert auth.recall(plain.encode()) is None


def test_what_is_remembered_has_a_bound(keys: Door, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexora.core.auth._MOST_CACHED", 3)
    auth = Auth(keys, None, required=True, prepared=False, now=clock)
    for number in range(10):
        _, plain = key_admin.create(keys, NewKey(user_id="ann"), 0.0, f"{number:012x}", SECRET)
        asyncio.run(auth.identify(plain.encode()))
    assert len(auth._cache) <= 3
