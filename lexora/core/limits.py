"""Limits: what a request may use is reserved before it is forwarded, and settled with what it has used.

Windows are fixed: the minute, day or month in UTC. Money is counted in whole nanodollars.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import ceil, inf
from typing import NamedTuple

from lexora.core.complaints import Complaints
from lexora.core.errors import BudgetExceeded, LexoraError, LimitsUnavailable, RateLimited
from lexora.core.estimates import Estimates, cost_bound, nanodollars
from lexora.core.keys import NO_LIMITS, Caller, Limits
from lexora.core.ports import Amounts, Claim, LimitStore, NotSettled

__all__ = ["Estimates", "Limiter", "Reservation", "Rules", "cost_bound", "nanodollars"]

_Header = tuple[bytes, bytes]

_DAY = 86_400
# Settlements that the store has not taken: so many are kept, and so many tried again with one call.
_MOST_UNSETTLED = 10_000
_AT_A_TIME = 10
_NO_RETRY = (b"x-should-retry", b"false")
_DOWN = "The gateway cannot count what is used at the moment. Try again soon."


class Rules(NamedTuple):
    """`users` have limits of their own, each other user has `default`; of `everyone` together, only money counts.

    `own_open` and `paid_open` say whether requests go on while the store fails, at the user's own deployments and at
    paid ones.
    """

    users: Mapping[str, Limits] = {}
    default: Limits = NO_LIMITS
    everyone: Limits = NO_LIMITS
    own_open: bool = True
    paid_open: bool = False

    def of(self, user_id: str | None) -> Limits:
        return self.default if user_id is None else self.users.get(user_id, self.default)


class Window(NamedTuple):
    """A stretch of time, in seconds since the epoch."""

    name: str
    begins_at: float
    ends_at: float


def minute_window(now: float) -> Window:
    return _minute(int(now // 60))


def day_window(now: float) -> Window:
    return _day(int(now // _DAY))


def month_window(now: float) -> Window:
    return _month(int(now // _DAY))


@lru_cache(maxsize=2)
def _minute(minute: int) -> Window:
    return Window(f"minute:{minute}", minute * 60.0, minute * 60.0 + 60.0)


@lru_cache(maxsize=2)
def _day(day: int) -> Window:
    year, month, date = _date(day)
    return Window(f"day:{year}-{month:02d}-{date:02d}", day * _DAY, (day + 1) * _DAY)


@lru_cache(maxsize=2)
def _month(day: int) -> Window:
    year, month, date = _date(day)
    first = day - date + 1
    somewhere_next = first + 31
    following = somewhere_next - _date(somewhere_next)[2] + 1
    return Window(f"month:{year}-{month:02d}", first * _DAY, following * _DAY)


def _date(day: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since the epoch.

    Years begin in March here, so that the leap day is the last of its year; they repeat every 400 years.
    """
    era, day_of_era = divmod(day + 719_468, 146_097)
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    date = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (month <= 2), month, date


class Reservation:
    """What one request holds of its limits. `uncounted` says that the store has failed, and nothing is held.

    `headers` are `x-ratelimit-*` as the OpenAI SDKs read them, of the nearest limits; empty without limits. It is all
    synchronous, so it may be called while the request is being cancelled.
    """

    __slots__ = ("_caller", "_claims", "_limiter", "_money", "_user_id", "headers", "uncounted")

    def __init__(
        self,
        limiter: "Limiter",
        caller: Caller,
        user_id: str | None,
        claims: Sequence[Claim] = (),
        headers: tuple[_Header, ...] = (),
        *,
        uncounted: bool = False,
    ) -> None:
        self._limiter: Limiter | None = limiter
        self._caller = caller
        self._user_id = user_id
        self._claims = claims
        self._money: list[Claim] = []
        self.headers = headers
        self.uncounted = uncounted

    def pay(self, amount: int | None) -> None:
        """Reserves the most that a paid call may cost, in nanodollars; None if its price is not known.

        Raises BudgetExceeded and LimitsUnavailable.
        """
        limiter = self._limiter
        if limiter is None:
            return
        if self.uncounted and not limiter.rules.paid_open:
            raise LimitsUnavailable(_DOWN)
        claims = limiter.money_claims(self._caller, self._user_id, amount or 0)
        if not claims:
            return
        if amount is None:
            raise BudgetExceeded(
                "There is a budget, and what this deployment costs is not known. Its operator can give it a price in "
                "the model map.",
                code="price_unknown",
                headers=(_NO_RETRY,),
            )
        try:
            refused, used = limiter.reserve(claims)
        except OSError:
            self.uncounted = True
            if not limiter.rules.paid_open:
                raise LimitsUnavailable(_DOWN) from None
            return
        if refused is not None:
            raise _out_of_money(refused, used[claims.index(refused)], limiter.now())
        self._money += claims

    def refund(self, spent: int) -> None:
        """Gives the money of a failed attempt back, less the nanodollars that it has cost all the same."""
        money, self._money = self._money, []
        if money and self._limiter is not None:
            self._limiter.settle(money, [Amounts(nanodollars=spent)] * len(money))

    def release(self, requests: int = 0) -> None:
        """Gives everything back, the request itself included unless it counts: nothing was used."""
        self.settle(0, 0, requests)

    def settle(self, tokens: int, amount: int, requests: int = 1) -> None:
        """Counts these tokens and nanodollars in the place of what is reserved. Once; later calls do nothing."""
        limiter, self._limiter = self._limiter, None
        if limiter is None or not (self._claims or self._money):
            return
        claims = self._claims
        amounts = [Amounts(requests, tokens if claim.most_tokens is not None else 0) for claim in claims]
        if self._money:
            claims = [*claims, *self._money]
            # A second payment that was not refunded shares its windows with the first; the truth counts once in each.
            seen: set[tuple[str, str]] = set()
            for claim in self._money:
                place = (claim.subject, claim.window)
                amounts.append(Amounts(nanodollars=0 if place in seen else amount))
                seen.add(place)
        limiter.settle(claims, amounts)


