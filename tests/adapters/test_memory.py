"""The limits' counters in memory: which windows they keep, and what they begin with."""

import pytest

from lexora.adapters.memory import MemoryLimits
from lexora.core.limits import day_window, minute_window
from lexora.core.ports import Amounts, Claim

NOON = 1_795_262_410.0  # 2026-11-21 12:00:10 UTC


def claim(now: float, *, minute: bool = False, amount: int = 1) -> Claim:
    window = minute_window(now) if minute else day_window(now)
    return Claim("user:a", window.name, window.ends_at, nanodollars=amount)


def used(limits: MemoryLimits, now: float, *, minute: bool = False) -> int:
    return limits.reserve([claim(now, minute=minute, amount=0)])[1][0].nanodollars


def test_a_clock_that_jumps_and_comes_back_makes_no_budget_whole_again() -> None:
    """However long the gateway has run by then, and so however many windows it knows."""
    limits = MemoryLimits()
    for minute in range(1_000):
        limits.reserve([claim(NOON, amount=5), claim(NOON + 60 * minute, minute=True)])
    for days in (1, 30, 400, -400):
        limits.reserve([claim(NOON + 86_400 * days), claim(NOON + 86_400 * days, minute=True)])
    assert used(limits, NOON) == 5_000


def test_old_windows_are_forgotten() -> None:
    limits = MemoryLimits()
    for number in range(1_000):
        limits.reserve([claim(NOON + 86_400 * number), claim(NOON + 60 * number, minute=True)])
    assert used(limits, NOON) == used(limits, NOON, minute=True) == 0
    assert len(limits._windows) <= 240


def test_a_new_window_begins_with_what_is_known_of_it() -> None:
    asked = []

    def known(window: str, ends_at: float) -> dict[str, Amounts]:
        asked.append((window, ends_at))
        return {"user:a": Amounts(nanodollars=70)}

    limits = MemoryLimits(known)
    limits.reserve([claim(NOON, amount=5)])
    assert used(limits, NOON) == 75
    assert asked == [("day:2026-11-21", day_window(NOON).ends_at)]


def test_where_that_cannot_be_told_nothing_is_reserved() -> None:
    failing = True

    def known(window: str, ends_at: float) -> dict[str, Amounts]:
        if failing:
            raise OSError("away")
        return {"user:a": Amounts(nanodollars=70)}

    limits = MemoryLimits(known)
    with pytest.raises(OSError, match="away"):
        limits.reserve([claim(NOON)])
    failing = False
    assert used(limits, NOON) == 70
