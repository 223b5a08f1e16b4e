"""Tokens of a prompt: counted by the upstream, or estimated."""

from typing import Any

import anthropic
import pytest

from tests.support.client import HELLO, UPSTREAM_KEY, RawChat
from tests.support.gateway import RunningGateway
from tests.support.messages import COUNT, TOOL_HISTORY, WEATHER, ask, count, post, prompt_of
from tests.support.recorded import Action, Close, RecordedUpstream, Sleep, completion, json_response

COUNTED: dict[str, dict[str, Any]] = {
    "a message": {},
    "a system prompt": {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
    "tools": {"tools": [WEATHER]},
    "thinking of its own": {
        "messages": [
            HELLO,
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "text", "text": "Hi."}],
            },
            HELLO,
        ],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    },
    "a tool's result": TOOL_HISTORY,
}


@pytest.mark.parametrize("what", COUNTED)
def test_what_is_counted_is_what_the_message_then_has(what: str, gateway: RunningGateway) -> None:
    response = count(gateway, model="tiny", **COUNTED[what])
    assert response.headers["x-lexora-tokens"] == "counted"
    fields = {**COUNTED[what]}
    if "thinking" in fields:
        fields |= {"max_tokens": 2100, "stop_sequences": ["e", "a", "o", " "]}
    assert response.parse().input_tokens == prompt_of(ask(gateway, model="tiny", **fields).parse())


def test_a_conversation_that_ends_with_an_answer_is_counted_and_not_gone_on_with(gateway: RunningGateway) -> None:
    answered = {"model": "tiny", "messages": [HELLO, {"role": "assistant", "content": "Hello."}]}
    response = count(gateway, **answered)
    assert response.headers["x-lexora-tokens"] == "counted"
    assert response.parse().input_tokens > count(gateway, model="tiny").parse().input_tokens
    with pytest.raises(anthropic.BadRequestError, match="End with a user message"):
        ask(gateway, **answered)


@pytest.mark.parametrize(("model", "key"), [("m", None), ("llamacpp", None), ("claude", UPSTREAM_KEY)])
def test_upstreams_that_count_are_asked_with_the_fields_that_they_take(
    model: str, key: str | None, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    # What vLLM 0.25 answers.
    upstream.play([json_response({"input_tokens": 19, "context_management": {"original_input_tokens": 19}})])
    fields: dict[str, Any] = {
        "system": "Be brief.",
        "tools": [WEATHER],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"effort": "low"},
    }
    others: dict[str, Any] = {
        "metadata": {"user_id": "u"},
        "stream": True,
        "top_k": 5,
        "x_user_id": "u",
        "x_priority": "high",
    }
    response = post(door, COUNT, {"anthropic-beta": "effort-2025-11-24"}, model=model, **fields, **others)
    assert (response.status_code, response.json()) == (200, {"input_tokens": 19})
    assert response.headers["x-lexora-tokens"] == "counted"
    assert response.headers["request-id"] == response.headers["x-request-id"]
    (received,) = upstream.received
    assert received.path == COUNT
    assert received.json() == {"model": "up", "messages": [HELLO], **fields}
    assert received.headers.get("x-api-key") == key
    assert received.headers["anthropic-beta"] == "effort-2025-11-24"
    assert received.headers["x-request-id"] == response.headers["x-request-id"]


NOT_COUNTED: dict[str, list[Action]] = {
    "no such path": [json_response({"detail": "Not Found"}, "404 Not Found")],
    "too much": [json_response({"type": "error", "error": {"type": "rate_limit_error"}}, "429 Too Many Requests")],
    "no count": [json_response({"tokens": 19})],
    "no JSON": [json_response(b"<html>")],
    "cut off": [json_response({"input_tokens": 19})[:-4], Close()],
}


@pytest.mark.parametrize("what", NOT_COUNTED)
def test_a_count_that_does_not_come_is_estimated(what: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(NOT_COUNTED[what])
    response = count(door)
    assert response.headers["x-lexora-tokens"] == "estimated"
    assert 2 <= response.parse().input_tokens <= 20
    assert len(upstream.received) == 1


@pytest.mark.parametrize("model", ["ollama", "paid", "dead"])
def test_who_cannot_count_is_not_asked(model: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    response = count(door, model=model)
    assert response.headers["x-lexora-tokens"] == "estimated"
    assert upstream.received == []


def test_an_estimate_sees_tools_and_images(door: RunningGateway) -> None:
    def estimate(**fields: Any) -> int:
        tokens: int = count(door, model="paid", **fields).parse().input_tokens
        return tokens

    hello = estimate()
    described = {**WEATHER, "description": "word " * 800}
    assert estimate(tools=[described]) == pytest.approx(hello + 1000, abs=40)
    assert estimate(system="word " * 800) == pytest.approx(hello + 1000, abs=40)
    assert estimate(messages=[{"role": "user", "content": "東京" * 500}]) == pytest.approx(hello + 1000, abs=5)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    assert estimate(messages=[{"role": "user", "content": [image]}]) == pytest.approx(hello + 1600, abs=40)


def test_a_count_is_no_request_of_a_model(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """It has no record: nothing ran, and nothing is billed."""
    upstream.play([json_response({"input_tokens": 19})])
    ids = [count(door).headers["request-id"] for _ in range(3)]
    upstream.play([json_response(completion())])
    door.record_of(ask(door).headers["request-id"])  # the one after them is written
    assert not {record["request_id"] for record in door.records()} & set(ids)


def test_a_client_that_does_not_wait_for_its_count(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([Sleep(float("inf"))])
    with RawChat(door, {}, path=COUNT.encode()) as client:
        upstream.wait_until_received()
        client.leave()
    upstream.wait_until_left()
