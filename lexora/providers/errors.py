"""Errors of upstreams, in whatever form they come, as the error that the client gets."""

import re
from typing import Any

import msgspec

from lexora.core.errors import UpstreamRefused
from lexora.core.retry import is_overflow
from lexora.providers.dialect import NOT_JSON

# What an upstream's status means to our client. Other 5xx, and statuses no API should send, are 502.
_SAME = {400, 404, 409, 413, 422, 429, 503, 504}
_OTHER = {408: 504, 529: 503}
# What Anthropic's types of errors stand for (https://platform.claude.com/docs/en/api/errors): it gives no numbers in
# a stream, and OpenAI calls some of them the same.
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# What AWS says with 403 or 400 of keys, tokens and signatures that it does not take, as others say 401.
_AWS_CREDENTIAL = {
    *("UnrecognizedClientException", "InvalidSignatureException", "IncompleteSignatureException"),
    *("ExpiredTokenException", "ExpiredToken", "MissingAuthenticationTokenException", "InvalidClientTokenId"),
}
_AWS_KEY_INVALID = "Authentication failed"  # of an API key of Bedrock's
_LONGEST_MESSAGE = 2_000


def refused(status: int, body: bytes, *, retry_after: float | None = None, kind: str = "") -> UpstreamRefused:
    """The client's error for an upstream's error response; `status` 0 for one reported inside a 200 answer.

    Understands OpenAI's envelope (vLLM, llama.cpp, Ollama), Anthropic's, Google's (also in a list), Mistral's
    (`{"object": "error", "message": …}`), `{"error": "…"}`, `{"detail": …}`, and AWS's `{"message": …}`, whose type
    comes in a header (`kind`). The text of a body that is none of these is not shown: it may be a stack trace.
    """
    try:
        said = msgspec.json.decode(body)
    except NOT_JSON:
        said = None
    if isinstance(said, dict) and "error" not in said and (kind or "Message" in said):
        # "ThrottlingException:http://internal.amazon.com/…"
        return _refused_by_aws(status, said, kind.partition(":")[0], retry_after)
    return refused_as(status, said, retry_after=retry_after)


def _refused_by_aws(status: int, said: dict[str, Any], type_: str, retry_after: float | None) -> UpstreamRefused:
    message = said.get("message") or said.get("Message")
    wrong = type_ in _AWS_CREDENTIAL or (status == 403 and str(message).startswith(_AWS_KEY_INVALID))
    error = {"message": message, "type": type_}
    return refused_as(401 if wrong else status, {"error": error}, retry_after=retry_after)


def refused_as(status: int, said: Any, *, retry_after: float | None = None) -> UpstreamRefused:
    """The same for a body that is decoded already."""
    if isinstance(said, list) and said:
        said = said[0]
    error = said.get("error", said.get("detail")) if isinstance(said, dict) else None
    if isinstance(said, dict) and said.get("object") == "error" and error is None:
        error = said
    facts: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    google = _details(facts.get("details"))
    key_invalid = google.get("reason") == "API_KEY_INVALID"  # of which Google says 400
    if status in (401, 403) or key_invalid:
        return UpstreamRefused(
            f"The upstream refused the gateway's credential (status {status}). "
            "Whoever runs this gateway must check the deployment's `credential`.",
            status=502,
            upstream_status=401 if key_invalid else status,
            code="upstream_credential_refused",
        )
    message = facts.get("message")
    if not isinstance(message, str) or not message:
        message = f"The upstream answered with status {status}." if status else "The upstream reported an error."
    if status == 0:
        # Inside a stream the status is a guess from the error's own code (vLLM and llama.cpp put it there) or type.
        inner = facts.get("code")
        guess = STATUS_OF_TYPE.get(_text(facts.get("type")) or "", 500)
        status = inner if isinstance(inner, int) and 400 <= inner <= 599 else guess
        upstream_status = 0
    else:
        upstream_status = status
    code = facts.get("code")
    refusal = UpstreamRefused(
        message[:_LONGEST_MESSAGE],
        status=status if status in _SAME else _OTHER.get(status, 502),
        upstream_status=upstream_status,
        error_type=_text(facts.get("type")) or _text(facts.get("status")) or "upstream_error",
        param=_text(facts.get("param")),
        code=_text(code) or _text(google.get("reason")) or "upstream_error",
        retry_after=_seconds(google.get("retryDelay")) if retry_after is None else retry_after,
    )
    if refusal.code == "upstream_error" and is_overflow(refusal):
        refusal.code = "context_length_exceeded"  # as OpenAI says it, and its clients look for it
    return refusal


def _details(details: object) -> dict[str, Any]:
    """What Google says in an error's `details` (https://google.aip.dev/193), in one: `reason`, `retryDelay`, …"""
    found: dict[str, Any] = {}
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            found |= detail
    return found


def _seconds(duration: object) -> float | None:
    """`"34.5s"` as 34.5."""
    said = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", duration) if isinstance(duration, str) else None
    return float(said[1]) if said else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
