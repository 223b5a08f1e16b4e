"""How keys are made, revoked and replaced, over any store.

Whatever is random comes in: `key_id` is 12 hex digits, `secret` 43 characters of base64url (256 bits). Times are
seconds since the epoch. All functions let the store's OSError through.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from math import inf
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec.structs import replace

from lexora.core.auth import PREFIX
from lexora.core.chat import Name, invalid_field
from lexora.core.errors import InvalidRequest, NotFound
from lexora.core.keys import Key, Limits
from lexora.core.ports import KeyStore
from lexora.core.record import Priority

_ID = re.compile(r"[0-9a-f]{12}")
_DAY_SECONDS = 86_400.0

T = TypeVar("T")

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
_Usd = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody wants of a new key; the fields are those of Key and its Limits. It expires once or never."""

    user_id: _Text
    name: Name = ""
    models: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    priority: Priority = "normal"
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    usd_per_day: _Usd | None = None
    usd_per_month: _Usd | None = None
    expires_in_days: Annotated[float, msgspec.Meta(gt=0, le=36_500)] | None = None
    expires_at: Annotated[float, msgspec.Meta(gt=0, le=1e11)] | None = None
    admin: bool = False
    on_behalf: bool = False


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the old key goes on beside the new one."""

    keep_hours: Annotated[float, msgspec.Meta(ge=0, le=8760)] = 0


def parse(body: bytes, kind: type[T]) -> T:
    """Reads a JSON body as NewKey or Rotation. Raises InvalidRequest that names the field at fault."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None


def new_key(fields: Mapping[str, Any]) -> NewKey:
    """The same of values that are no JSON."""
    try:
        return msgspec.convert(fields, NewKey)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error)) from None


def create(keys: KeyStore, new: NewKey, now: float, key_id: str, secret: str) -> tuple[Key, str]:
    """Stores a new key. Returns it with its plain text, which is kept nowhere. Raises InvalidRequest."""
    for param, text in (
        ("user_id", new.user_id),
        ("name", new.name),
        *(("models", model) for model in new.models or ()),
    ):
        if not text.isprintable():
            raise _invalid(param, "it has characters that cannot be printed")
    expires_at = new.expires_at
    if new.expires_in_days is not None:
        if expires_at is not None:
            raise _invalid("expires_at", "give either this or expires_in_days")
        expires_at = now + new.expires_in_days * _DAY_SECONDS
    if expires_at is not None and expires_at <= now:
        raise _invalid("expires_at", "this time is over; give seconds since 1970 that are to come")
    plain = _plain(key_id, secret)
    key = Key(
        key_id,
        new.user_id,
        _hash(plain),
        now,
        new.name,
        new.models,
        new.priority,
        Limits(new.requests_per_minute, new.tokens_per_minute, new.usd_per_day, new.usd_per_month),
        expires_at,
        admin=new.admin,
        on_behalf=new.on_behalf,
    )
    _add(keys, key)
    return key, plain


def find(keys: KeyStore, key_id: str) -> Key:
    """A key by its id. Raises NotFound."""
    key = keys.get(key_id) if _ID.fullmatch(key_id) else None
    if key is None:
        raise NotFound(f"There is no key '{key_id[:64]}'. An id is the 12 hex digits after '{PREFIX}'.", param="id")
    return key


def revoke(keys: KeyStore, key_id: str, now: float) -> Key:
    """Ends a key now, unless it has ended before. Raises NotFound."""
    return _change(keys, key_id, lambda key: None if key.revoked_at is not None else replace(key, revoked_at=now))


def rotate(
    keys: KeyStore, key_id: str, now: float, new_id: str, secret: str, keep_seconds: float = 0
) -> tuple[Key, str]:
    """Makes a new key with the settings of an old one, which ends after `keep_seconds`.

    Returns the new one with its plain text. Raises NotFound, and InvalidRequest if the old one has ended already.
    """
    old = find(keys, key_id)
    if (status := old.status(now)) != "active":
        raise InvalidRequest(f"The key '{key_id}' is {status}. Create a new one instead.", param="id", code="key_ended")
    plain = _plain(new_id, secret)
    new = replace(old, id=new_id, secret_hash=_hash(plain), created_at=now, ends_at=None)
    _add(keys, new)  # first, so that nobody is left without a key if the store fails in between
    if keep_seconds:
        ends_at = now + keep_seconds
        _change(keys, key_id, lambda key: None if (key.ends_at or inf) <= ends_at else replace(key, ends_at=ends_at))
    else:
        revoke(keys, key_id, now)
    return new, plain


def public(key: Key, now: float) -> dict[str, Any]:
    """What may be shown of a key: everything but the hash, and its status."""
    shown: dict[str, Any] = msgspec.to_builtins(key)
    del shown["secret_hash"]
    return {**shown, "status": key.status(now)}


def _add(keys: KeyStore, key: Key) -> None:
    if not keys.put(key, None):
        raise OSError(f"there is a key {key.id} already; another try makes another id")


def _change(keys: KeyStore, key_id: str, changed: Callable[[Key], Key | None]) -> Key:
    """Stores what `changed` makes of a key as it is, None for the same. Whoever changes it meanwhile ends it too."""
    while True:
        key = find(keys, key_id)
        new = changed(key)
        if new is None:
            return key
        if keys.put(new, key):
            return new


def _plain(key_id: str, secret: str) -> str:
    return f"{PREFIX}{key_id}-{secret}"


def _hash(plain: str) -> str:
    return sha256(plain.encode()).hexdigest()


def _invalid(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{param}': {what}.", param=param, code="invalid_value")
