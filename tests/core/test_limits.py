"""Limits: reserve, pay, settle; over the real counters of one machine, with the test's clock."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lexora.adapters.memory import MemoryLimits
from lexora.core.errors import BudgetExceeded, LexoraError, LimitsUnavailable, RateLimited
from lexora.core.keys import ANYBODY, Caller, Limits
from lexora.core.limits import Limiter, Rules, day_window, minute_window, month_window
from lexora.core.ports import Amounts, Claim

NOON = 1_795_262_410.0  # 2026-11-21 12:00:10 UTC
TIGHT = Limits(requests_per_minute=3, tokens_per_minute=1000)


class Store(MemoryLimits):
    """Fails while it is told to."""

    failing = False

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[Amounts]]:
        if self.failing:
            raise OSError("the store is down")
        return super().reserve(claims)

    def settle(self, claims: Sequence[Claim], amounts: Sequence[Amounts]) -> None:
        if self.failing:
            raise OSError("the store is down")
        super().settle(claims, amounts)


class Desk:
    """A limiter with its clock, its counters and its complaints."""

    def __init__(self, **rules: Any) -> None:
        self.now = NOON
        self.store = Store()
        self.complaints: list[str] = []
        self.limiter = Limiter(self.store, Rules(**rules), lambda: self.now, self.complaints.append)

    def admit(self, user: str | None = "a", prompt: int = 100, completion: int = 200, caller: Caller = ANYBODY) -> Any:
        return self.limiter.admit(caller, user, prompt, completion)

    def used(self, subject: str, measure: str) -> int:
        window = day_window(self.now) if measure == "nanodollars" else minute_window(self.now)
        amount = self.store.reserve([Claim(subject, window.name, window.ends_at)])[1][0]
        return int(getattr(amount, measure))


def refused(error: pytest.ExceptionInfo[LexoraError]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in error.value.headers}


@pytest.mark.parametrize("days", [0, 58, 59, 60, 364, 365, 366, 425, 10_957, 11_016, 20_778, 47_540])
def test_windows_are_those_of_the_calendar(days: int) -> None:
    then = datetime(1970, 1, 1, 23, 59, 59, tzinfo=UTC) + timedelta(days)
    day, month = day_window(then.timestamp()), month_window(then.timestamp())
    midnight = then.replace(hour=0, minute=0, second=0)
    first = midnight.replace(day=1)
    following = (first + timedelta(32)).replace(day=1)
    assert day == (f"day:{then:%Y-%m-%d}", midnight.timestamp(), (midnight + timedelta(1)).timestamp())
    assert month == (f"month:{then:%Y-%m}", first.timestamp(), following.timestamp())


def test_without_limits_nothing_is_counted_and_the_store_is_not_asked() -> None:
    desk = Desk()
    desk.store.failing = True
    reservation = desk.admit()
    assert reservation.headers == ()
    reservation.pay(None)
    reservation.settle(10, 10)
    assert (reservation.uncounted, desk.complaints) == (False, [])


def test_headers_say_what_is_left() -> None:
    desk = Desk(default=TIGHT)
    assert dict(desk.admit().headers) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"2",
        b"x-ratelimit-reset-requests": b"50s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"700",
        b"x-ratelimit-reset-tokens": b"50s",
    }
    desk.now += 50
    assert dict(desk.admit().headers)[b"x-ratelimit-reset-tokens"] == b"1m0s"


def test_the_nearer_of_two_limits_is_told_whoever_has_it() -> None:
    key = Caller("a", "k1", limits=Limits(requests_per_minute=100, tokens_per_minute=4000))
    headers = dict(Desk(default=TIGHT).admit(caller=key).headers)
    assert (headers[b"x-ratelimit-limit-requests"], headers[b"x-ratelimit-limit-tokens"]) == (b"3", b"1000")
    desk = Desk(default=TIGHT)
    key = Caller("a", "k1", limits=Limits(tokens_per_minute=400))
    headers = dict(desk.admit(caller=key).headers)
    assert headers[b"x-ratelimit-limit-tokens"] == b"400"
    assert headers[b"x-ratelimit-remaining-requests"] == b"2"
    with pytest.raises(RateLimited, match="400 tokens a minute for this key is reached: 300 are used"):
        desk.admit(caller=key)
    assert desk.used("user:a", "tokens") == 300


def test_too_many_requests_are_told_when_to_come_again() -> None:
    desk = Desk(default=TIGHT)
    for _ in range(3):
        desk.admit().settle(1, 0)
    with pytest.raises(RateLimited, match=r"3 requests a minute for user 'a' is reached.* Try again in 50 s") as error:
        desk.admit()
    assert error.value.code == "rate_limit_exceeded"
    assert refused(error)["retry-after"] == "50"
    assert refused(error)["x-ratelimit-remaining-requests"] == "0"
    desk.admit("b")
    desk.now += 49.99
    with pytest.raises(RateLimited) as error:
        desk.admit()
    assert refused(error)["retry-after"] == "1"
    desk.now += 0.02
    desk.admit()


def test_a_smaller_answer_may_pass_now() -> None:
    desk = Desk(default=TIGHT)
    desk.admit(completion=800)
    with pytest.raises(RateLimited, match="900 are used or reserved") as error:
        desk.admit(prompt=50, completion=100)
    assert "'max_tokens' of at most 50 it passes now" in error.value.message
    desk.admit(prompt=50, completion=50)


@pytest.mark.parametrize(("prompt", "hint"), [(400, "'max_tokens' of at most 600"), (1000, "shorter messages")])
def test_what_can_never_pass_is_not_to_be_tried_again(prompt: int, hint: str) -> None:
    with pytest.raises(RateLimited, match=hint) as error:
        Desk(default=TIGHT).admit(prompt=prompt, completion=601)
    assert refused(error) == {"x-should-retry": "false"}


@pytest.mark.parametrize("failing", [False, True])
def test_who_may_send_no_requests_is_told_so(failing: bool) -> None:
    desk = Desk(default=Limits(requests_per_minute=0, tokens_per_minute=100))
    desk.store.failing = failing
    with pytest.raises(RateLimited, match="No requests are allowed for user 'a'") as error:
        desk.admit()
    assert refused(error) == {"x-should-retry": "false"}


def test_of_two_limits_that_are_reached_the_requests_are_told() -> None:
    desk = Desk(default=Limits(requests_per_minute=1, tokens_per_minute=300))
    desk.admit()
    with pytest.raises(RateLimited, match="The limit of 1 requests a minute"):
        desk.admit()


def test_what_nothing_limits_is_not_counted() -> None:
    """Or settling it would be one more call of the store."""
    desk = Desk(default=Limits(requests_per_minute=2))
    reservation = desk.admit()
    assert (desk.used("user:a", "requests"), desk.used("user:a", "tokens")) == (1, 0)
    reservation.settle(17, 0)
    assert (desk.used("user:a", "requests"), desk.used("user:a", "tokens")) == (1, 0)


def test_users_may_have_rules_of_their_own_and_a_reload_changes_them() -> None:
    desk = Desk(default=TIGHT, users={"vip": Limits()})
    for _ in range(5):
        desk.admit("vip")
    for _ in range(3):
        desk.admit(None)
    with pytest.raises(RateLimited, match="users without a name"):
        desk.admit(None)
    desk.limiter.rules = Rules()
    desk.admit(None)


def test_the_truth_is_counted_once_in_the_window_of_the_reservation() -> None:
    desk = Desk(default=TIGHT)
    reservation = desk.admit()
    reservation.settle(17, 0)
    reservation.settle(99, 0)
    reservation.release()
    assert (desk.used("user:a", "tokens"), desk.used("user:a", "requests")) == (17, 1)
    late = desk.admit()
    desk.now += 60
    late.settle(5, 0)
    assert desk.used("user:a", "tokens") == 0
    desk.admit().release()
    assert (desk.used("user:a", "tokens"), desk.used("user:a", "requests")) == (0, 0)


def test_money_is_reserved_refunded_and_settled_for_all_whom_a_budget_binds() -> None:
    desk = Desk(default=Limits(usd_per_day=1), everyone=Limits(usd_per_month=10, usd_per_day=5))
    key = Caller("a", "k1", limits=Limits(usd_per_day=0.5))
    reservation = desk.admit(caller=key)
    reservation.pay(400_000_000)
    subjects = ("user:a", "key:k1", "all")
    assert [desk.used(subject, "nanodollars") for subject in subjects] == [400_000_000] * 3
    reservation.refund(0)
    assert [desk.used(subject, "nanodollars") for subject in subjects] == [0] * 3
    reservation.pay(500_000_000)
    other = desk.admit(caller=key)
    with pytest.raises(BudgetExceeded, match=r"\$0.5 a day for this key") as error:
        other.pay(1)
    assert error.value.code == "insufficient_quota"
    assert refused(error) == {"retry-after": str(12 * 3600 - 10), "x-should-retry": "false"}
    reservation.settle(10, 123)
    assert [desk.used(subject, "nanodollars") for subject in subjects] == [123] * 3
    other.pay(1)
    other.release()
    assert desk.used("all", "nanodollars") == 123


def test_an_unknown_price_does_not_go_with_a_budget() -> None:
    Desk(default=TIGHT).admit().pay(None)
    with pytest.raises(BudgetExceeded, match="price") as error:
        Desk(everyone=Limits(usd_per_month=10)).admit().pay(None)
    assert error.value.code == "price_unknown"


def test_when_the_store_fails_own_deployments_go_on_and_paid_ones_do_not() -> None:
    desk = Desk(default=TIGHT)
    desk.store.failing = True
    reservation = desk.admit()
    assert reservation.uncounted
    with pytest.raises(LimitsUnavailable) as error:
        reservation.pay(1)
    assert refused(error)["retry-after"] == "2"
    reservation.settle(1, 0)
    desk.admit()
    assert desk.complaints == ["limits cannot be counted: the store is down"]
    desk.now += 61
    desk.admit()
    assert len(desk.complaints) == 2


def test_what_happens_when_the_store_fails_can_be_configured() -> None:
    closed = Desk(default=TIGHT, own_open=False)
    closed.store.failing = True
    with pytest.raises(LimitsUnavailable):
        closed.admit()
    opened = Desk(default=TIGHT, everyone=Limits(usd_per_day=1), paid_open=True)
    opened.store.failing = True
    opened.admit().pay(10**12)


def test_a_store_that_fails_between_admission_and_payment_lets_nothing_paid_through() -> None:
    desk = Desk(everyone=Limits(usd_per_day=1))
    reservation = desk.admit()
    desk.store.failing = True
    with pytest.raises(LimitsUnavailable):
        reservation.pay(1)


def test_what_the_store_did_not_settle_is_settled_later() -> None:
    desk = Desk(default=TIGHT)
    reservation = desk.admit()
    desk.store.failing = True
    reservation.settle(17, 0)
    desk.store.failing = False
    assert desk.used("user:a", "tokens") == 300
    desk.admit(prompt=1, completion=2)
    assert desk.used("user:a", "tokens") == 20
