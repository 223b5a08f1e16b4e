"""What /stats makes of groups."""

import pytest

from lexora.core.stats import Counts, Group, report

DAY = 86_400.0
A = Group("chat", "taro", "own", "a", 3, 1, 30, 6, 0.0, 0, 300.0, 50.0, 2)
B = Group("chat", "hana", "paid", "b", 1, 0, 10, 4, 0.25, 0, 200.0, 0.0, 0)
PREPARED = Group("chat", None, "fixed", "fixed/q1/0", 4, 0, 8, 8, duration_ms=4.0)
UNKNOWN = Group("nope", None, None, "", 1, 1, unpriced=1)


def test_the_fields_of_seed_004_come_first() -> None:
    made = report([A, B, PREPARED, UNKNOWN], Counts(90, 2), since=0, now=DAY)
    assert list(made)[:5] == [
        "total_requests",
        "total_tokens",
        "avg_latency_ms",
        "requests_per_minute",
        "errors_last_hour",
    ]
    assert list(made.values())[:5] == [9, 66, 56.0, 1.5, 2]
    assert made["since"] == 0
    assert set(made) - set(list(made)[:5]) == {"since", "saved_usd", "models", "users", "origins"}


def test_everything_is_there_by_model_user_and_origin() -> None:
    made = report([A, B, PREPARED, UNKNOWN], Counts(0, 0), since=0, now=DAY)
    assert {name: facts["requests"] for name, facts in made["models"].items()} == {"chat": 8, "nope": 1}
    assert {name: facts["requests"] for name, facts in made["users"].items()} == {"": 5, "hana": 1, "taro": 3}
    assert {name: facts["cost_usd"] for name, facts in made["origins"].items()} == {
        "": 0,
        "fixed": 0,
        "own": 0,
        "paid": 0.25,
    }
    assert made["origins"][""]["unpriced"] == 1


def test_the_variants_of_a_model_are_told_apart() -> None:
    made = report([A, B, Group("other", None, "own", "a", 5)], Counts(0, 0), since=0, now=DAY)
    assert made["models"]["chat"]["deployments"] == {
        "a": {
            "requests": 3,
            "errors": 1,
            "avg_latency_ms": 100,
            "avg_ttft_ms": 25,
            "tokens_in": 30,
            "tokens_out": 6,
            "cost_usd": 0,
            "unpriced": 0,
            "saved_usd": 0,
            "share": 0.75,
        },
        "b": {
            "requests": 1,
            "errors": 0,
            "avg_latency_ms": 200,
            "avg_ttft_ms": None,
            "tokens_in": 10,
            "tokens_out": 4,
            "cost_usd": 0.25,
            "unpriced": 0,
            "saved_usd": 0,
            "share": 0.25,
        },
    }


def test_what_was_sent_to_no_deployment_is_none() -> None:
    assert report([UNKNOWN], Counts(1, 1), since=0, now=DAY)["models"]["nope"]["deployments"] == {}


def test_of_nothing_there_is_nothing() -> None:
    made = report([], Counts(0, 0), since=0, now=DAY)
    assert list(made.values())[:5] == [0, 0, 0, 0, 0]
    assert (made["models"], made["users"], made["origins"]) == ({}, {}, {})


@pytest.mark.parametrize(("seconds", "rate"), [(DAY, 2), (3600, 2), (60, 120), (0, 0), (-5, 0)])
def test_requests_a_minute_are_of_the_last_hour_or_of_less(seconds: float, rate: float) -> None:
    assert report([], Counts(120, 0), since=1000, now=1000 + seconds)["requests_per_minute"] == rate
