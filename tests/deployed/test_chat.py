"""Chats through every door of a deployed environment: prepared, forwarded, failing, large."""

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.client import events
from tests.support.deployment import ORIGIN, Environment
from tests.support.recorded import RecordedUpstream, completion, json_response

pytestmark = pytest.mark.timeout(600)
CAPITAL = "日本の首都はどこですか？"
CAPITALS = {text for (prompt, _), text in load_prepared(SHIPPED)[1].items() if prompt == CAPITAL}
HELLO: Any = [{"role": "user", "content": "Hello"}]
EVERY_DOOR = pytest.mark.parametrize("door", ["chat", "stream", "cdn"])


@EVERY_DOOR
def test_a_prepared_answer(dev: Environment, door: str) -> None:
    with dev.sdk(door) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": CAPITAL}]
        )
    assert raw.parse().choices[0].message.content in CAPITALS
    assert ChatCompletion.model_validate_json(raw.content, strict=True)
    assert raw.headers["x-lexora-origin"] == "fixed"
    assert raw.headers["x-lexora-deployment"].startswith("fixed/q1_capital/")
    assert raw.headers["x-lexora-cost-usd"] == "0"
    record = dev.record(raw.headers["x-request-id"])
    assert (record["origin"], record["status"], record["outcome"]) == ("fixed", "200", "completed")
    assert int(record["expires_at"]) > 1_700_000_000


@EVERY_DOOR
def test_an_answer_of_the_gpu_host(dev: Environment, door: str) -> None:
    """A real llama.cpp on this machine."""
    with dev.sdk(door) as client:
        raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=8)
    answer = raw.parse()
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert raw.headers["x-lexora-origin"] == "own"
    record = dev.record(raw.headers["x-request-id"])
    assert (record["origin"], record["tokens_out"], record["attempts"]) == ("own", "8", "1")


@EVERY_DOOR
@pytest.mark.parametrize("model", ["chat", "tiny"])
def test_a_streamed_answer_is_complete(dev: Environment, door: str, model: str) -> None:
    """Through the buffered door, and everywhere on the emulator, all of it comes at once."""
    messages: Any = [{"role": "user", "content": CAPITAL}] if model == "chat" else HELLO
    with dev.sdk(door) as client:
        chunks = list(client.chat.completions.create(model=model, messages=messages, max_tokens=8, stream=True))
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[-1].finish_reason in ("stop", "length")
    if model == "chat":
        assert "".join(choice.delta.content or "" for choice in choices) in CAPITALS


def test_the_gpu_host_gets_its_key_from_secrets_manager(dev: Environment, upstream: RecordedUpstream) -> None:
    upstream.play([json_response(completion("from the host"))])
    with dev.client("chat") as client:
        response = client.post("/v1/chat/completions", json={"model": "m", "messages": HELLO})
    assert response.json()["choices"][0]["message"]["content"] == "from the host"
    (received,) = upstream.received
    assert received.headers["authorization"] == "Bearer the-gpu-host's-key"
    assert received.json()["model"] == "up"


@EVERY_DOOR
def test_a_secret_that_is_not_set(dev: Environment, door: str) -> None:
    with dev.sdk(door) as client, pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="paid", messages=HELLO)
    assert failed.value.status_code == 503
    assert failed.value.code == "credential_missing"
    assert "NAME=OPENAI_API_KEY" in failed.value.message


@EVERY_DOOR
def test_an_upstream_that_is_down(dev: Environment, door: str) -> None:
    with dev.sdk(door) as client, pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="dead", messages=HELLO)
    assert failed.value.status_code == 502
    assert failed.value.code == "upstream_unreachable"


@EVERY_DOOR
def test_a_megabyte_goes_through(dev: Environment, upstream: RecordedUpstream, door: str) -> None:
    upstream.play([json_response(completion("read"))])
    text = "京都" * (1024 * 1024 // 6) + '"\\\n'
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()
    assert len(body) > 1024 * 1024
    with dev.client(door) as client:
        response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200
    (received,) = upstream.received
    assert received.json()["messages"] == [{"role": "user", "content": text}]


@EVERY_DOOR
def test_errors_are_the_gateways_own(dev: Environment, door: str) -> None:
    with dev.client(door) as client:
        unknown = client.post("/v1/chat/completions", json={"model": "nobody-has-it", "messages": HELLO})
        broken = client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
        nowhere = client.get("/v1/nothing")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert broken.status_code == 400
    assert broken.json()["error"]["type"] == "invalid_request_error"
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "not_found")


@EVERY_DOOR
def test_models_and_health(dev: Environment, door: str) -> None:
    with dev.sdk(door) as client:
        assert {"tiny", "open", "m", "dead", "paid"} == {model.id for model in client.models.list()}
    if door == "cdn":
        return  # the emulator takes /health for its own, whatever the host
    with dev.client(door) as client:
        health = client.get("/health").json()
    assert (health["status"], health["prepared_prompts"]) == ("healthy", 10)


@EVERY_DOOR
def test_a_page_of_an_allowed_origin_may_ask(dev: Environment, door: str) -> None:
    asks = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    with dev.client(door) as client:
        preflight = client.options("/v1/chat/completions", headers=asks)
        assert preflight.status_code in (200, 204)
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        body = {"messages": [{"role": "user", "content": CAPITAL}]}
        answer = client.post("/v1/chat/completions", json=body, headers={"origin": ORIGIN})
        # The emulator adds its own to the app's; API Gateway puts its own in the app's place.
        assert set(answer.headers.get_list("access-control-allow-origin")) == {ORIGIN}
        assert "x-lexora-origin" in answer.headers["access-control-expose-headers"]


@EVERY_DOOR
def test_a_page_of_another_origin_may_not(dev: Environment, blue: Environment, door: str) -> None:
    """`blue` lets nobody in."""
    for environment, origin in ((dev, "https://evil.example"), (blue, ORIGIN)):
        with environment.client(door) as client:
            asks = {"origin": origin, "access-control-request-method": "POST"}
            assert "access-control-allow-origin" not in client.options("/v1/chat/completions", headers=asks).headers
            assert "access-control-allow-origin" not in client.get("/health", headers={"origin": origin}).headers


def test_a_stream_at_the_buffered_door_is_events(dev: Environment) -> None:
    body = {"messages": [{"role": "user", "content": CAPITAL}], "stream": True}
    with dev.client("chat") as client:
        response = client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert events(response)[-1] == "[DONE]"
