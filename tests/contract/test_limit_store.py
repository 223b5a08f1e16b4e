"""What every `LimitStore` must do, wherever it keeps its counters."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lexora.adapters.dynamodb_limits import DynamoLimits
from lexora.adapters.memory import MemoryLimits
from lexora.core.ports import Claim, LimitStore
from tests.support.emulator import Emulator

ENDS_AT = time.time() + 3600


def _memory(request: pytest.FixtureRequest) -> LimitStore:
    return MemoryLimits()


def _dynamodb(request: pytest.FixtureRequest) -> LimitStore:
    emulator: Emulator = request.getfixturevalue("emulator")
    return DynamoLimits(emulator.client("dynamodb"), emulator.table(pk="S", sk="S"))


ADAPTERS = {"memory": _memory, "dynamodb": _dynamodb}


@pytest.fixture(params=ADAPTERS)
def store(request: pytest.FixtureRequest) -> Iterator[LimitStore]:
    yield ADAPTERS[request.param](request)


def claim(
    amount: int, limit: int | None, *, subject: str = "user:a", window: str = "minute:1", measure: str = "tokens"
) -> Claim:
    return Claim(subject, window, measure, amount, limit, ENDS_AT)


def used(store: LimitStore, subject: str = "user:a", window: str = "minute:1", measure: str = "tokens") -> int:
    return store.reserve([claim(0, None, subject=subject, window=window, measure=measure)])[1][0]


def test_what_fits_is_counted(store: LimitStore) -> None:
    both = [claim(60, 100), claim(1, 2, measure="requests")]
    assert store.reserve(both) == (None, [60, 1])
    assert store.reserve([claim(40, 100), claim(1, 2, measure="requests")]) == (None, [100, 2])


def test_what_does_not_fit_is_named_with_what_is_used(store: LimitStore) -> None:
    store.reserve([claim(60, 100)])
    refused = claim(41, 100)
    assert store.reserve([refused]) == (refused, [60])
    assert used(store) == 60


@pytest.mark.parametrize("limit", [0, 5])
def test_what_no_window_has_room_for_is_refused(store: LimitStore, limit: int) -> None:
    refused = claim(limit + 1, limit)
    assert store.reserve([refused])[0] == refused
    assert used(store) == 0


@pytest.mark.parametrize("other", [{"measure": "requests"}, {"subject": "key:k"}, {"window": "day:2026-11-24"}])
def test_all_is_reserved_or_nothing(store: LimitStore, other: dict[str, str]) -> None:
    store.reserve([claim(5, None, **other)])
    refused = claim(6, 10, **other)
    assert store.reserve([claim(60, 100), refused]) == (refused, [0, 5])
    assert (used(store), used(store, **other)) == (0, 5)


def test_subjects_and_windows_are_apart(store: LimitStore) -> None:
    for place in ({"subject": "user:b"}, {"window": "minute:2"}, {"measure": "requests"}, {}):
        assert store.reserve([claim(100, 100, **place)]) == (None, [100])


@pytest.mark.parametrize("amount", [0, 30, 60, 500])
def test_the_truth_takes_the_place_of_the_reservation_whatever_the_limit(store: LimitStore, amount: int) -> None:
    claims = [claim(60, 100), claim(1, 2, measure="requests"), claim(7, None, subject="all", window="day:x")]
    store.reserve([claim(5, None)])
    store.reserve(claims)
    store.settle(claims, [amount, 1, 0])
    assert used(store) == 5 + amount
    assert used(store, measure="requests") == 1
    assert used(store, subject="all", window="day:x") == 0


@pytest.mark.parametrize(("limit", "amount", "fit"), [(1000, 30, 33), (10**9, 40_000_000, 25)])
def test_two_hundred_at_once_overspend_by_nothing(store: LimitStore, limit: int, amount: int, fit: int) -> None:
    """For the last 1,000 tokens, and for the last dollar (in nanodollars), each with a second counter to keep."""
    wanted = [claim(1, 1000, measure="requests"), claim(amount, limit, subject="all", window="day:x")]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: store.reserve(wanted)[0], range(200)))
    assert answers.count(None) == fit
    assert used(store, subject="all", window="day:x") == fit * amount <= limit
    assert used(store, measure="requests") == fit
