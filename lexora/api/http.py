"""Bodies in, responses out: the little HTTP that bare ASGI endpoints need."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import cache
from typing import Any, Protocol

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lexora.core.errors import ClientLeft, Forbidden, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

Headers = Sequence[tuple[bytes, bytes]]

# An extension of ASGI that our server offers, under this name in `scope["extensions"]`.
DIRECT = "lexora.direct"


class Direct(Protocol):
    """A shorter way to the client than `send`. Header names are lower case and values hold no line breaks."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole response."""
        ...

    def take_body(self) -> bytes | None:
        """Takes the request's body if it has come in whole, else None."""
        ...

    def write(self, data: bytes) -> bool:
        """Sends a piece of a body whose response has begun; False, and nothing is sent, if the client is too slow."""
        ...


def direct_of(scope: Scope) -> Direct | None:
    """The extension, if the server has it."""
    direct: Direct | None = scope.get("extensions", {}).get(DIRECT)
    return direct


BODY_SILENCE_SECONDS = 60.0

_JSON = b"application/json"
JSON_TYPE = (b"content-type", _JSON)
_ENCODED = "Send the body without content-encoding."


def require_json(headers: dict[bytes, bytes]) -> None:
    """Raises UnsupportedMediaType unless the body says it is JSON.

    This also keeps other web sites out: a browser sends no JSON to another origin without asking first (CORS).
    """
    content_type = headers.get(b"content-type", b"")
    if content_type != _JSON and content_type.split(b";", 1)[0].strip().lower() != _JSON:
        raise UnsupportedMediaType("Send the body as JSON, with the header 'content-type: application/json'.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType(_ENCODED)


def require_form(headers: dict[bytes, bytes]) -> None:
    """Raises UnsupportedMediaType unless the body says it is a multipart form.

    A browser sends one to another origin without asking first, unless it goes with a credential: so from web pages a
    form must have one, whatever it holds, and whoever needs none to be let in is safe from other web sites.
    """
    if headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() != b"multipart/form-data":
        raise UnsupportedMediaType("Send the body as a form, with the header 'content-type: multipart/form-data; …'.")
    if b"origin" in headers and credential_of(headers) is None:
        raise Forbidden("From a web page, send the form with an 'authorization' header ('Bearer none' will do).")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType(_ENCODED)


def whole_body(scope: Scope, limit: int) -> bytes | None:
    """The request's body if it has come in whole, which is usual. Raises PayloadTooLarge."""
    direct = direct_of(scope)
    body = direct.take_body() if direct else None
    if body is not None and len(body) > limit:
        raise _too_large(limit)
    return body


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole request body. Raises PayloadTooLarge beyond `limit` bytes, RequestTimeout, and ClientLeft."""
    if (body := whole_body(scope, limit)) is not None:
        return body
    announced = headers_of(scope).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    message = await _receive(receive)
    while message["type"] == "http.request":
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await _receive(receive)
    raise ClientLeft


async def _receive(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(BODY_SILENCE_SECONDS):
            return await receive()
    except TimeoutError:
        raise RequestTimeout(
            f"The body did not go on for {BODY_SILENCE_SECONDS:g} s.", headers=((b"connection", b"close"),)
        ) from None


def _too_large(limit: int) -> PayloadTooLarge:
    # What is left of the body stays unread, so the connection cannot go on.
    return PayloadTooLarge(
        f"The body is larger than the {limit:,} bytes that this gateway takes.", headers=((b"connection", b"close"),)
    )


class _Done:
    """Has been awaited already."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # `await` wants no more than an iterator


_DONE = _Done()


def send(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> Awaitable[None]:
    """One whole response. Header names are lower case and values hold no line breaks."""
    if direct := direct_of(scope):
        direct.respond(status, headers, body)
        return _DONE
    return _send(send, status, headers, body)


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_json(scope: Scope, to: Send, status: int, value: Any, headers: Headers = ()) -> None:
    """One whole JSON response."""
    await send(scope, to, status, [JSON_TYPE, *headers], msgspec.json.encode(value))


def credential_of(headers: dict[bytes, bytes]) -> bytes | None:
    """What the client shows to say who it is, as an Authorization header; clients of Anthropic's have another."""
    shown = headers.get(b"authorization")
    if shown is None and (key := headers.get(b"x-api-key")) is not None:
        return b"Bearer " + key
    return shown


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers; of repeated ones, one."""
    headers: dict[bytes, bytes] | None = scope.get("lexora.headers")
    if headers is None:
        headers = scope["lexora.headers"] = dict(scope["headers"])
    return headers


def dollars(amount: float) -> bytes:
    """US dollars as our headers have them."""
    return b"%.9f" % amount if amount else b"0"


class Later:
    """An endpoint that is made when it is first asked: what it imports makes no cold start of a function longer."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._made = cache(make)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._made()(scope, receive, send)
