"""Work put off within a turn of the event loop."""

import asyncio
from collections.abc import Callable

_MOST = 16


class Turn:
    """Runs the first function of a turn at once, and those that follow together, in batches.

    For writes to sockets: one by one, each may wake the process at the other end; one after the other, only the
    first does. A lone request is not held up, and not all of a busy turn's writes wait for its end, or the two
    ends would work in lockstep.
    """

    def __init__(self) -> None:
        self._begun = False
        self._waiting: list[Callable[[], None]] = []

    def add(self, function: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """`function` runs in this turn of `loop`, or first thing in the next. It must not raise."""
        if not self._begun:
            self._begun = True
            loop.call_soon(self._end)
            function()
            return
        self._waiting.append(function)
        if len(self._waiting) >= _MOST:
            self._run()

    def _end(self) -> None:
        self._begun = False
        self._run()

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        for function in waiting:
            function()
