"""What to do after a call of an upstream has failed: one function decides, from the error's own facts."""

import random
from collections.abc import Callable
from typing import Literal, NamedTuple

from lexora.core.errors import (
    BudgetExceeded,
    Busy,
    CannotContinue,
    CredentialMissing,
    LexoraError,
    LimitsUnavailable,
    NotOffered,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)

# What servers call a prompt that is too long, as code, type or in words.
_OVERFLOW_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_OVERFLOW_WORDS = (
    *("maximum context length", "prompt is too long", "context size", "context window", "max_model_len"),
    *("exceeds the maximum number of tokens", "input is too long"),
)
# The deployment's credential, account or model name is wrong: no client is to blame, and no second try helps.
_MISCONFIGURED = {401, 402, 403, 404}
_TRANSIENT = {408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
MOST_DELAY_SECONDS = 30.0


class RetryRules(NamedTuple):
    """Attempts of one request in all; 0: every deployment once. Before one is asked again: seconds, growing."""

    max_attempts: int = 0
    delay_seconds: float = 1.0
    backoff_multiplier: float = 2.0


class Decision(NamedTuple):
    """`next` goes to another deployment, `larger` to one with a larger context, `again` begins anew after `delay`
    seconds. `at_fault` says that the failure counts against the deployment.
    """

    action: Literal["next", "larger", "again", "give_up"]
    delay: float = 0.0
    at_fault: bool = False


GIVE_UP = Decision("give_up")


def decide(
    error: LexoraError,
    rules: RetryRules,
    *,
    sent: int,
    more: bool,
    larger: bool,
    seconds_left: float,
    continuing: bool = False,
    choose: Callable[[], float] = random.random,
) -> Decision:
    """What follows a failed call.

    `sent` counts the calls that were sent so far, this one included if it was. `more` says that there is a deployment
    that has not been tried, `larger` that there is one with a larger context. `continuing`: the call was to complete
    another's answer, so what was refused is that.
    """
    if isinstance(error, BudgetExceeded | LimitsUnavailable | CredentialMissing | CannotContinue | Busy | NotOffered):
        return Decision("next") if more else GIVE_UP
    if not isinstance(error, UpstreamError):
        return GIVE_UP
    at_fault, repeatable = True, True
    if isinstance(error, UpstreamRefused):
        status = error.upstream_status or error.status
        if status in _TRANSIENT:
            pass
        elif status == 429:
            at_fault = False
        elif status in _MISCONFIGURED or continuing:
            at_fault, repeatable = status in (401, 402, 403), False
        elif is_overflow(error):
            return Decision("larger") if larger else GIVE_UP
        else:
            return GIVE_UP
    if more and (not rules.max_attempts or sent < rules.max_attempts or isinstance(error, UpstreamUnreachable)):
        return Decision("next", at_fault=at_fault)
    if repeatable and sent < rules.max_attempts:
        delay = rules.delay_seconds * rules.backoff_multiplier ** max(sent - 1, 0) * (0.5 + choose() / 2)
        delay = max(delay, error.retry_after or 0.0)
        if delay <= min(seconds_left, MOST_DELAY_SECONDS):
            return Decision("again", delay, at_fault)
    return Decision("give_up", at_fault=at_fault)


def is_overflow(error: UpstreamRefused) -> bool:
    """Whether the upstream says that the prompt is longer than its context."""
    if error.code in _OVERFLOW_CODES or error.error_type in _OVERFLOW_CODES:
        return True
    status = error.upstream_status or error.status
    words = error.message.lower()
    return status in (400, 413, 422) and any(phrase in words for phrase in _OVERFLOW_WORDS)
