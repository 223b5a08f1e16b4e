"""uvicorn, with fewer writes.

uvicorn writes the head and the body of every response on its own, as soon as each is there; every such write is a
system call that may wake the client's process. docs/decisions/0003-one-write-a-turn.md has the measurements.
"""

import asyncio
import logging
from collections import deque
from functools import lru_cache, partial
from math import inf
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec
import uvicorn
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lexora.api.http import DIRECT, Headers
from lexora.core.errors import InvalidRequest
from lexora.core.turn import Turn

# As long as a slow client may need for what the kernel takes from us at a time, some hundred kilobytes.
LINGER_SECONDS = 30.0
# What is longer is not kept in memory for those who ask again.
_LONG_URL = 512

_CLOSE = (b"connection", b"close")
_STATUS_LINE = {status: line.removesuffix(b"\r\n") for status, line in STATUS_LINE.items()}

_turn = Turn()


class _Transport:
    """A transport that writes when its turn says so. Everything else goes straight through."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        # Not through __getattr__: a class that has one finds its own attributes in twice the time.
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        if len(self._waiting) == 1:
            _turn.add(self.flush, self._loop)

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and not self.is_closing():  # a client that has left: uvloop would raise
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def close(self) -> None:
        self.flush()
        self._transport.close()
        if left := self._transport.get_write_buffer_size():
            self._loop.call_later(LINGER_SECONDS, self._give_up, left)

    def _give_up(self, left: int) -> None:
        """Cuts off a closed connection whose client reads nothing any more, or it stays open as long as that likes."""
        now = self._transport.get_write_buffer_size()
        if now == left:
            self._transport.abort()
        elif now:
            self._loop.call_later(LINGER_SECONDS, self._give_up, now)


class _Cycle(RequestResponseCycle):
    """uvicorn's request and response, and the extension `lexora.api.http.Direct`: what `send` does, in one call.

    The event on which uvicorn's `receive` waits is there for those who wait.
    """

    # What an answer in one go does not look at.
    logger = logging.getLogger("uvicorn.error")
    access_log = False
    chunked_encoding = None
    expected_content_length = 0
    task: asyncio.Task[None]

    def __init__(self, protocol: "OneWriteProtocol", scope: HTTPScope, *, keep_alive: bool, expects: bool) -> None:
        self.scope = scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.default_headers = protocol.server_state.default_headers
        self.on_response = protocol.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.event: asyncio.Event | None = None

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]  # uvicorn's is there from the start
        """Set when there is something to receive."""
        if self.event is None:
            self.event = asyncio.Event()
            if self.body or not self.more_body:
                self.event.set()
        return self.event

    async def run(self, app: ASGI3Application, tasks: set[asyncio.Task[None]]) -> None:
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete:
                await self.run_asgi(_do_nothing)  # uvicorn says what is wrong with that
        except BaseException as error:  # noqa: BLE001 - uvicorn answers, whatever it is
            await self.run_asgi(partial(_fail, error))
        finally:
            # They hold what holds us.
            self.on_response = _nothing
            self.scope.pop("extensions", None)
            # Takes itself off the list: a callback of the task would be one more thing for the loop to schedule.
            tasks.discard(self.task)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("The response is half out already.")
        self.response_started = self.response_complete = True
        lines = [_STATUS_LINE[status], *map(b": ".join, self.default_headers), *map(b": ".join, headers)]
        if status >= 400 and _CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close")
        lines += (b"content-length: %d" % len(body), b"", b"" if self.scope["method"] == "HEAD" else body)
        self.transport.write(b"\r\n".join(lines))
        if self.event is not None:
            self.event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def take_body(self) -> bytes | None:
        if self.more_body or self.disconnected:
            return None
        body, self.body = bytes(self.body), bytearray()
        return body

    def write(self, data: bytes) -> bool:
        if self.flow.write_paused:
            return False
        if not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True


async def _do_nothing(*_: Any) -> None:
    pass


async def _fail(error: BaseException, *_: Any) -> None:
    try:
        raise error
    finally:
        del error  # or its traceback holds what holds it


def _nothing() -> None:
    pass


@lru_cache(maxsize=256)
def _split(url: bytes) -> tuple[str, bytes, bytes]:
    """A request's target as path, raw path and query."""
    parsed = httptools.parse_url(url)
    return unquote(parsed.path.decode("ascii")), parsed.path, parsed.query or b""


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on httptools, with one write a turn, our extension, and less work for each request.

    uvicorn starts a timer after every response and stops it at the next request; here a connection has one that looks
    how long it has been idle.
    """

    cycle: _Cycle
    pipeline: deque[tuple[_Cycle, ASGI3Application]]  # type: ignore[assignment]  # all cycles are ours
    on_message_begin = None  # type: ignore[assignment]  # what the parser would call, at the price of a call
    _idle_since = inf

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The parser calls it for every header. Of repeated ones the first counts.
        self._read_headers: dict[bytes, bytes] = {}
        self.on_header = self._read_headers.setdefault  # type: ignore[assignment, method-assign]
        super().__init__(*args, **kwargs)
        self.url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(_Transport(transport, self.loop))  # type: ignore[arg-type]  # it quacks
        self._idle_since = self.loop.time()  # somebody may connect and say nothing
        self._look_for_idleness(self.timeout_keep_alive)
        self._connection_scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
        }

    def on_headers_complete(self) -> None:
        parser = self.parser
        version = parser.get_http_version()
        scope: Any = self._connection_scope.copy()
        read = self._read_headers
        headers = {name.lower(): value for name, value in read.items()}
        if len(headers) < len(read):  # the same name in other letters
            headers = {name.lower(): value for name, value in reversed(read.items())}
        scope["lexora.headers"] = headers
        scope["headers"] = [*headers.items()]
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        url, self.url = self.url, b""
        split = _split if len(url) < _LONG_URL else _split.__wrapped__
        scope["path"], scope["raw_path"], scope["query_string"] = split(url)
        before, self.cycle = (
            self.cycle,
            _Cycle(
                self,
                scope,
                keep_alive=version != "1.0" and parser.should_keep_alive(),
                expects=headers.get(b"expect", b"").lower() == b"100-continue",
            ),
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # a client that does not wait for answers
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            if cycle.event is not None:
                cycle.event.set()

    def on_message_complete(self) -> None:
        self._read_headers.clear()  # for the next message: there may be some from behind the body
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            if cycle.event is not None:
                cycle.event.set()

    def _start_asgi_task(self, cycle: _Cycle, app: ASGI3Application) -> None:  # type: ignore[override]  # all are ours
        cycle.scope["extensions"] = {DIRECT: cycle}  # type: ignore[dict-item]  # ours
        cycle.task = self.loop.create_task(cycle.run(app, self.tasks))
        self.tasks.add(cycle.task)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def data_received(self, data: bytes) -> None:
        self._idle_since = inf
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # to what we do not speak
            pass
        except httptools.HttpParserError:
            msg = "Invalid HTTP request received."
            self.logger.warning(msg)
            self.send_400_response(msg)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()

    def _look_for_idleness(self, after: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_for_idleness(min(left, self.timeout_keep_alive))
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets its 400 in the form of every other error."""
        body = msgspec.json.encode(InvalidRequest(msg, code="invalid_http").envelope())
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[400] + head + body)
        self.transport.close()


def create_server(app: Any, *, keep_alive_seconds: int, shutdown_seconds: int) -> uvicorn.Server:
    """A uvicorn server for `app`, quiet and without what a gateway does not need."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=OneWriteProtocol,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=keep_alive_seconds,
            timeout_graceful_shutdown=shutdown_seconds,
        )
    )
