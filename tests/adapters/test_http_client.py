"""The HTTP client against recorded bytes over real sockets, on the event loop that it has in production."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lexora.adapters import http_client
from lexora.adapters.http_client import HttpClient, Origin, Response
from lexora.core.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from tests.support.gateway import free_port
from tests.support.recorded import (
    Action,
    Close,
    RecordedUpstream,
    Reset,
    Sleep,
    Until,
    json_response,
    piece,
    recorded_upstream,
)

# As an error, this warning comes at a moment when uvloop cannot take it, and a test that fails would never end.
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")

FOREVER = Sleep(float("inf"))
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: upstream\r\ncontent-length: 2\r\n\r\n{}"
OK = json_response({"ok": True})


def origin_of(upstream: RecordedUpstream) -> Origin:
    return Origin("127.0.0.1", upstream.port, tls=False)


def on_a_loop(work: Callable[[HttpClient], Awaitable[Any]]) -> Any:
    """Runs `work` with a client, and checks that it leaves no task behind."""

    async def main() -> Any:
        client = HttpClient()
        try:
            return await work(client)
        finally:
            client.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return uvloop.run(main())


async def send(client: HttpClient, origin: Origin, idle_timeout: float | None = None) -> Response:
    return await client.send(origin, REQUEST, connect_timeout=2, idle_timeout=idle_timeout)


async def ask(client: HttpClient, upstream: RecordedUpstream) -> tuple[int, bytes]:
    response = await send(client, origin_of(upstream))
    return response.status, await response.read()


async def pieces(client: HttpClient, upstream: RecordedUpstream) -> tuple[int, bytes]:
    """The same, read piece by piece."""
    response = await send(client, origin_of(upstream), 10)
    body = b""
    while piece := await response.chunk():
        body += piece
    return response.status, body


async def until(condition: Callable[[], object]) -> None:
    """Waits for less than a connection may be idle."""
    until_when = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < until_when
        await asyncio.sleep(0.005)


# --- pooled connections ---


def test_a_connection_is_used_again() -> None:
    async def work(client: HttpClient) -> None:
        for _ in range(3):
            assert await ask(client, upstream) == (200, b'{"ok": true}')

    with recorded_upstream([OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 0, 0]
        assert all(received.head + b"\r\n\r\n" + received.body == REQUEST for received in upstream.received)
        upstream.wait_until_left()


def test_requests_at_once_have_a_connection_each_and_the_newest_is_used_first() -> None:
    async def work(client: HttpClient) -> None:
        first = asyncio.ensure_future(ask(client, upstream))
        await until(lambda: len(upstream.received) == 1)
        assert await ask(client, upstream) == (200, b'{"ok": true}')
        hold.set()
        await first
        for _ in range(2):
            await ask(client, upstream)

    hold = threading.Event()
    with recorded_upstream([Until(hold), OK], [OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 1, 0, 0]


def test_every_origin_has_its_own_connections() -> None:
    async def work(client: HttpClient) -> None:
        assert await ask(client, one) == (200, b"1")
        assert await ask(client, two) == (200, b"2")
        assert await ask(client, one) == (200, b"1")

    with recorded_upstream([json_response(b"1")]) as one, recorded_upstream([json_response(b"2")]) as two:
        on_a_loop(work)


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["FIN", "RST"])
def test_a_connection_that_the_upstream_closed_while_it_was_idle_is_forgotten(end: Action) -> None:
    async def work(client: HttpClient) -> None:
        assert await ask(client, upstream) == (200, b'{"ok": true}')
        hold.set()
        await until(lambda: upstream.open_connections == 0)
        await asyncio.sleep(0.05)  # the news is on its way
        assert await ask(client, upstream) == (200, b'{"ok": true}')

    hold = threading.Event()
    with recorded_upstream([OK, Until(hold), end], [OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 1]


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["FIN", "RST"])
def test_a_request_that_meets_a_closing_connection_is_sent_again(end: Action) -> None:
    """The race that no client can win: the upstream closes just as the request is on its way."""

    async def work(client: HttpClient) -> None:
        for _ in range(2):
            assert await ask(client, upstream) == (200, b'{"ok": true}')

    with recorded_upstream([OK], [end], [OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 0, 1]


def test_an_upstream_that_closes_after_every_answer_though_it_announced_otherwise() -> None:
    """As llama.cpp does after streams. Whether the news or the next request is faster: never an error."""

    async def work(client: HttpClient) -> None:
        for _ in range(200):
            assert await pieces(client, upstream) == (200, b"{}")

    answer = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=100\r\ntransfer-encoding: chunked\r\n\r\n"
    with recorded_upstream([answer + piece(b"{}") + b"0\r\n\r\n", Close()]) as upstream:
        on_a_loop(work)
        assert len(upstream.received) == 200


def test_an_announced_close_is_heeded() -> None:
    async def work(client: HttpClient) -> None:
        for _ in range(2):
            assert await ask(client, upstream) == (200, b'{"ok": true}')

    with recorded_upstream([json_response({"ok": True}, headers="connection: close\r\n"), FOREVER]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 1]
        upstream.wait_until_left(0)


def test_a_fresh_connection_that_closes_without_an_answer_is_an_error() -> None:
    """The request may have been worked on, so it is not sent a second time."""

    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamBroken, match="closed the connection without an answer"):
            await ask(client, upstream)

    for end in (Close(), Reset()):
        with recorded_upstream([end]) as upstream:
            on_a_loop(work)
            assert len(upstream.received) == 1


def test_a_request_is_sent_again_only_once() -> None:
    async def work(client: HttpClient) -> None:
        await ask(client, upstream)
        with pytest.raises(UpstreamBroken):
            await ask(client, upstream)

    with recorded_upstream([OK], [Close()]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 0, 1]


@pytest.mark.parametrize(
    "beginning", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\ncontent-ty", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_a_request_that_was_being_answered_is_not_sent_again(beginning: bytes) -> None:
    async def work(client: HttpClient) -> None:
        await ask(client, upstream)
        with pytest.raises(UpstreamBroken):
            await ask(client, upstream)

    with recorded_upstream([OK], [beginning, Close()], [OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 0]


def test_a_request_that_was_worked_on_for_a_while_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word and on a pooled connection, but too late to have been closed while idle."""

    async def work(client: HttpClient) -> None:
        await ask(client, upstream)
        with pytest.raises(UpstreamBroken):
            await ask(client, upstream)

    monkeypatch.setattr(http_client, "STALE_SECONDS", 0.1)
    with recorded_upstream([OK], [Sleep(0.3), Close()], [OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 0]


def test_an_upstream_that_went_away_in_the_meantime_is_unreachable() -> None:
    async def work(client: HttpClient) -> None:
        with recorded_upstream([OK]) as upstream:
            await ask(client, upstream)
        with pytest.raises(UpstreamUnreachable):
            await ask(client, upstream)

    on_a_loop(work)


def test_idle_connections_are_closed_before_the_upstream_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(client: HttpClient) -> None:
        await ask(client, upstream)
        await until(lambda: 0 in upstream.left)
        await ask(client, upstream)

    monkeypatch.setattr(http_client, "KEEP_IDLE_SECONDS", 0.1)
    with recorded_upstream([OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 1]


def test_a_connection_is_not_used_after_a_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that was frozen between two requests: nothing of ours ran meanwhile, and the peer may be gone."""

    async def work(client: HttpClient) -> None:
        await ask(client, upstream)
        time.sleep(0.3)  # noqa: ASYNC251 - frozen
        await asyncio.sleep(0)
        await ask(client, upstream)

    monkeypatch.setattr(http_client, "KEEP_IDLE_SECONDS", 0.1)
    with recorded_upstream([OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 1]


UNASKED = {
    "a timeout": [b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"],
    "junk": [b"junk"],
    "a status line": [b"HTTP/1.1 200 OK\r\n"],
    "half a head": [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-mo"],
    "half an answer": [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwr"],
}


@pytest.mark.parametrize("what", UNASKED)
@pytest.mark.parametrize("together", [True, False])
def test_what_nobody_asked_for_is_no_answer_to_the_next_request(what: str, together: bool) -> None:
    async def work(client: HttpClient) -> None:
        assert await ask(client, upstream) == (200, b'{"ok": true}')
        await until(lambda: upstream.left or not together)
        if not together:
            hold.set()
            await until(lambda: upstream.left)
        assert await ask(client, upstream) == (200, b'{"ok": true}')

    hold = threading.Event()
    (junk,) = UNASKED[what]
    script: list[Action] = [OK + junk, FOREVER] if together else [OK, Until(hold), junk, FOREVER]
    with recorded_upstream(script, [OK]) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 1]


# --- bodies ---

BODIES: dict[str, tuple[bytes, bytes]] = {
    "with a length": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    "chunked": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
    "chunked, with extensions and trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\ndigest: x\r\n\r\n",
        b"hello",
    ),
    "after interim responses": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\ncontent-length: 7\r\nlink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"hello",
    ),
    "none by its status": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "without a reason": (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
}
TO_THE_END = {
    "without a length": (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello"),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\nhello", b"hello"),
    "without a length, and empty": (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b""),
}


@pytest.mark.parametrize("kind", [*BODIES, *TO_THE_END])
@pytest.mark.parametrize("read", [ask, pieces])
@pytest.mark.parametrize("in_bytes", [False, True], ids=["at once", "byte by byte"])
def test_bodies_of_every_kind(
    kind: str, read: Callable[[HttpClient, RecordedUpstream], Awaitable[tuple[int, bytes]]], in_bytes: bool
) -> None:
    async def work(client: HttpClient) -> None:
        for _ in range(2):
            status, read_body = await read(client, upstream)
            assert (status, read_body) == (204 if b"204" in data else 200, body)

    data, body = {**BODIES, **TO_THE_END}[kind]
    script: list[Action] = [data[i : i + 1] for i in range(len(data))] if in_bytes else [data]
    if kind in TO_THE_END:
        script.append(Close())
    with recorded_upstream(script) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 1 if kind in TO_THE_END else 0]


def test_headers_are_those_of_the_final_response() -> None:
    async def work(client: HttpClient) -> None:
        response = await send(client, origin_of(upstream))
        assert (response.header(b"retry-after"), response.header(b"link")) == (b"7", b"")

    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    with recorded_upstream([interim, b"HTTP/1.1 429 Slow\r\nRetry-After:  7\r\ncontent-length: 0\r\n\r\n"]) as upstream:
        on_a_loop(work)


def test_a_large_body() -> None:
    async def work(client: HttpClient) -> None:
        for read in (ask, pieces):
            assert await read(client, upstream) == (200, body)

    body = bytes(range(256)) * 80_000
    with recorded_upstream([json_response(body)]) as upstream:
        on_a_loop(work)


def test_a_body_beyond_all_measure_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamBroken, match="too large"):
            await ask(client, upstream)
        await until(lambda: upstream.left)

    monkeypatch.setattr(http_client, "MAX_BODY_BYTES", 1_000_000)
    with recorded_upstream([json_response(b"x" * 2_000_000), FOREVER]) as upstream:
        on_a_loop(work)


def test_what_is_not_read_is_not_taken_from_the_upstream() -> None:
    async def work(client: HttpClient) -> None:
        response = await send(client, origin_of(upstream), 0.3)
        sent = -1
        while sent != upstream.sent:
            sent = upstream.sent
            await asyncio.sleep(0.4)  # longer than the idle timeout: it is we who are silent
        assert sent < 30_000_000
        read = 0
        while piece := await response.chunk():
            read += len(piece)
        assert read == 100_000_000

    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n"
    with recorded_upstream([head, *[b"x" * 100_000] * 1000]) as upstream:
        on_a_loop(work)


CUTS: dict[str, list[Action]] = {
    "shorter than its length": [b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", Close()],
    "reset": [b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", Sleep(0.05), Reset()],
    "without its last chunk": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", Close()],
    "in a chunk": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhello", Close()],
    "without a length, reset": [b"HTTP/1.1 200 OK\r\n\r\nhello", Sleep(0.05), Reset()],
    "a chunk of no size": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nxx\r\n", FOREVER],
}


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("read", [ask, pieces])
def test_a_body_that_is_cut_is_an_error(
    how: str, read: Callable[[HttpClient, RecordedUpstream], Awaitable[tuple[int, bytes]]]
) -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamBroken):
            await read(client, upstream)

    with recorded_upstream(CUTS[how]) as upstream:
        on_a_loop(work)


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 twohundred OK\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"HTTP/2 200\r\n"],
)
def test_what_is_no_http_is_an_error(data: bytes) -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamBroken, match="not valid HTTP"):
            await ask(client, upstream)
        await until(lambda: upstream.left)

    with recorded_upstream([data, FOREVER]) as upstream:
        on_a_loop(work)


# --- silence ---


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"])
def test_a_silent_upstream_is_given_up_after_the_idle_timeout(before: bytes) -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamTimeout, match=r"nothing for 0\.2 s"):
            await (await send(client, origin_of(upstream), 0.2)).read()
        await until(lambda: upstream.left)

    with recorded_upstream([before, FOREVER]) as upstream:
        on_a_loop(work)


def test_a_slow_upstream_is_not_a_silent_one() -> None:
    async def work(client: HttpClient) -> None:
        response = await send(client, origin_of(upstream), 0.5)
        assert await response.read() == b"x" * 8

    script = [b"HTTP/1.1 200 OK\r\n", b"content-length: 8\r\n\r\n", *[b"x", Sleep(0.1)] * 8]
    with recorded_upstream(script) as upstream:
        on_a_loop(work)


def test_without_an_idle_timeout_silence_is_waited_out() -> None:
    async def work(client: HttpClient) -> None:
        assert await ask(client, upstream) == (200, b'{"ok": true}')

    with recorded_upstream([Sleep(0.5), OK]) as upstream:
        on_a_loop(work)


# --- no connection ---


def test_a_port_where_nobody_listens() -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamUnreachable, match=f"No connection to 127.0.0.1:{port}: "):
            await send(client, Origin("127.0.0.1", port, tls=False))

    port = free_port()
    on_a_loop(work)


def test_a_name_that_nobody_has() -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamUnreachable, match=r"No connection to nobody\.invalid:80"):
            await send(client, Origin("nobody.invalid", 80, tls=False))

    on_a_loop(work)


def test_a_host_that_does_not_take_connections() -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamUnreachable, match=r"within 0\.2 s"):
            await client.send(Origin("127.0.0.1", port, tls=False), REQUEST, connect_timeout=0.2)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(4):  # the kernel takes one or two by itself, and drops what comes after
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        on_a_loop(work)


def test_who_is_cancelled_lets_go_of_the_upstream() -> None:
    async def work(client: HttpClient) -> None:
        waiting = asyncio.ensure_future(ask(client, upstream))
        await until(lambda: upstream.received)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: upstream.left)
        assert await ask(client, upstream) == (200, b'{"ok": true}')

    with recorded_upstream([FOREVER], [OK]) as upstream:
        on_a_loop(work)


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a new key and a certificate of it for localhost, which nobody vouches for."""
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=lexora tests", "-addext", "subjectAltName=DNS:localhost"]
    made = subprocess.run([*openssl, *names, "-keyout", file], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + made.stdout)
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def test_tls(tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encrypted, pooled, and sent again where the upstream had closed the connection."""

    async def work(client: HttpClient) -> None:
        origin = Origin("localhost", upstream.port, tls=True)
        for _ in range(3):
            assert await (await send(client, origin, 5)).read() == body

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    body = b"x" * 1_000_000
    with recorded_upstream(
        [json_response(body)], [json_response(body)], [Close()], [json_response(body)], tls=tls
    ) as upstream:
        on_a_loop(work)
        assert [received.connection for received in upstream.received] == [0, 0, 0, 1]


def test_a_certificate_that_nobody_vouches_for_is_refused(tls: ssl.SSLContext) -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamUnreachable, match=r"No TLS connection to localhost:.*CERTIFICATE_VERIFY_FAILED"):
            await send(client, Origin("localhost", upstream.port, tls=True))

    with recorded_upstream([OK], tls=tls) as upstream:
        on_a_loop(work)
        assert upstream.received == []


def test_a_certificate_of_somebody_else_is_refused(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(UpstreamUnreachable, match=r"No TLS connection to 127\.0\.0\.1"):
            await send(client, Origin("127.0.0.1", upstream.port, tls=True))

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with recorded_upstream([OK], tls=tls) as upstream:
        on_a_loop(work)
        assert upstream.received == []


def test_an_upstream_that_does_not_speak_tls() -> None:
    async def work(client: HttpClient) -> None:
        for upstream in (deaf, polite):
            with pytest.raises(UpstreamUnreachable):
                await client.send(
                    Origin("localhost", upstream.port, tls=True), REQUEST, connect_timeout=0.3, idle_timeout=1
                )

    with recorded_upstream([OK]) as polite, recorded_upstream([FOREVER]) as deaf:
        started = time.monotonic()
        on_a_loop(work)
        assert time.monotonic() - started < 5
