"""Anthropic's API through a real gateway, as the anthropic SDK speaks and understands it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key
from lexora.core.model_map import Deployment
from tests.api.conftest import APP
from tests.support.client import HELLO, UPSTREAM_KEY, anthropic_sdk
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.messages import (
    COUNT,
    LEAST,
    MESSAGES,
    TOOL_HISTORY,
    WEATHER,
    anthropics,
    ask,
    called,
    post,
    prompt_of,
    refused,
    streaming,
    text_of,
)
from tests.support.recorded import (
    DONE,
    RECORDED,
    STREAM_END,
    STREAM_HEAD,
    RecordedUpstream,
    Sleep,
    completion,
    finish,
    json_response,
    piece,
    stream,
    token,
    usage,
)

BOTH = pytest.mark.parametrize("path", [MESSAGES, COUNT])
KNOWN = {"role": "user", "content": "日本の首都は？"}


# --- the real llama.cpp ---


def test_a_message_plain_and_streamed(gateway: RunningGateway) -> None:
    fields = {"model": "tiny", "system": "Be brief.", "extra_body": {"temperature": 0}}
    answer = ask(gateway, **fields)
    plain = answer.parse()
    assert text_of(plain)
    assert (plain.model, plain.role, plain.stop_reason, plain.usage.output_tokens) == (
        *("tiny-chat", "assistant", "max_tokens", 12),
    )
    with streaming(gateway, **fields) as running:
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
    answer = ask(gateway, model="tiny", **TOOL_HISTORY).parse()
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 12)
    assert prompt_of(answer) > prompt_of(ask(gateway, model="tiny").parse()) + 50


def test_the_betas_of_the_sdk(gateway: RunningGateway) -> None:
    """As coding agents ask: the same paths with `?beta=true`, and a header."""
    client = anthropic_sdk(gateway.url).beta.messages
    fields: dict[str, Any] = {"model": "tiny", "messages": [HELLO], "betas": ["interleaved-thinking-2025-05-14"]}
    message = client.create(max_tokens=12, **fields)
    assert message.usage.output_tokens == 12
    prompt = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    assert client.count_tokens(**fields).input_tokens == prompt


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
    with streaming(door) as running:
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
    with streaming(door, **tools) as running:
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
    with streaming(door, model="claude") as running:
        message = running.get_final_message()
    thought = message.content[0]
    assert thought.type == "thinking"
    assert thought.signature == "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"
    assert called(message)
    assert message.stop_reason == "tool_use"
    assert prompt_of(message) == 2472


# --- what the gateway adds ---


def test_prepared_answers(door: RunningGateway, upstream: RecordedUpstream) -> None:
    plain = ask(door, messages=[KNOWN], system=None)
    assert plain.headers["x-lexora-origin"] == "fixed"
    message = plain.parse()
    assert text_of(message)
    assert (message.model, message.stop_reason) == ("lexora/fixed", "end_turn")
    with streaming(door, messages=[KNOWN]) as running:
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
        with anthropic.Anthropic(base_url=gateway.url, max_retries=0, **shown) as client:
            assert client.messages.create(**{**LEAST, "model": "tiny"}).usage.output_tokens == 12
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="sk-else") as client,
        pytest.raises(anthropic.AuthenticationError, match="not valid"),
    ):
        client.messages.create(**LEAST)


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


def test_the_cold_start_of_a_function_goes_without_this_door() -> None:
    names = "[name for name in sys.modules if name.startswith('lexora.providers.messages_door')]"
    code = f"import sys, lexora.entry.aws, lexora.api.app; print({names})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
