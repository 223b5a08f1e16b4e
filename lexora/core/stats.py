"""What became of the requests of a period: the answer of GET /stats, from the records summed up in groups."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

RATE_SECONDS = 3600.0
ERRORS_SECONDS = 3600.0


class Group(msgspec.Struct):
    """Requests of one user that one deployment answered, or failed to. Times are summed, in milliseconds.

    `cost_usd` is of the requests whose price is known, `unpriced` the number of the others; `ttft_count` the number of
    those that have a time to first token. `saved_usd` is what answers that no model gave would have cost, where
    known.
    """

    model: str = ""
    user_id: str | None = None
    origin: str | None = None
    deployment: str = ""
    requests: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    duration_ms: float = 0.0
    ttft_ms: float = 0.0
    ttft_count: int = 0
    saved_usd: float = 0.0

    def add(self, other: "Group") -> None:
        """Adds what was counted for another group."""
        self.requests += other.requests
        self.errors += other.errors
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.cost_usd += other.cost_usd
        self.unpriced += other.unpriced
        self.duration_ms += other.duration_ms
        self.ttft_ms += other.ttft_ms
        self.ttft_count += other.ttft_count
        self.saved_usd += other.saved_usd


class Counts(NamedTuple):
    requests: int
    errors: int


class StatsSource(Protocol):
    """The records, summed up. Its methods block for as long as it takes to read them."""

    def groups(self, since: float) -> list[Group]:
        """The requests that came at `since` (seconds since the epoch) or later. Raises OSError."""
        ...

    def counts(self, since: float) -> Counts:
        """How many they are, and how many of them failed. Raises OSError."""
        ...


def report(groups: Iterable[Group], last_hour: Counts, *, since: float, now: float) -> dict[str, Any]:
    """What /stats says of the period from `since` to `now`; costs are in US dollars, times in milliseconds.

    `requests_per_minute` is over the last hour, or the period if it is shorter. What belongs to no model, user or
    origin is under "".
    """
    groups = list(groups)
    total = _sum(groups)
    minutes = min(RATE_SECONDS, now - since) / 60
    models = _by(groups, lambda group: group.model)
    return {
        "total_requests": total.requests,
        "total_tokens": total.tokens_in + total.tokens_out,
        "avg_latency_ms": _average(total.duration_ms, total.requests) or 0,
        "requests_per_minute": round(last_hour.requests / minutes, 2) if minutes > 0 else 0,
        "errors_last_hour": last_hour.errors,
        "since": since,
        "saved_usd": round(total.saved_usd, 9),
        "models": {
            name: {**_facts(_sum(of_model)), "deployments": _deployments(of_model)} for name, of_model in models.items()
        },
        "users": _each(_by(groups, lambda group: group.user_id or "")),
        "origins": _each(_by(groups, lambda group: group.origin or "")),
    }


def _deployments(of_model: list[Group]) -> dict[str, dict[str, Any]]:
    """What each deployment of a model did, and its share of the model's requests: the two sides of an A/B split."""
    asked = {name: _sum(some) for name, some in _by(of_model, lambda group: group.deployment).items() if name}
    all_of_them = sum(sums.requests for sums in asked.values())
    return {name: {**_facts(sums), "share": round(sums.requests / all_of_them, 4)} for name, sums in asked.items()}


def _by(groups: Iterable[Group], key: Callable[[Group], str]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(key(group), []).append(group)
    return dict(sorted(found.items()))


def _each(parts: Mapping[str, list[Group]]) -> dict[str, dict[str, Any]]:
    return {name: _facts(_sum(some)) for name, some in parts.items()}


def _sum(groups: Iterable[Group]) -> Group:
    total = Group()
    for group in groups:
        total.add(group)
    return total


def _facts(sums: Group) -> dict[str, Any]:
    """`avg_ttft_ms` is null where no token was streamed; of `unpriced` requests nobody knows the cost."""
    return {
        "requests": sums.requests,
        "errors": sums.errors,
        "avg_latency_ms": _average(sums.duration_ms, sums.requests),
        "avg_ttft_ms": _average(sums.ttft_ms, sums.ttft_count),
        "tokens_in": sums.tokens_in,
        "tokens_out": sums.tokens_out,
        "cost_usd": round(sums.cost_usd, 9),
        "unpriced": sums.unpriced,
        "saved_usd": round(sums.saved_usd, 9),
    }


def _average(total: float, count: int) -> float | None:
    return round(total / count, 2) if count else None
