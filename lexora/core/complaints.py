"""What operators are told while something keeps failing."""

from collections.abc import Callable
from math import inf

_EVERY_SECONDS = 60.0


class Complaints:
    """Says that something fails, of each thing once a minute at most. `now` gives seconds, and may jump."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._say = say
        self._now = now
        self._said_at: dict[str, float] = {}

    def __call__(self, what: str, error: Exception) -> None:
        now = self._now()
        if abs(now - self._said_at.get(what, -inf)) >= _EVERY_SECONDS:
            self._said_at[what] = now
            self._say(f"{what}: {error}")
