"""What follows a failed call, by the facts of its error."""

import pytest

from lexora.core.errors import (
    BudgetExceeded,
    Busy,
    CannotContinue,
    CredentialMissing,
    DeadlineExceeded,
    InvalidRequest,
    LexoraError,
    LimitsUnavailable,
    RateLimited,
    UpstreamBroken,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora.core.retry import MOST_DELAY_SECONDS, Decision, RetryRules, decide, is_overflow

ONCE = RetryRules()
THRICE = RetryRules(max_attempts=3, delay_seconds=1.0, backoff_multiplier=2.0)


def refused(
    status: int, message: str = "no", retry_after: float | None = None, code: str | None = None
) -> UpstreamRefused:
    return UpstreamRefused(message, status=status, upstream_status=status, code=code, retry_after=retry_after)


def decided(error: LexoraError, rules: RetryRules = ONCE, **facts: object) -> Decision:
    known = {"sent": 1, "more": False, "larger": False, "seconds_left": 600.0, "choose": lambda: 1.0, **facts}
    return decide(error, rules, **known)  # type: ignore[arg-type]


DOWN = [
    UpstreamUnreachable("x"),
    UpstreamBroken("x"),
    UpstreamTimeout("x"),
    *map(refused, (408, 500, 502, 503, 504, 529)),
]


@pytest.mark.parametrize("error", DOWN, ids=lambda error: f"{type(error).__name__}-{error.status}")
def test_a_deployment_that_fails_is_passed_over_and_blamed(error: LexoraError) -> None:
    assert decided(error, more=True) == Decision("next", at_fault=True)
    assert decided(error) == Decision("give_up", at_fault=True)
    assert decided(error, THRICE) == Decision("again", 1.0, at_fault=True)
    assert decided(error, THRICE, sent=2).delay == 2.0
    assert decided(error, THRICE, sent=3) == Decision("give_up", at_fault=True)


def test_an_error_inside_a_stream_counts_by_what_it_says() -> None:
    error = UpstreamRefused("engine died", status=502, upstream_status=0)
    assert decided(error, more=True) == Decision("next", at_fault=True)


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
@pytest.mark.parametrize("message", ["bad temperature", "content refused by policy"])
def test_what_the_client_did_wrong_is_not_tried_again(status: int, message: str) -> None:
    assert decided(refused(status, message), THRICE, more=True, larger=True) == Decision("give_up")
    # But who cannot go on with another's answer is passed over.
    assert decided(refused(status, message), more=True, continuing=True).action == "next"
    assert decided(refused(status, message), THRICE, continuing=True).action == "give_up"


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_deployment_that_is_set_up_wrongly_is_passed_over_but_not_asked_again(status: int) -> None:
    assert decided(refused(status), more=True) == Decision("next", at_fault=status != 404)
    assert decided(refused(status), THRICE).action == "give_up"


def test_a_busy_provider_is_waited_for_as_long_as_it_asks() -> None:
    assert decided(refused(429, retry_after=7), more=True) == Decision("next")
    assert decided(refused(429, retry_after=7), THRICE) == Decision("again", 7.0)
    assert decided(refused(429, retry_after=0.2), THRICE).delay == 1.0
    assert decided(refused(429, retry_after=MOST_DELAY_SECONDS + 1), THRICE) == Decision("give_up")
    assert decided(refused(429, retry_after=7), THRICE, seconds_left=6.0) == Decision("give_up")


def test_delays_are_jittered() -> None:
    assert decided(UpstreamBroken("x"), THRICE, choose=lambda: 0.0).delay == 0.5


@pytest.mark.parametrize(
    "error",
    [
        refused(400, "This model's maximum context length is 2048 tokens. However, you requested 3000"),
        refused(
            400, "the request exceeds the available context size, try increasing it", code="exceed_context_size_error"
        ),
        refused(400, "prompt is too long: 205000 tokens > 200000 maximum"),
        refused(400, "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."),
        refused(400, "Input is too long for requested model."),
        refused(400, "x", code="context_length_exceeded"),
    ],
)
def test_what_is_too_long_goes_to_a_larger_model_only(error: UpstreamRefused) -> None:
    assert is_overflow(error)
    assert decided(error, THRICE, more=True, larger=True) == Decision("larger")
    assert decided(error, THRICE, more=True) == Decision("give_up")


@pytest.mark.parametrize(
    "error",
    [
        BudgetExceeded("x"),
        LimitsUnavailable("x"),
        CredentialMissing("x"),
        CannotContinue("x"),
        Busy("x", code="queue_full"),
    ],
)
def test_what_never_was_sent_goes_to_the_next_and_blames_nobody(error: LexoraError) -> None:
    assert decided(error, THRICE, more=True) == Decision("next")
    assert decided(error, THRICE) == Decision("give_up")


@pytest.mark.parametrize("error", [InvalidRequest("x"), RateLimited("x"), DeadlineExceeded("x")])
def test_other_errors_end_the_request(error: LexoraError) -> None:
    assert decided(error, THRICE, more=True) == Decision("give_up")


def test_attempts_are_budgeted_over_all_deployments() -> None:
    assert decided(UpstreamBroken("x"), THRICE, sent=3, more=True).action == "give_up"
    assert decided(UpstreamBroken("x"), ONCE, sent=30, more=True).action == "next"
    # Nothing was sent to one that cannot be reached.
    assert decided(UpstreamUnreachable("x"), THRICE, sent=3, more=True).action == "next"
