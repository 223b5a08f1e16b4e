"""Errors in every form in which upstreams have been seen to report them."""

import json
from typing import Any

import pytest

from lexora.core.errors import UpstreamRefused
from lexora.providers.errors import refused

CONTEXT = "This model's maximum context length is 2048 tokens."
OPENAI = {"error": {"message": CONTEXT, "type": "invalid_request_error", "param": "messages", "code": "too_long"}}
VLLM = {"error": {"message": CONTEXT, "type": "BadRequestError", "param": "input_tokens", "code": 400}}
LLAMACPP = {"error": {"code": 400, "message": CONTEXT, "type": "exceed_context_size_error", "n_ctx": 2048}}
ANTHROPIC = {"type": "error", "error": {"type": "invalid_request_error", "message": CONTEXT}, "request_id": "req_1"}
GOOGLE = {"error": {"code": 400, "message": CONTEXT, "status": "INVALID_ARGUMENT", "details": [{"@type": "x"}, 5]}}
MISTRAL = {"object": "error", "message": CONTEXT, "type": "invalid_model", "param": None, "code": "1500"}


def refuse(status: int, body: Any, **options: Any) -> UpstreamRefused:
    return refused(status, body if isinstance(body, bytes) else json.dumps(body).encode(), **options)


@pytest.mark.parametrize(
    ("body", "error_type", "param", "code"),
    [
        (OPENAI, "invalid_request_error", "messages", "too_long"),
        (VLLM, "BadRequestError", "input_tokens", "context_length_exceeded"),
        (LLAMACPP, "exceed_context_size_error", None, "context_length_exceeded"),
        (ANTHROPIC, "invalid_request_error", None, "context_length_exceeded"),
        (GOOGLE, "INVALID_ARGUMENT", None, "context_length_exceeded"),
        ([GOOGLE], "INVALID_ARGUMENT", None, "context_length_exceeded"),
        (MISTRAL, "invalid_model", None, "1500"),
        ({"error": CONTEXT}, "upstream_error", None, "context_length_exceeded"),
        ({"detail": CONTEXT}, "upstream_error", None, "context_length_exceeded"),
    ],
)
def test_every_envelope_becomes_openais(body: Any, error_type: str, param: str | None, code: str) -> None:
    error = refuse(400, body)
    assert (error.status, error.upstream_status) == (400, 400)
    assert error.envelope() == {"error": {"message": CONTEXT, "type": error_type, "param": param, "code": code}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"{}",
        b'{"error": null}',
        b'{"error": 5}',
        b'{"error": {"message": null}}',
        b'{"error": {"message": ["a"]}}',
        b'{"error": ""}',
        b'{"detail": [{"loc": ["body"], "msg": "field required"}]}',
        b"<html><h1>Bad Gateway</h1></html>",
        b'Traceback (most recent call last):\n  File "/srv/app.py", line 1\nKeyError: secret',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_error_envelope_is_not_shown(body: bytes) -> None:
    error = refuse(500, body)
    assert (error.status, error.message) == (502, "The upstream answered with status 500.")
    assert error.envelope()["error"]["type"] == "upstream_error"


@pytest.mark.parametrize(
    ("upstream", "client"),
    [
        *((same, same) for same in (400, 404, 409, 413, 422, 429, 503, 504)),
        (408, 504),
        (529, 503),
        *((other, 502) for other in (201, 301, 402, 405, 410, 418, 451, 500, 501, 502, 505, 599)),
    ],
)
def test_a_status_keeps_what_it_means_to_the_client(upstream: int, client: int) -> None:
    error = refuse(upstream, OPENAI)
    assert (error.status, error.upstream_status) == (client, upstream)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_is_the_gateways_affair(status: int) -> None:
    """The client's own key may be well, and the upstream's text may hold ours."""
    said = {"error": {"message": "Incorrect API key provided: sk-verysecret.", "code": "invalid_api_key"}}
    error = refuse(status, said)
    assert (error.status, error.upstream_status, error.code) == (502, status, "upstream_credential_refused")
    assert "verysecret" not in json.dumps(error.envelope())
    assert "credential" in error.message


def test_retry_after_is_handed_on() -> None:
    assert refuse(429, OPENAI, retry_after=6.2).headers == ((b"retry-after", b"7"),)
    assert refuse(429, OPENAI).headers == ()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "a", "code": 429}, 429),
        ({"message": "a", "code": 500}, 502),
        ({"message": "a", "code": 400, "type": "api_error"}, 400),
        ({"message": "a", "type": "overloaded_error"}, 503),
        ({"message": "a", "type": "rate_limit_error"}, 429),
        ({"message": "a", "type": "invalid_request_error"}, 400),
        ({"message": "a", "type": "timeout_error"}, 504),
        ({"message": "a", "type": "api_error"}, 502),
        ({"message": "a", "type": "InternalServerError", "code": "x"}, 502),
        ({"message": "a", "code": 200}, 502),
        ("a", 502),
    ],
)
def test_inside_a_stream_the_error_says_its_status_itself(error: Any, status: int) -> None:
    found = refuse(0, {"error": error})
    assert (found.status, found.upstream_status, found.message) == (status, 0, "a")


