"""What is kept in the memory of one process: the limits' counters."""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from lexora.core.ports import Claim

# So many windows of a kind are kept, those that were opened last: requests that began in one may still settle, and a
# clock that jumps and comes back must not make anybody's budget whole again.
_MOST_MINUTES = 200
_MOST_OTHERS = 40

_Counts = dict[tuple[str, str], int]


class MemoryLimits:
    """The port `LimitStore` for one process. Counts by window, then by subject and measure.

    `known` says what is used of a window (its name, its end) that is new here. It may raise OSError.
    """

    def __init__(self, known: Callable[[str, float], Iterable[Claim]] = lambda *_: ()) -> None:
        self._known = known
        self._windows: dict[str, _Counts] = {}
        self._lock = Lock()

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[int]]:
        """Adds every claim's amount, or none of them; see the port. Raises what `known` does."""
        used: list[int] = []
        places: list[tuple[_Counts, tuple[str, str], int]] = []
        with self._lock:
            for claim in claims:
                counts = self._windows.get(claim.window)
                if counts is None:
                    counts = self.open(claim.window, claim.ends_at)
                place = (claim.subject, claim.measure)
                before = counts.get(place, 0)
                after = before + claim.amount
                if claim.limit is not None and after > claim.limit:
                    return claim, [before if other is claim else 0 for other in claims]
                used.append(after)
                places.append((counts, place, after))
            for counts, place, after in places:
                counts[place] = after
        return None, used

    def settle(self, claims: Sequence[Claim], amounts: Sequence[int]) -> None:
        """Counts `amounts` in the place of what was reserved; what is forgotten stays so."""
        with self._lock:
            for claim, amount in zip(claims, amounts):  # noqa: B905 - of one length; `strict` costs more than the loop
                counts = self._windows.get(claim.window)
                if counts is not None and amount != claim.amount:
                    place = (claim.subject, claim.measure)
                    counts[place] = counts.get(place, 0) + amount - claim.amount

    def open(self, window: str, ends_at: float) -> _Counts:
        """Begins to count in a window, from what is known of it."""
        counts = {(claim.subject, claim.measure): claim.amount for claim in self._known(window, ends_at)}
        minute = window.startswith("minute:")
        same = [name for name in self._windows if name.startswith("minute:") == minute]
        if len(same) >= (_MOST_MINUTES if minute else _MOST_OTHERS):
            del self._windows[same[0]]
        self._windows[window] = counts
        return counts
