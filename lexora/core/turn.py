"""Work put off to the end of a turn of the event loop."""

import asyncio
from collections.abc import Callable

_MOST = 16


class Turn:
    """Runs functions together at the end of the turn in which they came, or as soon as there are many of them.

    For writes to sockets: one by one, each may wake the process at the other end; one after the other, only the
    first does. Not all of a busy turn's writes wait for its end, or the two ends would work in lockstep.
    """

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def add(self, function: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """`function` runs in this turn of `loop`, or first thing in the next."""
        waiting = self._waiting
        if not waiting:
            loop.call_soon(self._run)
        waiting.append(function)
        if len(waiting) >= _MOST:
            self._run()

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        for function in waiting:
            function()
