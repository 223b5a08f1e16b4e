"""Bedrock behind the gateway: through its public door, with bytes of AWS's form from a real HTTP server."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from lexora.providers.bedrock import BedrockDialect
from lexora.providers.sigv4 import Identity
from lexora.providers.table import PROVIDERS
from tests.providers.test_sigv4 import by_botocore
from tests.support.client import HELLO, UPSTREAM_KEY, anthropic_sdk, events, post, sdk, text_of
from tests.support.eventstream import failure, of
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.in_process import InProcess
from tests.support.recorded import (
    RECORDED,
    STREAM_END,
    Action,
    Close,
    Received,
    RecordedUpstream,
    json_response,
    piece,
)

IN_BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-6"
ROLE = Identity("ASIAEXAMPLE", "role/secret+", "IQoJb3JpZ2luX2VjE/+==")
ODD = {"query": {"a b": "c&d"}, "headers": {"x-amzn-t": "a"}}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n"
    b"x-amzn-requestid: 1\r\n\r\n"
)


def recording(name: str) -> bytes:
    return (RECORDED / "bedrock" / name).read_bytes()


def framed(name: str) -> list[bytes]:
    return [of(*json.loads(line)) for line in recording(name).splitlines()]


def stream(name: str) -> list[Action]:
    return [STREAM_HEAD, *map(piece, framed(name)), STREAM_END]


def refusal(kind: str, message: str, status: str) -> bytes:
    """An error as AWS reports it, with its kind in a header."""
    return json_response({"message": message}, status, f"x-amzn-errortype: {kind}:http://internal.amazon.com/x/\r\n")


@pytest.fixture(scope="module")
def gateway(_upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    bedrock = {"provider": "bedrock", "base_url": _upstream.base_url.removesuffix("/v1")}
    config = models_config(
        m={**bedrock, "model": PROFILE},
        nova={**bedrock, "model": "amazon.nova-pro-v1:0", "price": {"input": 0.8, "output": 3.2, "cached_input": 0.2}},
        key={**bedrock, "model": "amazon.nova-pro-v1:0", "credential": "env:AWS_BEARER_TOKEN_BEDROCK"},
        odd={
            **bedrock,
            "base_url": _upstream.base_url,
            "model": "m",
            "query": {"a b": "c&d"},
            "headers": {"x-amzn-t": "a"},
        },
    )
    config["models"]["spare"] = {"deployments": [{**bedrock, "model": "first"}, {**bedrock, "model": "second"}]}
    sizes = {"small": 1_000, "large": 200_000}
    config["models"]["grows"] = {
        "deployments": [{**bedrock, "model": name, "context_window": size} for name, size in sizes.items()]
    }
    env = {
        "AWS_ACCESS_KEY_ID": ROLE.key_id,
        "AWS_SECRET_ACCESS_KEY": ROLE.secret,
        "AWS_SESSION_TOKEN": ROLE.token,
        "AWS_REGION": "eu-west-1",
        "AWS_BEARER_TOKEN_BEDROCK": UPSTREAM_KEY,
    }
    with running_gateway(tmp_path_factory.mktemp("bedrock"), config, env=env) as running:
        yield running


def assert_signed(received: Received, **others: str) -> None:
    """That botocore makes the same signature for what was received, at the moment that it says it was signed."""
    headers = {"host": received.headers["host"], "content-type": "application/json", **others}
    moment = received.headers["x-amz-date"]
    theirs = by_botocore(ROLE, headers, received.path, received.body, region="eu-west-1", moment=moment)
    assert {name: received.headers[name] for name in theirs} == theirs
    assert received.headers["x-amz-security-token"] == ROLE.token


def test_a_plain_answer(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(recording("answer.json"))])
    found = sdk(gateway).chat.completions.create(model="m", messages=[HELLO])  # type: ignore[list-item]
    (received,) = upstream.received
    assert received.path == (
        "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.anthropic.claude-sonnet-4-6"
        "/converse"
    )
    assert received.json() == {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
    assert_signed(received)
    message = found.choices[0].message
    assert message.content == "I'll look both up."
    assert [call.function.name for call in message.tool_calls or ()] == ["get_weather", "now"]  # type: ignore[union-attr]
    assert found.model == PROFILE
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3472, 120)


def test_what_an_answer_cost(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    """472 fresh tokens and 1,000 written to the cache at $0.8, 2,000 read from it at $0.2, 120 at $3.2."""
    upstream.play([json_response(recording("answer.json"))])
    costs = {}
    for model in ("nova", "m"):
        response = post(gateway, model=model)
        record = gateway.record_of(response.headers["x-request-id"])
        assert (record["provider"], record["origin"]) == ("bedrock", "paid")
        costs[model] = record["cost_usd"]
    assert costs["nova"] == pytest.approx((1472 * 0.8 + 2000 * 0.2 + 120 * 3.2) / 1e6, abs=1e-12)
    assert costs["m"] is None


def test_a_stream(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play(stream("text.jsonl"))
    response = post(gateway, stream=True, stream_options={"include_usage": True})
    (received,) = upstream.received
    assert received.path.endswith("/converse-stream")
    assert_signed(received)
    *chunks, done = events(response)
    assert done == "[DONE]"
    assert text_of(chunks) == "The capital of Japan is 東京."
    assert {chunk["model"] for chunk in chunks} == {PROFILE}
    assert chunks[-1]["usage"]["total_tokens"] == 17
    record = gateway.record_of(response.headers["x-request-id"])
    assert (record["outcome"], record["tokens_in"], record["tokens_out"]) == ("completed", 9, 8)


@pytest.mark.parametrize("size", [1, 5, 100, 10_000])
def test_a_stream_however_it_is_cut(size: int, upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    whole = b"".join(framed("text.jsonl"))
    upstream.play([STREAM_HEAD, *(piece(whole[at : at + size]) for at in range(0, len(whole), size)), STREAM_END])
    *chunks, done = events(post(gateway, stream=True))
    assert (text_of(chunks), done) == ("The capital of Japan is 東京.", "[DONE]")


def test_tools_streamed_and_their_results_sent_back(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    """As an agent does it with OpenAI's SDK."""
    upstream.play(stream("thinking-and-tools.jsonl"), stream("text.jsonl"))
    client = sdk(gateway)
    conversation: list[Any] = [HELLO]
    with client.chat.completions.stream(model="m", messages=conversation, tools=[TOOL]) as running:
        message = running.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [
        {"city": "San Francisco, CA", "unit": "celsius"},
        {},
    ]
    conversation.append(message.model_dump(exclude_none=True, exclude={"parsed", "refusal"}))
    for number, call in enumerate(message.tool_calls):
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": f"result {number}"})
    with client.chat.completions.stream(model="m", messages=conversation, tools=[TOOL]) as running:
        assert running.get_final_completion().choices[0].message.content == "The capital of Japan is 東京."
    _, calls, results = upstream.received[1].json()["messages"]
    ids = ["tooluse_Ol8GSGSJR7Sh5PFyrVD5fg", "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q"]
    assert [block["toolUse"]["toolUseId"] for block in calls["content"][1:]] == ids
    assert results["content"] == [
        {"toolResult": {"toolUseId": id_, "content": [{"text": f"result {number}"}]}} for number, id_ in enumerate(ids)
    ]


