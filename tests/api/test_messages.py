"""Anthropic's API through a real gateway, as the anthropic SDK speaks and understands it."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import jsonschema
import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key
from lexora.core.model_map import Deployment
from tests.api.conftest import APP
from tests.support.client import HELLO, UPSTREAM_KEY, RawChat, anthropic_sdk
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.recorded import (
    DONE,
    RECORDED,
    STREAM_END,
    STREAM_HEAD,
    Action,
    Close,
    RecordedUpstream,
    Sleep,
    completion,
    error_event,
    finish,
    json_response,
    piece,
    recorded,
    stream,
    token,
    usage,
)

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
BOTH = pytest.mark.parametrize("path", [MESSAGES, COUNT])
KNOWN = {"role": "user", "content": "日本の首都は？"}
WEATHER = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
LEAST: dict[str, Any] = {"model": "m", "max_tokens": 12, "messages": [HELLO]}


def ask(gateway: RunningGateway, **fields: Any) -> Any:
    """The SDK's raw response; `.parse()` gives the message."""
    return anthropic_sdk(gateway.url).messages.with_raw_response.create(**{**LEAST, **fields})


def count(gateway: RunningGateway, **fields: Any) -> Any:
    fields = {"model": "m", "messages": [HELLO], **fields}
    return anthropic_sdk(gateway.url).messages.with_raw_response.count_tokens(**fields)


def post(gateway: RunningGateway, path: str = MESSAGES, headers: Any = None, **fields: Any) -> httpx2.Response:
    return httpx2.post(f"{gateway.url}{path}", json={**LEAST, **fields}, headers=headers, timeout=30)


def called(message: anthropic.types.Message) -> list[tuple[str, Any]]:
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def prompt_of(message: anthropic.types.Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def anthropics(name: str) -> list[Action]:
    """A stream of Anthropic's, an event at a time."""
    events = (RECORDED / "anthropic" / name).read_bytes().split(b"\n\n")
    return [STREAM_HEAD, *(piece(event + b"\n\n") for event in events if event), STREAM_END]


# --- the real llama.cpp ---


def test_a_message_plain_and_streamed(gateway: RunningGateway) -> None:
    fields = {"model": "tiny", "system": "Be brief.", "extra_body": {"temperature": 0}}
    answer = ask(gateway, **fields)
    plain = answer.parse()
    assert text_of(plain)
    assert (plain.model, plain.role, plain.stop_reason, plain.usage.output_tokens) == (
        *("tiny-chat", "assistant", "max_tokens", 12),
    )
    with anthropic_sdk(gateway.url).messages.stream(**{**LEAST, **fields}) as running:
        text = "".join(running.text_stream)
        streamed = running.get_final_message()
    assert text == text_of(streamed) == text_of(plain)
    assert (streamed.stop_reason, prompt_of(streamed), streamed.usage.output_tokens) == (
        *("max_tokens", prompt_of(plain), 12),
    )
    record = gateway.record_of(answer.headers["request-id"])
    assert (record["endpoint"], record["tokens_in"], record["tokens_out"]) == ("messages", prompt_of(plain), 12)


def test_the_asynchronous_client(gateway: RunningGateway) -> None:
    async def talk() -> tuple[anthropic.types.Message, anthropic.types.Message, int]:
        client = anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0)
        fields = {**LEAST, "model": "tiny", "extra_body": {"temperature": 0}}
        async with client:
            plain = await client.messages.create(**fields)
            async with client.messages.stream(**fields) as running:
                streamed = await running.get_final_message()
            counted = await client.messages.count_tokens(model="tiny", messages=[HELLO])  # type: ignore[list-item]
        return plain, streamed, counted.input_tokens

    plain, streamed, counted = asyncio.run(talk())
    assert text_of(plain) == text_of(streamed) != ""
    assert prompt_of(plain) == prompt_of(streamed) == counted


def test_a_tools_result_goes_back(gateway: RunningGateway) -> None:
    """The random model calls no tool by itself, so what it is told of one is what can be seen here."""
    answer = ask(gateway, model="tiny", **COUNTED["a tool's result"]).parse()
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 12)
    assert prompt_of(answer) > prompt_of(ask(gateway, model="tiny").parse()) + 50


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
    "a tool's result": {
        "messages": [
            HELLO,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "7 °C"}]},
        ],
        "tools": [WEATHER],
    },
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


def test_the_betas_of_the_sdk(gateway: RunningGateway) -> None:
    """As coding agents ask: the same paths with `?beta=true`, and a header."""
    client = anthropic_sdk(gateway.url).beta.messages
    fields: dict[str, Any] = {"model": "tiny", "messages": [HELLO], "betas": ["interleaved-thinking-2025-05-14"]}
    message = client.create(max_tokens=12, **fields)
    assert message.usage.output_tokens == 12
    prompt = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    assert client.count_tokens(**fields).input_tokens == prompt