class Limiter:
    """Reserves what requests may use. A reload replaces `rules`.

    `now` gives seconds since the epoch. `complain` is told, once a minute at most, that the store fails.
    """

    def __init__(
        self,
        store: LimitStore,
        rules: Rules,
        now: Callable[[], float],
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.rules = rules
        self.now = now
        self._store = store
        self._complain = Complaints(complain, now)
        self._unsettled: deque[tuple[Claim, Amounts]] = deque(maxlen=_MOST_UNSETTLED)

    def concerns(self, caller: Caller, user_id: str | None) -> bool:
        """Whether there is any limit for them."""
        rules = self.rules
        return not (rules.of(user_id) is rules.everyone is caller.limits is NO_LIMITS)

    def admit(self, caller: Caller, user_id: str | None, prompt_tokens: int, completion_tokens: int) -> Reservation:
        """Reserves one request and its tokens for the user, and for the key if it has limits of its own.

        Raises RateLimited, and LimitsUnavailable if the store fails and not even own deployments are open then.
        """
        rules, now = self.rules, self.now()
        tokens = prompt_tokens + completion_tokens
        claims: list[Claim] = []
        limits = rules.of(user_id)
        if limits is not NO_LIMITS:
            _add_claim(claims, "user:" + (user_id or ""), limits, tokens, now)
        if caller.limits is not NO_LIMITS and caller.key_id is not None:
            _add_claim(claims, "key:" + caller.key_id, caller.limits, tokens, now)
        if not claims:
            return Reservation(self, caller, user_id)
        try:
            refused, used = self.reserve(claims)
        except OSError:
            _refuse_what_never_passes(claims, prompt_tokens)
            if not rules.own_open:
                raise LimitsUnavailable(_DOWN) from None
            return Reservation(self, caller, user_id, uncounted=True)
        if refused is not None:
            _refuse_what_never_passes(claims, prompt_tokens)
            raise _too_many(refused, used[claims.index(refused)], prompt_tokens, now)
        return Reservation(self, caller, user_id, claims, _headers(claims, used, now))

    def money_claims(self, caller: Caller, user_id: str | None, amount: int) -> list[Claim]:
        """The claims of a payment: in every window in which the user, the key or all together have a limit."""
        rules, now = self.rules, self.now()
        subjects = [(f"user:{user_id or ''}", rules.of(user_id)), ("all", rules.everyone)]
        if caller.key_id is not None:
            subjects.append((f"key:{caller.key_id}", caller.limits))
        claims = []
        for subject, limits in subjects:
            for usd, window in ((limits.usd_per_day, day_window(now)), (limits.usd_per_month, month_window(now))):
                if usd is not None:
                    most = round(usd * 1e9)
                    claims.append(
                        Claim(subject, window.name, window.ends_at, nanodollars=amount, most_nanodollars=most)
                    )
        return claims

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[Amounts]]:
        """As the store does; what it has failed to settle before comes first. Raises OSError."""
        try:
            if self._unsettled:
                self._settle_again()
            return self._store.reserve(claims)
        except OSError as error:
            self._say(error)
            raise

    def settle(self, claims: Sequence[Claim], amounts: Sequence[Amounts]) -> None:
        """As the store does; what it does not take now is tried again with later calls."""
        try:
            self._store.settle(claims, amounts)
        except OSError as error:
            self._keep(error, list(zip(claims, amounts, strict=True)))
            self._say(error)

    def _settle_again(self) -> None:
        for _ in range(min(len(self._unsettled), _AT_A_TIME)):
            claim, amount = self._unsettled.popleft()
            try:
                self._store.settle([claim], [amount])
            except OSError as error:
                self._keep(error, [(claim, amount)])
                raise

    def _keep(self, error: OSError, left: Sequence[tuple[Claim, Amounts]]) -> None:
        now = self.now()
        left = error.left if isinstance(error, NotSettled) else left
        # A minute that is over limits nobody any more.
        self._unsettled.extend(pair for pair in left if pair[0].ends_at > now)

    def _say(self, error: OSError) -> None:
        self._complain("limits cannot be counted", error)


