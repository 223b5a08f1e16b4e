"""Errors as clients of Anthropic's API get them: before an answer, instead of it, and in the middle of it."""

import json
from typing import Any

import anthropic
import httpx2
import jsonschema
import pytest

from tests.support.client import RawChat, anthropic_sdk
from tests.support.gateway import RunningGateway
from tests.support.messages import COUNT, LEAST, MESSAGES, WEATHER, anthropics, ask, error_of, post, refused, streaming
from tests.support.recorded import (
    STREAM_END,
    STREAM_HEAD,
    Action,
    Close,
    RecordedUpstream,
    Sleep,
    error_event,
    json_response,
    piece,
    recorded,
    stream,
    token,
)

BOTH = pytest.mark.parametrize("path", [MESSAGES, COUNT])


def test_a_prompt_that_is_too_long_for_the_model(gateway: RunningGateway) -> None:
    with pytest.raises(anthropic.BadRequestError, match="exceeds the available context size") as caught:
        ask(gateway, model="tiny", messages=[{"role": "user", "content": "hello world " * 50_000}])
    assert error_of(caught.value.body) == "invalid_request_error"


@BOTH
@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b"{}", {"content-type": "text/plain"}, (415, "invalid_request_error")),
        (b"{", {}, (400, "invalid_request_error")),
        (b'"\xff"', {}, (400, "invalid_request_error")),
        (b"[" * 100_000, {}, (413, "request_too_large")),
        (json.dumps({**LEAST, "model": "nobodys"}).encode(), {}, (404, "not_found_error")),
        (json.dumps({**LEAST, "tools": [{"type": "bash_20250124"}]}).encode(), {}, (400, "invalid_request_error")),
        (json.dumps({**LEAST, "messages": []}).encode(), {}, (400, "invalid_request_error")),
    ],
    ids=["no JSON by its header", "no JSON", "no UTF-8", "too large", "unknown model", "a tool of theirs", "nothing"],
)
def test_what_is_refused(path: str, content: bytes, headers: Any, expected: Any, web: httpx2.Client) -> None:
    headers = {"content-type": "application/json", **headers}
    assert refused(web.post(path, content=content, headers=headers)) == expected


def test_the_sdk_raises_what_it_has_for_each_error(web: httpx2.Client, site: RunningGateway) -> None:
    with anthropic_sdk(site.url) as client:
        with pytest.raises(anthropic.NotFoundError, match="'nobodys' does not exist") as missing:
            client.messages.create(**{**LEAST, "model": "nobodys"})
        assert missing.value.request_id == missing.value.body["request_id"]  # type: ignore[index]
        with pytest.raises(anthropic.InternalServerError) as unreachable:
            client.messages.create(**{**LEAST, "model": "chat"})
        assert unreachable.value.status_code == 502
        with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
            client.messages.create(**{**LEAST, "max_tokens": 0})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": None, "stream": True, "system": "x", "temperature": 0.5, "anything": {"else": 1}},
        {"system": [{"type": "text", "text": "x"}], "tool_choice": {"type": "auto"}, "tools": [WEATHER]},
        {"x_priority": "high", "x_user_id": "a", "x_timeout": 30},
        {"max_tokens": 0},
        {"max_tokens": "9"},
        {"max_tokens": None},
        {"messages": []},
        {"messages": "Hello"},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"model": 5},
        {"stream": "yes"},
        {"thinking": {"type": "enabled"}},
        {"tool_choice": {"type": "some"}},
        {"x_priority": "urgent"},
        {"x_timeout": 0},
    ],
)
def test_the_description_takes_what_the_gateway_takes(fields: dict[str, Any], web: httpx2.Client) -> None:
    api = web.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/MessagesRequest", "components": api["components"]}
    body = {**LEAST, "model": "chat", **fields}
    response = web.post(MESSAGES, json=body)
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == (response.status_code != 400)
    described = api["paths"][MESSAGES]["post"]["responses"][str(response.status_code)]
    errors = described["content"]["application/json"]["schema"]
    jsonschema.validate(response.json(), {**errors, "components": api["components"]}, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("script", "model", "expected"),
    [
        ([json_response({"error": {"message": "slow down"}}, "429 Too Many")], "m", (429, "rate_limit_error")),
        (
            [json_response({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "529 Overloaded")],
            "claude",
            (503, "overloaded_error"),
        ),
        (recorded("http/vllm-unauthorized.http"), "m", (502, "api_error")),
        (recorded("http/vllm-messages-unknown-model.http"), "claude", (404, "not_found_error")),
        ([Close()], "m", (502, "api_error")),
    ],
    ids=["too much", "overloaded", "our key", "its model", "closed"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_errors_of_upstreams(
    script: list[Action], model: str, expected: Any, streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play(script)
    response = post(door, model=model, stream=streamed)
    assert response.headers["content-type"] == "application/json"
    assert refused(response) == expected


@pytest.mark.parametrize(
    ("script", "model", "kind"),
    [
        (stream(token("Hi"), error_event("it broke", code=500)), "m", "api_error"),
        ([STREAM_HEAD, piece(token("Hi")), Close()], "m", "api_error"),
        ([*anthropics("text.sse")[:6], Close()], "claude", "api_error"),
        (
            [
                *anthropics("text.sse")[:6],
                piece(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'),
                STREAM_END,
            ],
            "claude",
            "overloaded_error",
        ),
    ],
    ids=["an error", "a cut", "a cut of Anthropic's", "an error of Anthropic's"],
)
def test_a_stream_that_breaks_is_not_taken_for_whole(
    script: list[Action], model: str, kind: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play(script)
    text = ""
    with streaming(door, model=model) as running:
        with pytest.raises(anthropic.APIStatusError) as caught:
            for piece_ in running.text_stream:
                text += piece_
        request_id = running.response.headers["request-id"]
    assert text
    assert error_of(caught.value.body, request_id) == kind
    assert door.record_of(request_id)["outcome"] == "failed"


def test_a_client_that_leaves_a_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([STREAM_HEAD, piece(token("Hi")), Sleep(float("inf"))])
    with RawChat(door, {"stream": True, "max_tokens": 9}, path=MESSAGES.encode()) as client:
        received = client.read_until(b"text_delta")
        left = client.leave()
    assert upstream.wait_until_left() - left < 5
    request_id = received.partition(b"\r\nrequest-id: ")[2].partition(b"\r\n")[0].decode()
    record = door.record_of(request_id)
    assert (record["outcome"], record["tokens_out"]) == ("client_left", 1)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", MESSAGES, (405, "invalid_request_error")),
        ("POST", f"{MESSAGES}/", (404, "not_found_error")),
        ("POST", f"{MESSAGES}/batches", (404, "not_found_error")),
    ],
)
def test_a_path_or_method_that_there_is_not(method: str, path: str, expected: Any, web: httpx2.Client) -> None:
    assert refused(web.request(method, path)) == expected