def test_a_prompt_that_is_too_long_for_the_model(gateway: RunningGateway) -> None:
    with pytest.raises(anthropic.BadRequestError, match="exceeds the available context size") as caught:
        ask(gateway, model="tiny", messages=[{"role": "user", "content": "hello world " * 50_000}])
    assert error_of(caught.value.body) == "invalid_request_error"


# --- recorded upstreams ---


def test_an_openai_like_upstream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion("Hi."))])
    response = ask(door, model="paid", system="Be brief.", stop_sequences=["###"])
    (received,) = upstream.received
    assert received.path == "/v1/chat/completions"
    assert received.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert received.json() == {
        "model": "up",
        "messages": [{"role": "system", "content": "Be brief."}, HELLO],
        "max_completion_tokens": 12,
        "stop": ["###"],
    }
    message = response.parse()
    assert (text_of(message), message.usage.input_tokens, message.usage.output_tokens) == ("Hi.", 7, 3)
    assert response.headers["x-lexora-cost-usd"] == "0.000038000"
    assert response.headers["request-id"] == response.headers["x-request-id"]
    assert message.id == f"msg_{response.headers['request-id']}"


def test_an_openai_like_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(stream(token("Hi"), token("."), finish(), usage(7, 2), DONE))
    with anthropic_sdk(door.url).messages.stream(**LEAST) as running:
        kinds = [event.type for event in running]
        message = running.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert (text_of(message), message.stop_reason, message.usage.output_tokens) == ("Hi.", "end_turn", 2)
    assert running.response.headers["request-id"] == message.id.removeprefix("msg_")
    assert upstream.received[0].json()["stream_options"] == {"include_usage": True}


def test_tools_are_called_plain_and_streamed(upstream: RecordedUpstream, door: RunningGateway) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "set_light", "arguments": '{"room": "hall"}'}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls"}
    upstream.play([json_response(completion(choices=[choice]))])
    tools = {"tools": [{"name": "set_light", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"}}
    plain = ask(door, **tools).parse()
    assert (called(plain), plain.stop_reason) == ([("set_light", {"room": "hall"})], "tool_use")
    sent = upstream.received[0].json()
    assert sent["tools"] == [{"type": "function", "function": {"name": "set_light", "parameters": {"type": "object"}}}]
    assert sent["tool_choice"] == "required"
    events = (RECORDED / "openai" / "vllm-tools.sse").read_bytes()
    for said_by_chance, instead in ((b'"f"', b'"{\\"room\\""'), (b'"alse"', b'": \\"hall\\"}"')):
        assert said_by_chance in events
        events = events.replace(said_by_chance, instead)
    upstream.play([STREAM_HEAD, piece(events), STREAM_END])
    with anthropic_sdk(door.url).messages.stream(**{**LEAST, **tools}) as running:
        pieces = [event.partial_json for event in running if event.type == "input_json"]
        streamed = running.get_final_message()
    assert (called(streamed), streamed.stop_reason) == (called(plain), "tool_use")
    assert json.loads("".join(pieces)) == {"room": "hall"}


def test_anthropic_gets_what_was_sent_with_its_betas(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response((RECORDED / "anthropic" / "message.json").read_bytes())])
    fields: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": [{**WEATHER, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    }
    betas = "context-management-2025-06-27,interleaved-thinking-2025-05-14"
    headers = {"anthropic-beta": betas, "anthropic-version": "2023-06-01"}
    response = post(door, headers=headers, model="claude", **fields, x_user_id="u")
    (received,) = upstream.received
    assert (received.path, received.json()) == (MESSAGES, {**LEAST, **fields, "model": "up"})
    assert received.headers["anthropic-beta"] == betas
    assert received.headers["x-api-key"] == UPSTREAM_KEY
    message = anthropic.types.Message.model_validate_json(response.content)
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text", *["tool_use"] * 2]
    assert message.usage.cache_read_input_tokens == 2000


@pytest.mark.parametrize("betas", [None, "b\tad", "föö", "a,,b"])
def test_what_is_no_beta_is_not_passed_on(betas: str | None, upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response((RECORDED / "anthropic" / "message.json").read_bytes())])
    headers = {} if betas is None else {"anthropic-beta": betas.encode()}
    assert post(door, headers=headers, model="claude").status_code == 200
    assert "anthropic-beta" not in upstream.received[0].headers


def test_others_are_not_told_of_betas(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())])
    assert post(door, headers={"anthropic-beta": "context-1m-2025-08-07"}).status_code == 200
    assert "anthropic-beta" not in upstream.received[0].headers


def test_anthropics_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(anthropics("thinking-and-tools.sse"))
    with anthropic_sdk(door.url).messages.stream(**{**LEAST, "model": "claude"}) as running:
        message = running.get_final_message()
    thought = message.content[0]
    assert thought.type == "thinking"
    assert thought.signature == "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"
    assert called(message)
    assert message.stop_reason == "tool_use"
    assert prompt_of(message) == 2472


