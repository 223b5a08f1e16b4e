"""HTTP/1.1 to upstreams: pooled connections on asyncio.Protocol and httptools.

Written here because the client decides how much a gateway costs (docs/decisions/0002-upstream-client.md). It does what
forwarding needs and no more: POST and GET, TLS, keep-alive, back-pressure, and a fresh connection when a pooled one
turns out to have been closed by the upstream.
"""

import asyncio
import ssl
from collections import defaultdict
from typing import NamedTuple

import httptools

from lexora.core.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from lexora.core.turn import Turn

# Below the 5 s after which vLLM (uvicorn) and llama.cpp close an idle connection: most are dropped before they race.
KEEP_IDLE_SECONDS = 4.0
# A slow client stops its upstream after this much unread, and starts it again when it has been read.
HIGH_WATER_BYTES = 256 * 1024
# A pooled connection that closes this soon was closed while idle; later, the upstream has worked on the request.
STALE_SECONDS = 0.5
MAX_BODY_BYTES = 256 * 1024 * 1024


_turn = Turn()


class Origin(NamedTuple):
    """Where connections go: one pool each."""

    host: str
    port: int
    tls: bool


class _Stale(Exception):
    """A pooled connection was closed before it answered: the request may be sent again on a fresh one."""


class Response:
    """One response, from its head on. Read it to the end with `read` or `chunk`, or `close` it."""

    __slots__ = (
        "_buffered", "_bulk", "_complete", "_connection", "_error", "_most", "_pieces", "_waiter",
        "head", "paused", "status",
    )  # fmt: skip

    def __init__(self, connection: "_Connection") -> None:
        self.status = 0
        self._most = MAX_BODY_BYTES
        self.head: dict[bytes, bytes] = {}
        self._connection = connection
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._complete = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.paused = False
        self._bulk = False

    def header(self, name: bytes) -> bytes:
        """The value of a header, empty if it is not there; `name` is lower case."""
        return next((value for other, value in self.head.items() if other.lower() == name), b"")

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamBroken if it was cut."""
        self._bulk = True
        if self.paused:
            self._resume()
        while not self._complete:
            await self.wait()
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    async def chunk(self) -> bytes:
        """The next piece of the body, empty at its end. Raises UpstreamBroken, or UpstreamTimeout if it stalls."""
        while not self._pieces:
            if self._complete:
                return b""
            await self.wait()
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._buffered = 0
        if self.paused:
            self._resume()
        return piece

    def release(self) -> None:
        """Lets the connection go back to its pool if nothing but the response's end is still to come."""
        self._bulk = True
        self._most = 0
        if self.paused:
            self._resume()

    def close(self) -> None:
        """Gives the connection up unless the response is complete. Any number of times."""
        if not self._complete:
            self._connection.abort()

    def wait(self) -> asyncio.Future[None]:
        """Done when something comes. Raises what went wrong."""
        if self._error is not None:
            raise self._error
        self._waiter = self._connection.loop.create_future()
        return self._waiter

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _resume(self) -> None:
        self.paused = False
        if not self._connection.closed:
            self._connection.transport.resume_reading()
            self._connection.last_heard = self._connection.loop.time()  # it was we who did not listen

    # Called by the connection.

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._buffered += len(piece)
        if self._bulk:
            if self._buffered > self._most:
                self.fail(UpstreamBroken("The upstream's answer is too large."))
                self._connection.abort()
                return
        elif self._buffered > HIGH_WATER_BYTES and not self.paused:
            self.paused = True
            self._connection.transport.pause_reading()
        if self._waiter is not None:
            self.wake()

    def finish(self) -> None:
        if self.paused:
            self._resume()
        self._complete = True
        if self._waiter is not None:
            self.wake()

    def fail(self, error: Exception) -> None:
        if not self._complete and self._error is None:
            self._error = error
            self.wake()


