"""What our server does beyond uvicorn, on the event loop that it has in production."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from lexora.entry import server
from tests.support.served import served


async def _transport() -> tuple[server._Transport, asyncio.Transport, socket.socket]:
    """Our transport, the one that it wraps, and the client's end."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    wrapped, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    theirs.settimeout(5)
    return server._Transport(wrapped, loop), wrapped, theirs


def test_a_client_that_has_left_does_not_hold_up_the_others() -> None:
    """Its answer and theirs wait for the end of the same turn; by then its connection is gone."""

    async def main() -> None:
        first, _, first_end = await _transport()
        gone, wrapped, gone_end = await _transport()
        other, _, other_end = await _transport()
        wrapped.abort()
        for transport in (first, gone, other):
            transport.write(b"answer")
        await asyncio.sleep(0.01)
        other.write(b", and more")
        await asyncio.sleep(0.01)
        assert other_end.recv(100) == b"answer, and more"
        assert first_end.recv(100) == b"answer"
        assert gone_end.recv(100) == b""
        for transport, end in ((first, first_end), (gone, gone_end), (other, other_end)):
            transport.close()
            end.close()

    errors: list[dict[str, object]] = []
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    loop.run_until_complete(main())
    loop.close()
    assert errors == []


async def _told(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what came, as JSON: whoever reads the body waits for it."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await asyncio.sleep(0)
    if scope["path"] == "/fails":
        raise ValueError("on purpose")
    if scope["path"] == "/says nothing":
        return
    told = {
        "method": scope["method"],
        "path": [scope["path"], scope["raw_path"].decode(), scope["query_string"].decode()],
        "version": scope["http_version"],
        "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        "body": body.decode(),
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(told).encode() + b"\n"})


def _exchange(url: str, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Everything that comes back on one connection, until it is closed."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def _bodies(answers: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answers.splitlines() if line.startswith(b"{")]


@pytest.fixture(scope="module")
def told() -> Iterator[str]:
    with served(_told) as url:
        yield url


LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_a_request_is_told_as_it_came(told: str) -> None:
    (body,) = _bodies(_exchange(
        told, b"POST /a%20b/c?d=%20e HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: 2\r\nConnection: close\r\n"
        b"Content-Length: 4\r\n\r\n", b"bo", b"dy", pause=0.02,
    ))  # fmt: skip
    assert (body["method"], body["version"], body["body"]) == ("POST", "1.1", "body")
    assert body["path"] == ["/a b/c", "/a%20b/c", "d=%20e"]
    assert body["headers"] == {"host": "x", "x-one": "1", "connection": "close", "content-length": "4"}


def test_requests_on_one_connection_are_answered_in_turn_and_share_nothing(told: str) -> None:
    chunked = (
        b"POST /first HTTP/1.1\r\nHost: x\r\nX-Mine: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Late: yes\r\n\r\n"
    )
    for pieces in ([chunked + LAST], [chunked, LAST]):  # without waiting for the first answer, and after it
        first, last = _bodies(_exchange(told, *pieces, pause=0.05))
        assert (first["path"][0], first["body"], first["headers"]["x-mine"]) == ("/first", "abcde", "1")
        assert (last["path"][0], last["headers"]) == ("/last", {"host": "x", "connection": "close"})


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(told: str) -> None:
    answers = _exchange(
        told, b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        b"ok", pause=0.05,
    )  # fmt: skip
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert _bodies(answers)[0]["body"] == "ok"


def test_an_old_client_gets_its_answer_and_is_hung_up_on(told: str) -> None:
    (body,) = _bodies(_exchange(told, b"GET /old HTTP/1.0\r\n\r\n"))
    assert (body["version"], body["path"][0]) == ("1.0", "/old")


@pytest.mark.parametrize("path", [b"/fails", b"/says%20nothing"])
def test_an_application_that_fails_or_says_nothing_is_a_500(told: str, path: bytes) -> None:
    answer = _exchange(told, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"on purpose" not in answer


def test_what_is_no_http_is_a_400(told: str) -> None:
    assert _exchange(told, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert _exchange(told, b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_status_without_a_phrase_keeps_its_space() -> None:
    """RFC 9112, 4."""
    assert server._STATUS_LINE[529] == b"HTTP/1.1 529 "