def test_a_guardrail_that_steps_in(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(recording("guardrail.json"))], stream("guardrail.jsonl"))
    plain = post(gateway).json()["choices"][0]
    *chunks, _ = events(post(gateway, stream=True))
    assert plain["message"]["content"] == text_of(chunks) == "Sorry, the model cannot answer this question."
    assert plain["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("message", "told", "kind"),
    [
        (of("throttlingException", {"message": "Too many tokens."}), "Too many tokens.", "throttlingException"),
        (of("modelStreamErrorException", {"message": "Worn out."}), "Worn out.", "modelStreamErrorException"),
        (failure("InternalFailure", "Broken."), "Broken.", "InternalFailure"),
    ],
)
def test_an_error_in_a_stream(
    message: bytes, told: str, kind: str, upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    upstream.play([STREAM_HEAD, *map(piece, framed("text.jsonl")[:2]), piece(message), STREAM_END])
    *chunks, last = events(post(gateway, stream=True))
    assert text_of(chunks) == "The capital"
    assert (last["error"]["message"], last["error"]["type"]) == (told, kind)


def test_a_cut_stream_is_not_passed_off_as_complete(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    half = framed("text.jsonl")[3][:-5]
    for end in ([Close()], [STREAM_END], [piece(half), STREAM_END]):
        upstream.play([STREAM_HEAD, *map(piece, framed("text.jsonl")[:3]), *end])
        response = post(gateway, stream=True)
        *chunks, last = events(response)
        assert text_of(chunks) == "The capital of Japan is "
        assert last["error"]["code"] == "upstream_broken"
        assert gateway.record_of(response.headers["x-request-id"])["outcome"] == "failed"


def test_damage_on_the_way_is_found_and_what_came_before_it_is_kept(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    first, second, third, *rest = framed("text.jsonl")
    damaged = third[:-6] + b"x" + third[-5:]
    upstream.play([STREAM_HEAD, piece(first + second + damaged), *map(piece, rest), STREAM_END])
    *chunks, last = events(post(gateway, stream=True))
    assert text_of(chunks) == "The capital"
    assert (last["error"]["code"], last["error"]["message"]) == (
        "upstream_broken",
        "The upstream's event stream is damaged.",
    )


def test_a_message_that_is_no_json_is_left_out(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    first, *rest = framed("text.jsonl")
    upstream.play([STREAM_HEAD, *map(piece, [first, of("contentBlockDelta", b"{"), *rest]), STREAM_END])
    response = post(gateway, stream=True)
    assert text_of(events(response)[:-1]) == "The capital of Japan is 東京."
    assert b": the upstream sent an event that is not JSON" in response.content


def test_an_answer_whose_counts_were_cut_off_is_complete(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([STREAM_HEAD, *map(piece, framed("text.jsonl")[:-1]), Close()])
    *chunks, done = events(post(gateway, stream=True))
    assert (text_of(chunks), done) == ("The capital of Japan is 東京.", "[DONE]")


@IN_BOTH_WAYS
def test_awss_errors(streamed: bool, upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    for kind, status, ours in (
        ("ValidationException", "400 Bad Request", 400),
        ("ResourceNotFoundException", "404 Not Found", 404),
        ("ModelErrorException", "424 Failed Dependency", 502),
        ("ModelTimeoutException", "408 Request Timeout", 504),
        ("ServiceUnavailableException", "503 Service Unavailable", 503),
    ):
        upstream.play([refusal(kind, f"It is a {kind}.", status)])
        response = post(gateway, stream=streamed)
        error = response.json()["error"]
        assert (response.status_code, error["message"], error["type"]) == (ours, f"It is a {kind}.", kind)


@IN_BOTH_WAYS
def test_throttling(streamed: bool, upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([refusal("ThrottlingException", "Too many requests.", "429 Too Many Requests")])
    with pytest.raises(openai.RateLimitError, match="Too many requests"):
        sdk(gateway).chat.completions.create(model="m", messages=[HELLO], stream=streamed)  # type: ignore[call-overload]


@IN_BOTH_WAYS
def test_a_prompt_too_long_for_it_goes_to_a_larger_one(
    streamed: bool, upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    refused = refusal("ValidationException", "Input is too long for requested model.", "400 Bad Request")
    upstream.play([refused], stream("text.jsonl") if streamed else [json_response(recording("text.json"))])
    response = post(gateway, model="grows", stream=streamed)
    assert (response.status_code, response.headers["x-lexora-deployment"]) == (200, "bedrock/large")


def test_an_answer_that_the_model_has_botched_goes_to_the_next(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    botched = {**json.loads(recording("text.json")), "stopReason": "malformed_tool_use"}
    upstream.play([json_response(botched)], [json_response(recording("text.json"))])
    response = post(gateway, model="spare")
    assert response.json()["choices"][0]["message"]["content"] == "The capital of Japan is 東京."
    assert response.headers["x-lexora-deployment"] == "bedrock/second"


@pytest.mark.parametrize(
    ("kind", "message", "status"),
    [
        (
            "AccessDeniedException",
            "User: arn:aws:sts::123456789012:assumed-role/x is not authorized to perform: bedrock:InvokeModel",
            "403 Forbidden",
        ),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "403 Forbidden"),
        ("InvalidSignatureException", f"The Canonical String should have been {ROLE.token}", "403 Forbidden"),
        ("IncompleteSignatureException", f"Authorization={ROLE.key_id}", "400 Bad Request"),
    ],
)
def test_who_the_gateway_is_at_aws_is_its_own_affair(
    kind: str, message: str, status: str, upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    upstream.play([refusal(kind, message, status)])
    response = post(gateway)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_credential_refused")
    assert not any(part in response.text for part in ("123456789012", ROLE.key_id, ROLE.token))
    assert len(upstream.received) == 1


def test_a_key_instead_of_a_signature(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(recording("text.json"))], stream("text.jsonl"))
    assert post(gateway, model="key").status_code == 200
    assert post(gateway, model="key", stream=True).status_code == 200
    for received in upstream.received:
        assert received.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert not any(name.startswith("x-amz") for name in received.headers)


@IN_BOTH_WAYS
def test_a_wrong_key_may_have_been_changed(streamed: bool, upstream: RecordedUpstream) -> None:
    keys = iter(["old", "new"])
    with InProcess(
        upstream,
        provider="bedrock",
        base_url=upstream.base_url,
        credential="env:KEY",
        credentials=lambda reference, fresh=False: next(keys),
    ) as gateway:
        said = {"Message": "Authentication failed: Please make sure your API Key is valid."}
        upstream.play([json_response(said, "403 Forbidden")])
        response = post(gateway, stream=streamed)
    assert response.json()["error"]["code"] == "upstream_credential_refused"
    assert [received.headers["authorization"] for received in upstream.received] == ["Bearer old", "Bearer new"]


def test_what_a_deployment_adds_is_signed_too(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(recording("text.json"))])
    assert post(gateway, model="odd").status_code == 200
    (received,) = upstream.received
    assert received.path == "/v1/model/m/converse?a+b=c%26d"
    assert_signed(received, **{"x-amzn-t": "a"})


def test_what_bedrock_cannot_do_is_refused_before_anything_is_sent(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    response = post(gateway, logit_bias={"1": 5})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "logit_bias"
    assert upstream.received == []


def test_anthropics_sdk_can_use_it_too(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play(stream("thinking-and-tools.jsonl"))
    client = anthropic_sdk(gateway.url)
    tool: Any = {"name": "get_weather", "input_schema": {"type": "object"}}
    with client.messages.stream(model="m", max_tokens=100, messages=[HELLO], tools=[tool]) as running:  # type: ignore[list-item]
        message = running.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content if block.type == "tool_use"] == [
        {"city": "San Francisco, CA", "unit": "celsius"},
        {},
    ]
    assert upstream.received[0].json()["inferenceConfig"] == {"maxTokens": 100}


def test_an_agent_of_anthropics_keeps_its_cache_and_its_thoughts(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    """Two turns, with Anthropic's marks: without them, every token of a long prompt is paid for in full again."""
    kept: Any = {"cache_control": {"type": "ephemeral"}}
    hour: Any = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    asked: Any = {
        "model": "m",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", **hour}],
        "tools": [
            {"name": "now", "input_schema": {"type": "object"}},
            {"name": "get_weather", "input_schema": {}, **kept},
        ],
    }
    client = anthropic_sdk(gateway.url)
    hello: Any = {"role": "user", "content": [{"type": "text", "text": "Hello", **kept}]}
    upstream.play(stream("thinking-and-tools.jsonl"), [json_response(recording("text.json"))])
    with client.messages.stream(messages=[hello], **asked) as running:
        answer = running.get_final_message()
    thought, text, first, second = answer.content
    assert thought.model_dump() == {
        "type": "thinking",
        "thinking": "Two cities, two calls.",
        "signature": "EqQBCkgIBRABGAIiQL",
    }
    results: Any = [
        {"type": "tool_result", "tool_use_id": first.id, "content": "18"},  # type: ignore[union-attr]
        {"type": "tool_result", "tool_use_id": second.id, "content": "noon", **kept},  # type: ignore[union-attr]
    ]
    said: Any = [thought, text, first, {**second.model_dump(), **kept}]
    client.messages.create(
        messages=[hello, {"role": "assistant", "content": said}, {"role": "user", "content": results}], **asked
    )
    turn = upstream.received[1].json()
    point, for_an_hour = {"cachePoint": {"type": "default"}}, {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert turn["system"] == [{"text": "Be brief."}, {"text": "Be kind."}, for_an_hour]
    assert turn["toolConfig"]["tools"][2] == point
    user, assistant, after = (message["content"] for message in turn["messages"])
    assert user == [{"text": "Hello"}, point]
    assert assistant[0] == {
        "reasoningContent": {
            "reasoningText": {"text": "Two cities, two calls.", "signature": "EqQBCkgIBRABGAIiQL"},
        }
    }
    assert [next(iter(block)) for block in assistant[1:]] == ["text", "toolUse", "toolUse", "cachePoint"]
    assert [next(iter(block)) for block in after] == ["toolResult", "toolResult", "cachePoint"]
    assert after[1]["toolResult"]["content"] == [{"text": "noon"}]


def test_models_that_are_not_anthropics_get_no_marks(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    """Most refuse them."""
    upstream.play([json_response(recording("text.json"))])
    said: Any = [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]
    anthropic_sdk(gateway.url).messages.create(model="nova", max_tokens=9, messages=[{"role": "user", "content": said}])
    assert upstream.received[0].json()["messages"] == [{"role": "user", "content": [{"text": "Hello"}]}]


def test_the_row_in_the_table() -> None:
    row = PROVIDERS["bedrock"]
    assert isinstance(row.dialect, BedrockDialect)
    assert row.dialect.headers(None) == {}
    assert (row.origin, row.base_url, row.credential_env) == ("paid", None, None)