def _add_claim(claims: list[Claim], subject: str, limits: Limits, tokens: int, now: float) -> None:
    """The claim of one request, if there are limits of a minute."""
    most_requests, most_tokens = limits.requests_per_minute, limits.tokens_per_minute
    if most_requests is not None or most_tokens is not None:
        name, _, ends_at = minute_window(now)
        counted = tokens if most_tokens is not None else 0  # or settling them would be a call to no end
        claims.append(Claim(subject, name, ends_at, 1, counted, most_requests, most_tokens))


def _seconds_left(claim: Claim, now: float) -> int:
    left = ceil(claim.ends_at - now)
    return left if left > 0 else 1


def _headers(claims: Sequence[Claim], used: Sequence[Amounts], now: float) -> tuple[_Header, ...]:
    """Of each measure, what the nearest limit says."""
    most_requests = most_tokens = None
    left_requests = left_tokens = inf
    for claim, amount in zip(claims, used):  # noqa: B905 - of one length; `strict` costs
        most = claim.most_requests
        if most is not None and most - amount.requests < left_requests:
            most_requests, left_requests = most, most - amount.requests
        most = claim.most_tokens
        if most is not None and most - amount.tokens < left_tokens:
            most_tokens, left_tokens = most, most - amount.tokens
    headers = _fixed_headers(most_requests, most_tokens, _seconds_left(claims[0], now))  # all are of one minute
    if most_requests is not None:
        headers += ((b"x-ratelimit-remaining-requests", b"%d" % left_requests),)
    if most_tokens is not None:
        headers += ((b"x-ratelimit-remaining-tokens", b"%d" % left_tokens),)
    return headers


@lru_cache(maxsize=1024)
def _fixed_headers(most_requests: int | None, most_tokens: int | None, seconds_left: int) -> tuple[_Header, ...]:
    """Those that are the same for all who have these limits."""
    minutes, seconds = divmod(seconds_left, 60)
    reset = b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
    headers: list[_Header] = []
    for measure, most in ((b"requests", most_requests), (b"tokens", most_tokens)):
        if most is not None:
            headers += (b"x-ratelimit-limit-" + measure, b"%d" % most), (b"x-ratelimit-reset-" + measure, reset)
    return tuple(headers)


def _whose(claim: Claim) -> str:
    kind, _, name = claim.subject.partition(":")
    if kind == "key":
        return "this key"
    if kind == "all":
        return "all users together"
    return f"user '{name}'" if name else "users without a name"


def _refuse_what_never_passes(claims: Sequence[Claim], prompt_tokens: int) -> None:
    """Raises RateLimited for a claim that is larger than its whole limit."""
    for claim in claims:
        if claim.most_requests is not None and claim.requests > claim.most_requests:
            raise RateLimited(f"No requests are allowed for {_whose(claim)}.", headers=(_NO_RETRY,))
        most = claim.most_tokens
        if most is not None and claim.tokens > most:
            smaller = "shorter messages are needed"
            if prompt_tokens < most:
                smaller = f"with a 'max_tokens' of at most {most - prompt_tokens} it may pass"
            raise RateLimited(
                f"The request may use {claim.tokens} tokens, and {most} a minute are all that is allowed for "
                f"{_whose(claim)}: {smaller}.",
                headers=(_NO_RETRY,),
            )


def _too_many(claim: Claim, used: Amounts, prompt_tokens: int, now: float) -> LexoraError:
    seconds = _seconds_left(claim, now)
    if claim.most_tokens is None or (
        claim.most_requests is not None and used.requests + claim.requests > claim.most_requests
    ):
        measure, most, count, amount = "requests", claim.most_requests or 0, used.requests, claim.requests
        fixed = _fixed_headers(most, None, seconds)
    else:
        measure, most, count, amount = "tokens", claim.most_tokens, used.tokens, claim.tokens
        fixed = _fixed_headers(None, most, seconds)
    message = (
        f"The limit of {most} {measure} a minute for {_whose(claim)} is reached: {count} are used or reserved, "
        f"and this request may use {amount}. Try again in {seconds} s."
    )
    if measure == "tokens" and count + prompt_tokens < most:
        message += f" With a 'max_tokens' of at most {most - count - prompt_tokens} it passes now."
    remaining = f"x-ratelimit-remaining-{measure}".encode(), b"%d" % max(0, most - count)
    return RateLimited(message, headers=((b"retry-after", b"%d" % seconds), *fixed, remaining))


def _out_of_money(claim: Claim, used: Amounts, now: float) -> LexoraError:
    seconds = _seconds_left(claim, now)
    period = claim.window.partition(":")[0]
    return BudgetExceeded(
        f"The budget of ${(claim.most_nanodollars or 0) / 1e9:g} a {period} for {_whose(claim)} does not allow it: "
        f"${used.nanodollars / 1e9:.6g} are spent or reserved, and this request may cost "
        f"${claim.nanodollars / 1e9:.6g}. A new {period} begins in {seconds} s (UTC).",
        headers=((b"retry-after", b"%d" % seconds), _NO_RETRY),
    )