class _Connection(asyncio.Protocol):
    """One connection; at most one response at a time."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: "list[_Connection]") -> None:
        self.loop = loop
        self.closed = False
        self.idle_since = 0.0
        self._idle = idle
        self._used = False  # and has not begun to answer again
        self._head: dict[bytes, bytes] = {}
        self.on_header = self._head.setdefault  # for the parser, which calls it for every header
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._silence: asyncio.TimerHandle | None = None
        self.last_heard = 0.0
        self._sent_at = 0.0

    def send(self, data: bytes, idle_timeout: float | None) -> Response:
        response = self._response = Response(self)
        if idle_timeout is not None:
            self.last_heard = self.loop.time()
            self._silence = self.loop.call_later(idle_timeout, self._check_silence, idle_timeout)
        self._unsent = data
        self._sent_at = self.loop.time()
        _turn.add(self._write, self.loop)
        return response

    def _write(self) -> None:
        if not self.closed and not self.transport.is_closing():
            self.transport.write(self._unsent)
        self._unsent = b""

    def abort(self) -> None:
        self.closed = True
        self.transport.abort()

    def _check_silence(self, limit: float) -> None:
        response = self._response
        left = limit if response is not None and response.paused else self.last_heard + limit - self.loop.time()
        if left > 0:
            self._silence = self.loop.call_later(left, self._check_silence, limit)
            return
        if response is not None:
            response.fail(UpstreamTimeout(f"The upstream has sent nothing for {limit:g} s."))
        self.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # asyncio declares the base class

    def data_received(self, data: bytes) -> None:
        if self._silence is not None:
            self.last_heard = self.loop.time()
        if self._response is None:
            self.abort()  # bytes that nobody asked for: the connection cannot be trusted
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._response is not None:
                self._response.fail(UpstreamBroken("The upstream's answer is not valid HTTP."))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._stop_silence()
        response, self._response = self._response, None
        if response is None:
            if self in self._idle:
                self._idle.remove(self)
        elif not response.status:
            closed = UpstreamBroken("The upstream closed the connection without an answer.")
            was_idle = self._used and self.loop.time() - self._sent_at < STALE_SECONDS
            response.fail(_Stale() if was_idle else closed)
        elif exc is not None or response.header(b"content-length") or response.header(b"transfer-encoding"):
            response.fail(UpstreamBroken("The upstream closed the connection in the middle of its answer."))
        else:
            response.finish()  # a body without a length ends with its connection

    # httptools

    def on_message_begin(self) -> None:
        self._used = False
        self._head.clear()
        if self._response is None:
            self.abort()  # a second answer to one request: whose it is cannot be told

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        response = self._response
        if response is None:
            return
        if status >= 200:  # else it is an interim response (100, 103), and the real one follows
            response.status = status
            response.head = self._head.copy()
            response.wake()

    def on_body(self, body: bytes) -> None:
        if self._response is not None:
            self._response.feed(body)

    def on_message_complete(self) -> None:
        response = self._response
        if response is None or not response.status:
            return
        self._response = None
        if self._silence is not None:
            self._stop_silence()
        if self._parser.should_keep_alive() and not self.closed:
            response.finish()
            self._used = True
            self.idle_since = self.loop.time()
            self._idle.append(self)
        else:
            response.finish()
            self.abort()

    def _stop_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None


class HttpClient:
    """Pools of connections, one per origin, used newest first. Belongs to one event loop."""

    def __init__(self) -> None:
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._tls: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self, origin: Origin, data: bytes, *, connect_timeout: float, idle_timeout: float | None = None
    ) -> Response:
        """Sends one request (`data` is its head and body) and returns its response once the head has come.

        Timeouts are seconds; `idle_timeout` is the longest silence. Raises UpstreamUnreachable if nothing was sent,
        else UpstreamBroken or UpstreamTimeout.
        """
        connection = self._take(origin) or await self._connect(origin, connect_timeout)
        while True:
            response = connection.send(data, idle_timeout)
            try:
                while not response.status:
                    await response.wait()
                return response
            except _Stale:
                # Closed while idle, so the request was not worked on (RFC 9112, 9.3.1): again, on a fresh connection.
                connection = await self._connect(origin, connect_timeout)
            except BaseException:
                response.close()
                raise

    def close(self) -> None:
        """Closes the idle connections; those in use close with their responses."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in list(connections):
                connection.abort()
            connections.clear()

    def _take(self, origin: Origin) -> _Connection | None:
        connections = self._idle[origin]
        while connections:
            connection = connections.pop()
            if connection.closed or connection.transport.is_closing():
                continue
            # In a process that was frozen, the sweeper has not run.
            if connection.loop.time() - connection.idle_since <= KEEP_IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin, seconds: float) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._sweeper is None:
            self._sweeper = loop.call_later(1.0, self._sweep)
        if origin.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        where = f"{origin.host}:{origin.port}"
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, self._idle[origin]),
                    origin.host,
                    origin.port,
                    ssl=self._tls if origin.tls else None,
                )
        except TimeoutError:
            raise UpstreamUnreachable(f"No connection to {where} within {seconds:g} s.") from None
        except ssl.SSLError as error:
            raise UpstreamUnreachable(f"No TLS connection to {where}: {error.reason}.") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: of a host name that there cannot be
            raise UpstreamUnreachable(f"No connection to {where}: {getattr(error, 'strerror', '') or error}.") from None
        return connection

    def _sweep(self) -> None:
        """Every second: closes what has been idle for KEEP_IDLE_SECONDS. The oldest stand first."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEP_IDLE_SECONDS
        for connections in self._idle.values():
            while connections and connections[0].idle_since < oldest:
                connections.pop(0).abort()
        self._sweeper = loop.call_later(1.0, self._sweep)
