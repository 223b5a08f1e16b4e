"""How long the work on a request may go on: until its client leaves, or its deadline."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from lexora.core.errors import ClientLeft, DeadlineExceeded

# A short answer is complete before watching for its client would pay; a client's leaving must count within 100 ms.
YOUNG_SECONDS = 0.02


class _Nursery:
    """Lifetimes too young to be watched. One timer looks after them all: a timer each would cost more than it saves."""

    def __init__(self) -> None:
        self.young: set[Lifetime] = set()
        self.ticking = False
        self._older: list[Lifetime] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ticks as long as there are any."""
        self.ticking = True
        loop.call_later(YOUNG_SECONDS, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watches those that were here a tick ago already."""
        for lifetime in self._older:
            if lifetime in self.young:
                self.young.discard(lifetime)
                lifetime.watch()
        self._older = list(self.young)
        self.ticking = False
        if self._older:
            self.start(loop)


_nursery = _Nursery()


class Lifetime:
    """Cancels the work in its `with` block when it must end, which raises ClientLeft or DeadlineExceeded from it.

    Use it when the request's body has been read. The task and the timer that watch over it are started after
    YOUNG_SECONDS, because most answers need none. No deadline is later than `longest` seconds.
    """

    __slots__ = ("_ending", "_longest", "_loop", "_receive", "_seconds", "_started", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop, longest: float = float("inf")) -> None:
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._receive = receive
        self._loop = loop
        self._started = loop.time()
        self._longest = self._seconds = longest
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: Exception | None = None

    def expire_in(self, seconds: float) -> None:
        """Sets the deadline, in seconds from the start of the lifetime."""
        self._seconds = min(seconds, self._longest)
        if self._watcher is not None:
            self._set_deadline()

    def watch(self) -> None:
        """Starts watching for the client's leaving and the deadline."""
        self._watcher = self._loop.create_task(self._watch())
        self._set_deadline()

    def __enter__(self) -> Self:
        _nursery.young.add(self)
        if not _nursery.ticking:
            _nursery.start(self._loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _nursery.young.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
            # The task keeps how it was cancelled, that the frame, and that us: a cycle, were we to keep the task.
            self._watcher = None
        if self._ending is not None and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise self._ending from None

    def _set_deadline(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._seconds != float("inf"):
            self._timer = self._loop.call_at(self._started + self._seconds, self._expire)

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
