"""Gemini behind the gateway: through its public door, with bytes of Google's form from a real HTTP server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from lexora.providers.gemini import GeminiDialect
from lexora.providers.table import PROVIDERS
from tests.support.client import HELLO, UPSTREAM_KEY, events, post, sdk, text_of
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.in_process import InProcess
from tests.support.recorded import (
    RECORDED,
    STREAM_END,
    STREAM_HEAD,
    Action,
    Close,
    RecordedUpstream,
    json_response,
    piece,
)

IN_BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def recording(name: str) -> bytes:
    return (RECORDED / "gemini" / name).read_bytes()


def pieces(name: str) -> list[bytes]:
    return [event + b"\r\n\r\n" for event in recording(name).split(b"\r\n\r\n") if event]


def stream(name: str) -> list[Action]:
    return [STREAM_HEAD, *map(piece, pieces(name)), STREAM_END]


@pytest.fixture(scope="module")
def gateway(_upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    gemini = {"provider": "gemini", "base_url": _upstream.base_url}
    config = models_config(
        m={**gemini, "model": "gemini-2.5-pro"},
        dear={**gemini, "model": "gemini-2.5-pro", "price": {"input": 100, "output": 100}},
        new={**gemini, "model": "gemini-of-tomorrow"},
        also={**gemini, "model": "gemini-2.5-pro", "credential": "env:OTHER_KEY", "query": {"a b": "c&d"}},
    )
    config["models"]["spare"] = {"deployments": [{**gemini, "model": "first"}, {**gemini, "model": "second"}]}
    # Google's own programs take the key from either variable.
    env = {"GOOGLE_API_KEY": UPSTREAM_KEY, "OTHER_KEY": "another-key"}
    with running_gateway(tmp_path_factory.mktemp("gemini"), config, env=env) as running:
        yield running


def test_a_plain_answer(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(recording("answer.json"))])
    found = sdk(gateway).chat.completions.create(model="m", messages=[HELLO])  # type: ignore[list-item]
    (received,) = upstream.received
    assert received.path == "/v1/models/gemini-2.5-pro:generateContent"
    assert received.headers["x-goog-api-key"] == UPSTREAM_KEY
    assert "authorization" not in received.headers
    assert received.json() == {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    message = found.choices[0].message
    assert message.content == "I'll look both up."
    assert [call.function.name for call in message.tool_calls or ()] == ["get_weather", "now"]  # type: ignore[union-attr]
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3472, 120)


def test_what_an_answer_cost_by_googles_list(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    """1,472 fresh tokens at $1.25, 2,000 cached ones at $0.125, 120 at $10, thoughts among them."""
    upstream.play([json_response(recording("answer.json"))])
    costs = {}
    for model in ("m", "dear", "new"):
        response = post(gateway, model=model)
        costs[model] = gateway.record_of(response.headers["x-request-id"])["cost_usd"]
    assert costs["m"] == pytest.approx((1472 * 1.25 + 2000 * 0.125 + 120 * 10) / 1e6, abs=1e-12)
    assert costs["dear"] == pytest.approx(3592 * 100 / 1e6, abs=1e-12)
    assert costs["new"] is None


def test_a_stream(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play(stream("text.sse"))
    response = post(gateway, stream=True, stream_options={"include_usage": True})
    (received,) = upstream.received
    assert received.path == "/v1/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    *chunks, done = events(response)
    assert done == "[DONE]"
    assert text_of(chunks) == "The capital of Japan is 東京."
    assert chunks[-1]["usage"]["total_tokens"] == 17
    record = gateway.record_of(response.headers["x-request-id"])
    assert (record["outcome"], record["tokens_in"], record["tokens_out"]) == ("completed", 9, 8)


def test_tools_streamed_and_their_results_sent_back(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    """As an agent does it with OpenAI's SDK: what it got goes back as it was, signature and all."""
    upstream.play(stream("thinking-and-tools.sse"), stream("text.sse"))
    client = sdk(gateway)
    conversation: list[Any] = [HELLO]
    with client.chat.completions.stream(model="m", messages=conversation, tools=[TOOL]) as running:
        message = running.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [
        {"city": "San Francisco, CA", "unit": "celsius"},
        {"city": "東京"},
        {},
    ]
    conversation.append(message.model_dump(exclude_none=True, exclude={"parsed", "refusal"}))
    for number, call in enumerate(message.tool_calls):
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": f"result {number}"})
    with client.chat.completions.stream(model="m", messages=conversation, tools=[TOOL]) as running:
        assert running.get_final_completion().choices[0].message.content == "The capital of Japan is 東京."
    _, calls, results = upstream.received[1].json()["contents"]
    assert calls["parts"][1] == {
        "functionCall": {
            "id": "8f2b1a3c",
            "name": "get_weather",
            "args": {"city": "San Francisco, CA", "unit": "celsius"},
        },
        "thoughtSignature": "CiQB0e2Kb3c9XkQ=",
    }
    assert [part["functionResponse"] for part in results["parts"]] == [
        {"id": id_, "name": name, "response": {"output": f"result {number}"}}
        for number, (id_, name) in enumerate(
            [("8f2b1a3c", "get_weather"), ("8f2b1a3d", "get_weather"), ("8f2b1a3e", "now")]
        )
    ]


