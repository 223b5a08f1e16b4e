"""What every `LimitStore` must do, wherever it keeps its counters."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lexora.adapters.dynamodb_limits import DynamoLimits
from lexora.adapters.memory import MemoryLimits
from lexora.core.ports import Amounts, Claim, LimitStore
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


def claim(tokens: int, most: int | None, *, subject: str = "user:a", window: str = "minute:1", **others: Any) -> Claim:
    return Claim(subject, window, ENDS_AT, tokens=tokens, most_tokens=most, **others)


def used(store: LimitStore, subject: str = "user:a", window: str = "minute:1") -> Amounts:
    return store.reserve([Claim(subject, window, ENDS_AT)])[1][0]


def test_what_fits_is_counted(store: LimitStore) -> None:
    first, second = (claim(tokens, 100, requests=1, most_requests=2, nanodollars=7) for tokens in (60, 40))
    assert store.reserve([first]) == (None, [Amounts(1, 60, 7)])
    assert store.reserve([second]) == (None, [Amounts(2, 100, 14)])


@pytest.mark.parametrize("measure", ["requests", "tokens", "nanodollars"])
def test_what_does_not_fit_is_named_with_what_is_used(store: LimitStore, measure: str) -> None:
    before = Amounts(60, 60, 60)
    store.reserve([Claim("user:a", "minute:1", ENDS_AT, 60, 60, nanodollars=60)])
    refused = Claim("user:a", "minute:1", ENDS_AT, 1, 1, nanodollars=1, **{f"most_{measure}": 60})
    assert store.reserve([refused]) == (refused, [before])
    assert used(store) == before


@pytest.mark.parametrize("limit", [0, 5])
def test_what_no_window_has_room_for_is_refused(store: LimitStore, limit: int) -> None:
    refused = claim(limit + 1, limit)
    assert store.reserve([refused])[0] == refused
    assert used(store) == Amounts()


@pytest.mark.parametrize("other", [{"subject": "key:k"}, {"window": "day:2026-11-24"}])
def test_all_is_reserved_or_nothing(store: LimitStore, other: dict[str, str]) -> None:
    store.reserve([claim(5, None, **other)])
    refused = claim(6, 10, **other)
    assert store.reserve([claim(60, 100), refused]) == (refused, [Amounts(), Amounts(tokens=5)])
    assert (used(store), used(store, **other)) == (Amounts(), Amounts(tokens=5))


def test_subjects_and_windows_are_apart(store: LimitStore) -> None:
    for place in ({"subject": "user:b"}, {"window": "minute:2"}, {}):
        assert store.reserve([claim(100, 100, **place)]) == (None, [Amounts(tokens=100)])


@pytest.mark.parametrize("tokens", [0, 30, 60, 500])
def test_the_truth_takes_the_place_of_the_reservation_whatever_the_limit(store: LimitStore, tokens: int) -> None:
    claims = [
        claim(60, 100, requests=1, most_requests=2),
        Claim("all", "day:x", ENDS_AT, nanodollars=7, most_nanodollars=9),
    ]
    store.reserve([claim(5, None)])
    store.reserve(claims)
    store.settle(claims, [Amounts(1, tokens), Amounts(nanodollars=30)])
    assert used(store) == Amounts(1, 5 + tokens)
    assert used(store, "all", "day:x") == Amounts(nanodollars=30)


LAST_TOKENS = [claim(30, 1000, requests=1), Claim("key:k", "minute:1", ENDS_AT, 1, most_requests=1000)]
LAST_DOLLAR = [
    Claim("user:a", "minute:1", ENDS_AT, 1, most_requests=1000),
    Claim("all", "day:x", ENDS_AT, nanodollars=40_000_000, most_nanodollars=10**9),
]


@pytest.mark.parametrize(("wanted", "fit"), [(LAST_TOKENS, 33), (LAST_DOLLAR, 25)])
def test_two_hundred_at_once_overspend_by_nothing(store: LimitStore, wanted: list[Claim], fit: int) -> None:
    """For the last 1,000 tokens, and for the last dollar, each with a second counter to keep."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: store.reserve(wanted)[0], range(200)))
    assert answers.count(None) == fit
    for each in wanted:
        count = used(store, each.subject, each.window)
        assert count == Amounts(fit * each.requests, fit * each.tokens, fit * each.nanodollars)