# --- tokens are counted or estimated ---


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


# --- errors ---


def error_of(body: Any, request_id: str | None = None) -> str:
    """The type of an error in Anthropic's envelope, which must be whole."""
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    assert body["error"]["message"]
    assert request_id is None or body["request_id"] == request_id
    kind: str = body["error"]["type"]
    return kind


def refused(response: httpx2.Response) -> tuple[int, str]:
    """Status and type, once the request's id is the same in the body and the headers."""
    assert response.headers["request-id"] == response.headers["x-request-id"]
    return response.status_code, error_of(response.json(), response.headers["request-id"])


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
    client = anthropic_sdk(site.url)
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
    errors = api["paths"][MESSAGES]["post"]["responses"]["default"]["content"]["application/json"]["schema"]
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
    with anthropic_sdk(door.url).messages.stream(**{**LEAST, "model": model}) as running:
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


# --- what the gateway adds ---


def test_prepared_answers(door: RunningGateway, upstream: RecordedUpstream) -> None:
    plain = ask(door, messages=[KNOWN], system=None)
    assert plain.headers["x-lexora-origin"] == "fixed"
    message = plain.parse()
    assert text_of(message)
    assert (message.model, message.stop_reason) == ("lexora/fixed", "end_turn")
    with anthropic_sdk(door.url).messages.stream(**{**LEAST, "messages": [KNOWN]}) as running:
        streamed = running.get_final_message()
        assert running.response.headers["x-lexora-origin"] == "fixed"
    assert text_of(streamed)
    assert streamed.usage.output_tokens > 0
    assert upstream.received == []


def test_extensions(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())])
    response = ask(door, extra_body={"x_priority": "low", "x_timeout": 9})
    assert not [name for name in upstream.received[0].json() if name.startswith("x_")]
    assert door.record_of(response.headers["request-id"])["priority"] == "low"
    upstream.play([Sleep(float("inf"))])
    assert refused(post(door, x_timeout=0.2)) == (504, "timeout_error")
    assert refused(post(door, x_timeout="soon")) == (400, "invalid_request_error")


@pytest.fixture(scope="module")
def locked(llamacpp: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, str]]:
    """A gateway that needs a key, and one that may use `tiny`, not `other`."""
    folder: Path = tmp_path_factory.mktemp("locked")
    (folder / "data").mkdir()
    store = SqliteKeys(folder / "data" / "lexora.db")
    key = create(store, new_key({"user_id": "ann", "models": ["tiny"]}), time.time(), "0" * 12, "s" * 43)[1]
    store.close()
    tiny = {"provider": "llamacpp", "base_url": llamacpp.base_url, "model": "tiny-chat"}
    config = {"auth": {"required": True}, **models_config(tiny=tiny, other=tiny)}
    with running_gateway(folder, config) as running:
        yield running, key


@BOTH
def test_a_key_in_either_header(path: str, locked: tuple[RunningGateway, str]) -> None:
    gateway, key = locked
    for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
        response = post(gateway, path, headers, model="tiny")
        assert response.status_code == 200
        if path == MESSAGES:
            assert gateway.record_of(response.headers["request-id"])["user_id"] == "ann"


def test_the_sdks_own_ways_to_show_a_key(locked: tuple[RunningGateway, str]) -> None:
    gateway, key = locked
    ways: list[dict[str, Any]] = [{"api_key": key}, {"auth_token": key}]
    for shown in ways:
        client = anthropic.Anthropic(base_url=gateway.url, max_retries=0, **shown)
        assert client.messages.create(**{**LEAST, "model": "tiny"}).usage.output_tokens == 12
    with pytest.raises(anthropic.AuthenticationError, match="not valid"):
        anthropic.Anthropic(base_url=gateway.url, api_key="sk-else").messages.create(**LEAST)


@BOTH
def test_without_a_key_or_the_right_to_a_model(path: str, locked: tuple[RunningGateway, str]) -> None:
    gateway, key = locked
    assert refused(post(gateway, path, model="tiny")) == (401, "authentication_error")
    assert refused(post(gateway, path, {"x-api-key": "sk-lexora-x-y"}, model="tiny")) == (401, "authentication_error")
    assert refused(post(gateway, path, {"x-api-key": key}, model="other")) == (403, "permission_error")


@BOTH
def test_a_script_of_a_site_that_is_configured_may_ask(path: str, web: httpx2.Client) -> None:
    asked = "x-api-key,anthropic-version,anthropic-dangerous-direct-browser-access,content-type"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": asked}
    allowed = web.options(path, headers={"origin": APP, **asks}).headers
    assert allowed["access-control-allow-origin"] == APP
    assert allowed["access-control-allow-headers"] == asked
    exposed = web.post(path, json={**LEAST, "messages": [KNOWN]}, headers={"origin": APP}).headers
    assert {"request-id", "x-lexora-tokens"} <= set(exposed["access-control-expose-headers"].split(", "))
