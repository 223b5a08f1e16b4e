"""uvicorn, with fewer writes.

uvicorn writes the head and the body of every response on its own, as soon as each is there; every such write is a
system call that may wake the client's process. docs/decisions/0003-one-write-a-turn.md has the measurements.
"""

import asyncio
from typing import Any

import msgspec
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lexora.api.http import DIRECT, Headers
from lexora.core.errors import InvalidRequest
from lexora.core.turn import Turn

# As long as a slow client may need for what the kernel takes from us at a time, some hundred kilobytes.
LINGER_SECONDS = 30.0

_CLOSE = (b"connection", b"close")

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


class _Direct:
    """The extension `lexora.api.http.Direct`: what uvicorn's `send` does, in one call and for what is our own."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        if cycle.response_started:
            raise RuntimeError("The response is half out already.")
        cycle.response_started = cycle.response_complete = True
        lines = [*map(b": ".join, cycle.default_headers), *map(b": ".join, headers)]
        if status >= 400 and _CLOSE in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            lines.append(b"connection: close")
        content = b"" if cycle.scope["method"] == "HEAD" else body
        cycle.transport.write(
            b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], b"\r\n".join(lines), len(body), content)
        )
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def body(self) -> bytes | None:
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def write(self, data: bytes) -> bool:
        cycle = self._cycle
        if cycle.flow.write_paused:
            return False
        if not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on httptools, with one write a turn, and our extension.

    uvicorn starts a timer after every response and stops it at the next request; here a connection has one that looks
    how long it has been idle.
    """

    _idle_since = float("inf")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(_Transport(transport, self.loop))  # type: ignore[arg-type]  # it quacks
        self._idle_since = self.loop.time()  # somebody may connect and say nothing
        self._look_for_idleness(self.timeout_keep_alive)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.scope["extensions"] = {DIRECT: _Direct(cycle)}  # type: ignore[dict-item]  # ours
        self.tasks.add(self.loop.create_task(self._run(cycle, app)))

    async def _run(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # Takes itself off the list: a callback of the task would be one more thing for the loop to schedule.
        try:
            await cycle.run_asgi(app)
        finally:
            task = asyncio.current_task(self.loop)
            assert task is not None
            self.tasks.discard(task)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = float("inf")

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
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