@pytest.mark.parametrize("bare", [False, True], ids=["event", "bare"])
def test_an_error_in_a_stream(bare: bool, upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    error = recording("error-overloaded.json")
    framed = error if bare else b"data: " + error.replace(b"\n", b"") + b"\r\n\r\n"
    upstream.play([STREAM_HEAD, piece(pieces("text.sse")[0]), piece(framed), STREAM_END])
    *chunks, last = events(post(gateway, stream=True))
    assert text_of(chunks) == "The capital"
    assert last["error"]["message"] == "The model is overloaded. Please try again later."
    assert last["error"]["type"] == "UNAVAILABLE"


def test_a_cut_stream_is_not_passed_off_as_complete(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    for end in ([Close()], [STREAM_END]):
        upstream.play([STREAM_HEAD, *map(piece, pieces("text.sse")[:2]), *end])
        response = post(gateway, stream=True)
        *chunks, last = events(response)
        assert text_of(chunks) == "The capital of Japan is "
        assert last["error"]["code"] == "upstream_broken"
        assert gateway.record_of(response.headers["x-request-id"])["outcome"] == "failed"


def test_a_call_that_the_model_has_botched_goes_to_the_next(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    botched = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}]}
    upstream.play([json_response(botched)], [json_response(recording("logprobs.json"))])
    response = post(gateway, model="spare")
    assert response.json()["choices"][0]["message"]["content"] == "Hi!"
    assert response.headers["x-lexora-deployment"] == "gemini/second"


@IN_BOTH_WAYS
def test_a_prompt_too_long_for_it_is_known_as_such(
    streamed: bool, upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    message = "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."
    error = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    upstream.play([json_response(error, "400 Bad Request")])
    response = post(gateway, model="spare", stream=streamed)
    assert (response.status_code, response.json()["error"]["message"]) == (400, message)
    assert len(upstream.received) == 1  # the other one's context is no larger


@IN_BOTH_WAYS
def test_google_says_in_the_body_when_to_come_back(
    streamed: bool, upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    upstream.play([json_response(recording("error-quota.json"), "429 Too Many Requests")])
    with pytest.raises(openai.RateLimitError) as caught:
        sdk(gateway).chat.completions.create(model="m", messages=[HELLO], stream=streamed)  # type: ignore[call-overload]
    assert caught.value.response.headers["retry-after"] == "35"
    assert caught.value.type == "RESOURCE_EXHAUSTED"
    assert "exceeded your current quota" in caught.value.message


@IN_BOTH_WAYS
def test_a_wrong_key_is_the_gateways_affair(streamed: bool, upstream: RecordedUpstream) -> None:
    """Google calls it a bad request. It may have been changed: it is looked up again."""
    keys = iter(["old", "new"])
    with InProcess(
        upstream, provider="gemini", credential="env:KEY", credentials=lambda reference, fresh=False: next(keys)
    ) as gateway:
        upstream.play([json_response(recording("error-key.json"), "400 Bad Request")])
        response = post(gateway, stream=streamed)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_credential_refused"
    assert [received.headers["x-goog-api-key"] for received in upstream.received] == ["old", "new"]


def test_what_gemini_cannot_do_is_refused_before_anything_is_sent(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    response = post(gateway, logit_bias={"1": 5})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "logit_bias"
    assert upstream.received == []


def test_a_key_that_is_named_is_the_one_that_is_sent(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(recording("answer.json"))])
    post(gateway, model="also")
    assert upstream.received[0].headers["x-goog-api-key"] == "another-key"


def test_a_query_of_the_deployments_goes_behind_the_apis_own(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    upstream.play([json_response(recording("answer.json"))], stream("text.sse"))
    post(gateway, model="also")
    post(gateway, model="also", stream=True)
    assert [received.path.partition(":")[2] for received in upstream.received] == [
        "generateContent?a+b=c%26d",
        "streamGenerateContent?alt=sse&a+b=c%26d",
    ]


def test_the_row_in_the_table() -> None:
    row = PROVIDERS["gemini"]
    assert isinstance(row.dialect, GeminiDialect)
    assert row.dialect.headers(None) == {}
    assert (row.credential_env, row.credential_env_too, row.base_url_env) == (
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
    )


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_a_key_in_the_environment_is_enough(variable: str, upstream: RecordedUpstream, tmp_path: Path) -> None:
    upstream.play([json_response(recording("answer.json"))])
    env = {variable: UPSTREAM_KEY, "GOOGLE_GEMINI_BASE_URL": upstream.base_url.removesuffix("/v1")}
    with running_gateway(tmp_path, env=env) as gateway:
        response = post(gateway, model="gemini-2.5-flash")
        assert response.status_code == 200, response.text
        assert gateway.record_of(response.headers["x-request-id"])["cost_usd"] == pytest.approx(
            (1472 * 0.3 + 2000 * 0.03 + 120 * 2.5) / 1e6, abs=1e-12
        )
    assert upstream.received[0].path == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert upstream.received[0].headers["x-goog-api-key"] == UPSTREAM_KEY
