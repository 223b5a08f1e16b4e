"""The circuit of one deployment: after failures in a row it is left alone, then tried with one request."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

from lexora.core.errors import Busy


class CircuitRules(NamedTuple):
    """It opens after so many failures in a row, for so many seconds."""

    failures: int = 10
    cooldown_seconds: float = 10.0


class Circuit:
    """Closed, it lets everything through; open, nothing; when its time is up, one request: its success closes it.

    `now` gives seconds that never go back. `successes` counts what went well so far.
    """

    def __init__(self, rules: CircuitRules, now: Callable[[], float]) -> None:
        self.rules = rules
        self.successes = 0
        self._now = now
        self._failures = 0
        self._open_until = 0.0  # 0: closed
        self._probes = 0
        self._probe = 0  # the number of the one under way; 0: none is

    @property
    def state(self) -> str:
        """`closed`, `open` or `half_open`: as many requests go through as the name says."""
        if not self._open_until:
            return "closed"
        return "open" if self._now() < self._open_until else "half_open"

    def enter(self) -> int:
        """A request wants to go through. Raises Busy if it may not; else what became of it must be told.

        Returns its number if it is the one that tries, else 0: `failed` and `left` want it back.
        """
        if not self._open_until:
            return 0
        left = self._open_until - self._now()
        if left > 0 or self._probe:
            seconds = max(1, ceil(left))
            raise Busy(
                f"This deployment has failed again and again; it is tried again in {seconds} s.",
                code="circuit_open",
                headers=((b"retry-after", b"%d" % seconds),),
            )
        self._probes += 1
        self._probe = self._probes
        return self._probe

    def succeeded(self) -> None:
        self.successes += 1
        self._failures = 0
        self._open_until = 0.0
        self._probe = 0

    def failed(self, probe: int) -> None:
        self._failures += 1
        if self._ends(probe) or self._failures >= self.rules.failures:
            self.rest(self.rules.cooldown_seconds)

    def left(self, probe: int) -> None:
        """It ended in a way that tells nothing about the deployment."""
        self._ends(probe)

    def _ends(self, probe: int) -> bool:
        """Whether it is the one under way, which is over then. Others may be from before the circuit opened."""
        if not probe or probe != self._probe:
            return False
        self._probe = 0
        return True

    def rest(self, seconds: float) -> None:
        """Opens it for so long: the deployment has asked for it, or has failed too often."""
        self._open_until = max(self._open_until, self._now() + seconds)

    def probe_now(self) -> None:
        """The deployment has been seen to be well: the next request may try it."""
        if self._open_until:
            self._open_until = min(self._open_until, self._now())
