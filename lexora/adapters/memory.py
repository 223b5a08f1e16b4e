"""What is kept in the memory of one process: the limits' counters."""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from lexora.core.ports import Claim

# A window is forgotten when it has been over for this long (requests that began in it may still settle), and then only
# if there are many: a clock that jumps and comes back must not make anybody's budget whole again.
_KEEP_SECONDS = 7200
_MOST_WINDOWS = 200

_Counts = dict[tuple[str, str], int]


class MemoryLimits:
    """The port `LimitStore` for one process. Counts by window, then by subject and measure."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[str, _Counts] = {}
        self._ends: dict[str, float] = {}
        self._lock = Lock()

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[int]]:
        """Adds every claim's amount, or none of them; see the port."""
        used: list[int] = []
        places: list[tuple[_Counts, tuple[str, str]]] = []
        with self._lock:
            for claim in claims:
                counts = self._windows.get(claim.window)
                if counts is None:
                    counts = self._open(claim.window, claim.ends_at)
                place = (claim.subject, claim.measure)
                before = counts.get(place, 0)
                if claim.limit is not None and before + claim.amount > claim.limit:
                    return claim, [before if other is claim else 0 for other in claims]
                used.append(before + claim.amount)
                places.append((counts, place))
            for (counts, place), after in zip(places, used, strict=True):
                counts[place] = after
        return None, used

    def settle(self, claims: Sequence[Claim], amounts: Sequence[int]) -> None:
        """Counts `amounts` in the place of what was reserved; what is forgotten stays so."""
        with self._lock:
            for claim, amount in zip(claims, amounts, strict=True):
                counts = self._windows.get(claim.window)
                if counts is not None and amount != claim.amount:
                    place = (claim.subject, claim.measure)
                    counts[place] = counts.get(place, 0) + amount - claim.amount

    def load(self, claims: Iterable[Claim]) -> None:
        """Counts what is known to be used."""
        with self._lock:
            for claim in claims:
                counts = self._windows.get(claim.window) or self._open(claim.window, claim.ends_at)
                place = (claim.subject, claim.measure)
                counts[place] = counts.get(place, 0) + claim.amount

    def _open(self, window: str, ends_at: float) -> _Counts:
        counts = self._windows.setdefault(window, {})
        self._ends[window] = ends_at
        if len(self._ends) > _MOST_WINDOWS:
            over = self._now() - _KEEP_SECONDS
            for name in [name for name, ended in self._ends.items() if ended < over and name != window]:
                del self._ends[name], self._windows[name]
        return counts
