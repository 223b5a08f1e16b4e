"""The rules that a config asks for, as the core has them."""

from lexora.core.cache import CacheRules
from lexora.core.circuit import CircuitRules
from lexora.core.keys import Limits, known
from lexora.core.limits import Rules
from lexora.core.queue import QueueRules
from lexora.core.retry import RetryRules
from lexora.entry.config import Budget, RateLimit, Settings


def limit_rules(settings: Settings) -> Rules:
    """Rate limits and budgets of each user and of all together."""
    rates, budgets = settings.rate_limits, settings.budgets
    default_rate = rates.default if rates else None
    user_rates = rates.users if rates else {}
    users = {
        user: _limits(user_rates.get(user, default_rate), budgets.users.get(user, budgets.default))
        for user in {*user_rates, *budgets.users}
    }
    return Rules(
        users=users,
        default=_limits(default_rate, budgets.default),
        everyone=_limits(None, budgets.everyone),
        own_open=settings.on_store_failure.own == "open",
        paid_open=settings.on_store_failure.paid == "open",
    )


def _limits(rate: RateLimit | None, budget: Budget) -> Limits:
    return known(
        Limits(
            requests_per_minute=rate.requests_per_minute if rate else None,
            tokens_per_minute=rate.tokens_per_minute if rate else None,
            usd_per_day=budget.usd_per_day,
            usd_per_month=budget.usd_per_month,
        )
    )


def retry_rules(settings: Settings) -> RetryRules:
    """Without `retry`, every deployment of a model is asked once."""
    return RetryRules(**settings.retry.model_dump()) if settings.retry else RetryRules()


def queue_rules(settings: Settings) -> QueueRules:
    queue = settings.queue
    return QueueRules(
        max_size=queue.max_size,
        timeout=queue.default_timeout,
        ageing_seconds=queue.ageing_seconds,
        **queue.priorities.model_dump(),
    )


def cache_rules(settings: Settings) -> CacheRules:
    cache = settings.cache
    return CacheRules(cache.ttl_seconds, cache.per_user, cache.by_request)


def circuit_rules(settings: Settings) -> CircuitRules:
    return CircuitRules(**settings.circuit.model_dump())