def test_inside_a_stream_an_error_may_say_nothing() -> None:
    assert refuse(0, {"error": {}}).message == "The upstream reported an error."


def test_a_long_message_is_cut() -> None:
    assert len(refuse(400, {"error": {"message": "x" * 1_000_000}}).message) == 2000


def google_error(*details: object) -> Any:
    return {"error": {"code": 400, "message": CONTEXT, "status": "A_STATUS", "details": list(details)}}


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("34.074824224s", 34.074824224), ("7s", 7), ("0s", 0), ("soon", None), ("-1s", None), (5, None), ("1e9s", None)],
)
def test_google_says_in_the_details_when_to_come_back(delay: object, seconds: float | None) -> None:
    body = google_error({"reason": "RATE_LIMIT_EXCEEDED"}, {"retryDelay": delay})
    error = refuse(429, body)
    assert (error.retry_after, error.code) == (seconds, "RATE_LIMIT_EXCEEDED")
    assert refuse(429, body, retry_after=2).retry_after == 2


@pytest.mark.parametrize(
    ("body", "kind", "error_type"),
    [
        ({"message": CONTEXT}, "ValidationException", "ValidationException"),
        ({"Message": CONTEXT}, "ValidationException:http://internal.amazon.com/coral/", "ValidationException"),
        ({"Message": CONTEXT}, "", "upstream_error"),
        (OPENAI, "ValidationException", "invalid_request_error"),
    ],
)
def test_aws_says_in_a_header_what_kind_of_error_it_is(body: Any, kind: str, error_type: str) -> None:
    error = refuse(400, body, kind=kind)
    assert (error.status, error.upstream_status, error.message, error.error_type) == (400, 400, CONTEXT, error_type)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, {"message": "The security token included in the request is expired"}, "ExpiredTokenException"),
        (403, {"message": "The request signature does not match."}, "InvalidSignatureException"),
        (400, {"message": "Authorization=AWS4-HMAC-SHA256 Credential=AKIA1"}, "IncompleteSignatureException"),
        (403, {"Message": "Authentication failed: Please make sure your API Key is valid."}, ""),
    ],
)
def test_what_aws_calls_a_wrong_credential(status: int, body: Any, kind: str) -> None:
    error = refuse(status, body, kind=kind)
    assert (error.status, error.upstream_status, error.code) == (502, 401, "upstream_credential_refused")


def test_who_may_not_ask_a_model_has_no_wrong_credential() -> None:
    """Another look-up would not help."""
    error = refuse(403, {"message": "User: arn:… is not authorized"}, kind="AccessDeniedException")
    assert (error.upstream_status, error.code) == (403, "upstream_credential_refused")
    assert "arn:" not in error.message


def test_google_calls_a_wrong_key_a_bad_request() -> None:
    error = refuse(400, google_error({"reason": "API_KEY_INVALID"}))
    assert (error.status, error.upstream_status, error.code) == (502, 401, "upstream_credential_refused")
    assert CONTEXT not in error.message
    assert refuse(403, google_error({"reason": "API_KEY_SERVICE_BLOCKED"})).upstream_status == 403
