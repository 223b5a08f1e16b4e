"""What is kept in the memory of one process: the limits' counters."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from lexora.core.ports import Amounts, Claim

# So many windows of a kind are kept, those that were opened last: requests that began in one may still settle, and a
# clock that jumps and comes back must not make anybody's budget whole again.
_MOST_MINUTES = 200
_MOST_OTHERS = 40

_NOTHING = Amounts()


class MemoryLimits:
    """The port `LimitStore` for one process. Counts by window, then by subject.

    `known` says what is used of a window (its name, its end) that is new here. It may raise OSError.
    """

    def __init__(self, known: Callable[[str, float], Mapping[str, Amounts]] = lambda *_: {}) -> None:
        self._known = known
        self._windows: dict[str, dict[str, Amounts]] = {}
        self._lock = Lock()

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[Amounts]]:
        """Adds every claim, or none of them; see the port. Raises what `known` does."""
        used: list[Amounts] = []
        places: list[dict[str, Amounts]] = []
        with self._lock:
            for claim in claims:
                subjects = self._windows.get(claim.window)
                if subjects is None:
                    subjects = self.open(claim.window, claim.ends_at)
                before = subjects.get(claim.subject, _NOTHING)
                after = claim.added_to(before)
                if after is None:
                    return claim, [before if other is claim else _NOTHING for other in claims]
                used.append(after)
                places.append(subjects)
            for claim, subjects, after in zip(claims, places, used):  # noqa: B905 - of one length; `strict` costs more
                subjects[claim.subject] = after
        return None, used

    def settle(self, claims: Sequence[Claim], amounts: Sequence[Amounts]) -> None:
        """Counts these in the place of what was reserved; what is forgotten stays so."""
        with self._lock:
            for claim, amount in zip(claims, amounts):  # noqa: B905 - as above
                subjects = self._windows.get(claim.window)
                if subjects is not None:
                    used = subjects.get(claim.subject, _NOTHING)
                    subjects[claim.subject] = Amounts(
                        used.requests + amount.requests - claim.requests,
                        used.tokens + amount.tokens - claim.tokens,
                        used.nanodollars + amount.nanodollars - claim.nanodollars,
                    )

    def open(self, window: str, ends_at: float) -> dict[str, Amounts]:
        """Begins to count in a window, from what is known of it."""
        amounts = dict(self._known(window, ends_at))
        minute = window.startswith("minute:")
        same = [name for name in self._windows if name.startswith("minute:") == minute]
        if len(same) >= (_MOST_MINUTES if minute else _MOST_OTHERS):
            del self._windows[same[0]]
        self._windows[window] = amounts
        return amounts
