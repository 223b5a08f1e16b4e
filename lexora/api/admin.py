"""The admin API: keys, and the reload. All of it takes an admin's key or token, on every address."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.http import headers_of, read_body, require_json, send_json
from lexora.api.openapi import KEY, Doc
from lexora.core import key_admin
from lexora.core.auth import CHALLENGE, Auth
from lexora.core.errors import AuthUnavailable, Forbidden, Unauthorized
from lexora.core.key_admin import NewKey, Rotation, public
from lexora.core.keys import ANYBODY, Caller
from lexora.core.ports import KeyStore

_NEEDED = "This needs an admin's key. Make one with `lexora keys create --user NAME --admin`"
_NO_STORE = [(b"cache-control", b"no-store")]

Work = Callable[[Scope, Receive], Awaitable[tuple[int, Any]]]


async def require_admin(auth: Auth, scope: Scope) -> Caller:
    """Who asks, who must be an admin even where no key is needed. Raises Unauthorized, Forbidden, AuthUnavailable."""
    caller = await auth.identify(headers_of(scope).get(b"authorization"))
    if caller is None or caller is ANYBODY:
        raise Unauthorized(f"{_NEEDED} and send it as 'Authorization: Bearer sk-lexora-…'.", headers=CHALLENGE)
    if not caller.admin:
        raise Forbidden(f"{_NEEDED}.")
    return caller


async def require_watcher(auth: Auth, scope: Scope) -> None:
    """Lets everybody in where no key is needed, else admins. Raises what `require_admin` does."""
    if auth.required:
        await require_admin(auth, scope)


def new_id() -> str:
    return secrets.token_hex(6)


def new_secret() -> str:
    return secrets.token_urlsafe(32)


class AdminKeys:
    """The endpoints below /admin/keys. A key's plain text is in the answer that makes it, its hash in none."""

    def __init__(self, auth: Auth, keys: KeyStore, max_body_bytes: int) -> None:
        self._auth = auth
        self._keys = keys
        self._max_body_bytes = max_body_bytes

    def table(self) -> list[tuple[str, str, ASGIApp, Doc]]:
        """Rows of the application's route table."""
        one = (("id", "string", "a key's id: the 12 hex digits in it"),)
        all_doc = Doc("Every key, without its secret. All of /admin needs an admin's key.", errors=KEY)
        made_doc = Doc("Make a key. Its plain text is shown this once.", NewKey, statuses=(201,), errors=KEY)
        one_doc = Doc("One key, without its secret.", parameters=one, errors=KEY)
        rotated_doc = Doc(
            "Make a new key with an old one's settings, and end the old one.",
            Rotation,
            parameters=one,
            statuses=(201,),
            errors=KEY,
            body_required=False,
        )
        rows: list[tuple[str, str, Work, Doc]] = [
            ("GET", "/admin/keys", self._list, all_doc),
            ("POST", "/admin/keys", self._create, made_doc),
            ("GET", "/admin/keys/{id}", self._show, one_doc),
            ("DELETE", "/admin/keys/{id}", self._revoke, one_doc._replace(summary="Revoke a key, within seconds.")),
            ("POST", "/admin/keys/{id}/rotate", self._rotate, rotated_doc),
        ]
        return [(method, path, AdminEndpoint(self._auth, work), doc) for method, path, work, doc in rows]

    async def _list(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        found = await asyncio.to_thread(self._keys.all)
        now = time.time()
        return 200, {"keys": [public(key, now) for key in found]}

    async def _create(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        require_json(headers_of(scope))
        wanted = key_admin.parse(await read_body(scope, receive, self._max_body_bytes), NewKey)
        now = time.time()
        key, plain = await asyncio.to_thread(key_admin.create, self._keys, wanted, now, new_id(), new_secret())
        return 201, {"key": plain, **public(key, now)}

    async def _show(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        found = await asyncio.to_thread(key_admin.find, self._keys, _id_of(scope))
        return 200, public(found, time.time())

    async def _revoke(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        now = time.time()
        return 200, public(await asyncio.to_thread(key_admin.revoke, self._keys, _id_of(scope), now), now)

    async def _rotate(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        wanted = Rotation()
        if body := await read_body(scope, receive, self._max_body_bytes):
            require_json(headers_of(scope))
            wanted = key_admin.parse(body, Rotation)
        now = time.time()
        key, plain = await asyncio.to_thread(
            key_admin.rotate, self._keys, _id_of(scope), now, new_id(), new_secret(), wanted.keep_hours * 3600
        )
        return 201, {"key": plain, **public(key, now)}


class ReloadEndpoint:
    """POST /admin/reload. `reload` says what there is now, or raises a LexoraError and leaves all as it was."""

    def __init__(self, auth: Auth, reload: Callable[[], Awaitable[str]]) -> None:
        self._auth = auth
        self._reload = reload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await require_admin(self._auth, scope)
        await send_json(scope, send, 200, {"status": "reloaded", "detail": await self._reload()}, _NO_STORE)


class AdminEndpoint:
    """One thing that admins do. An object, as Starlette takes plain functions for something else."""

    def __init__(self, auth: Auth, work: Work) -> None:
        self._auth = auth
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await require_admin(self._auth, scope)
        try:
            status, answer = await self._work(scope, receive)
        except OSError as error:
            self._auth.complain("keys cannot be administered", error)
            raise AuthUnavailable("The keys cannot be read or written at the moment. Try again soon.") from None
        await send_json(scope, send, status, answer, _NO_STORE)


def _id_of(scope: Scope) -> str:
    return str(scope["path_params"]["id"])
