"""How long the work on a request may go on: until its client leaves, or its deadline."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from lexora.core.errors import ClientLeft, DeadlineExceeded

# A short answer is complete before watching for its client would pay; a client's leaving must count within 100 ms.
WATCH_AFTER_SECONDS = 0.02


class Lifetime:
    """Cancels the work in its `with` block when it must end, which raises ClientLeft or DeadlineExceeded from it.

    Use it when the request's body has been read. One timer serves both ends; the task that watches for the
    client's leaving is started late, because most answers need none.
    """

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._receive = receive
        self._loop = task.get_loop()
        self._started = self._loop.time()
        self._seconds = float("inf")
        self._watcher: asyncio.Task[None] | None = None
        self._ending: Exception | None = None

    def expire_in(self, seconds: float) -> None:
        """Sets the deadline, in seconds from the start of the lifetime."""
        self._seconds = seconds
        if self._watcher is not None:
            self._timer.cancel()
            self._set_deadline()

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(WATCH_AFTER_SECONDS, self._begin_watching)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._ending is not None and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise self._ending from None

    def _begin_watching(self) -> None:
        self._watcher = self._loop.create_task(self._watch())
        self._set_deadline()

    def _set_deadline(self) -> None:
        # A year stands for "never": a timer of infinite length is an error.
        self._timer = self._loop.call_at(self._started + min(self._seconds, 3e7), self._expire)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(ClientLeft())

    def _expire(self) -> None:
        self._end(DeadlineExceeded(f"The answer was not complete within the request's {self._seconds:g} s."))

    def _end(self, ending: Exception) -> None:
        if self._ending is None:
            self._ending = ending
            self._task.cancel()
