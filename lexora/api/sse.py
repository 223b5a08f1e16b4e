"""Server-sent events, the sending side."""

import asyncio
from collections.abc import Callable

from starlette.types import Scope, Send

from lexora.api.http import Headers, direct_of

KEEP_ALIVE_SECONDS = 15.0


class EventStream:
    """The client's side of a streamed answer: headers once, events, a comment whenever it has been silent for long.

    The first comment may come before the upstream has answered; it sends the headers as they stand by then, and
    an error after that is an event. Close it in the end.
    """

    def __init__(
        self, scope: Scope, send: Send, headers: Callable[[], Headers], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.started = False
        self._send = send
        self._direct = direct_of(scope)
        self._headers = headers
        self._loop = loop
        self._last_sent = self._loop.time()
        self._sending = False
        self._comments: set[asyncio.Task[None]] = set()
        self._timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._check_silence)

    async def write(self, frames: bytes) -> None:
        """Sends framed events. Waits while the client reads too slowly."""
        if self.started and self._direct is not None and self._direct.write(frames):
            self._last_sent = self._loop.time()
            return
        self._sending = True
        await self.start()
        await self._send({"type": "http.response.body", "body": frames, "more_body": True})
        self._last_sent = self._loop.time()
        self._sending = False

    async def end(self, frames: bytes) -> None:
        """Sends the last events and ends the response."""
        await self.start()
        self.close()
        await self._send({"type": "http.response.body", "body": frames})

    def close(self) -> None:
        """Stops the comments."""
        self._timer.cancel()
        for comment in self._comments:
            comment.cancel()

    async def start(self) -> None:
        """Sends the headers, if they have not gone out yet."""
        if self.started:
            return
        self.started = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # nginx in front must not collect what we send
            *self._headers(),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    def _check_silence(self) -> None:
        left = self._last_sent + KEEP_ALIVE_SECONDS - self._loop.time()
        if left <= 0:
            left = KEEP_ALIVE_SECONDS
            if not self._sending:
                comment = self._loop.create_task(self.write(b": keep-alive\n\n"))
                self._comments.add(comment)
                comment.add_done_callback(self._comments.discard)
        self._timer = self._loop.call_later(left, self._check_silence)
