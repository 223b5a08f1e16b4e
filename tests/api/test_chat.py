"""Chat completions through a real gateway: what arrives upstream, and what comes back."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key
from lexora.core.model_map import Deployment
from tests.support.client import HELLO, UPSTREAM_KEY, anthropic_sdk, chat_body, events, post, sdk
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.in_process import KNOWN_PROMPT, InProcess
from tests.support.recorded import RECORDED, STREAM_END, STREAM_HEAD, RecordedUpstream, completion, json_response, piece

PNG = "iVBORw0KGgo="
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Where is this?"}, IMAGE]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "7 °C"},
    {"role": "user", "content": "And now?"},
]
EVERYTHING: dict[str, Any] = {
    "messages": CONVERSATION,
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": WEATHER, "strict": True}},
    "logprobs": True,
    "top_logprobs": 3,
    "n": 2,
    "seed": 7,
    "stop": ["\n"],
    "temperature": 0.1,
    "max_completion_tokens": 9,
    "logit_bias": {"5": -100},
    "user": "somebody",
    "metadata": {"a": "b"},
}


def ask(gateway: RunningGateway, **fields: Any) -> Any:
    """The SDK's raw response; `.parse()` gives the completion."""
    return sdk(gateway).chat.completions.with_raw_response.create(**{"model": "m", "messages": [HELLO], **fields})


# --- what arrives upstream ---


@pytest.mark.parametrize(("model", "key"), [("m", None), ("llamacpp", None), ("ollama", None), ("paid", UPSTREAM_KEY)])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_every_openai_like_upstream_gets_the_request_as_it_was_sent(
    model: str, key: str | None, streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    body = [STREAM_HEAD, piece(b"data: [DONE]\n\n"), STREAM_END] if streamed else [json_response(completion())]
    upstream.play(body)
    stream = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    fields = {**EVERYTHING, **stream}
    if model == "ollama":  # which does nothing with them: they are refused
        for name in ("tool_choice", "parallel_tool_calls", "n", "logit_bias"):
            del fields[name]
    ask(door, model=model, extra_body={"top_k": 5, "x_user_id": "u", "x_timeout": 9}, **fields)
    (received,) = upstream.received
    assert received.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert received.headers.get("authorization") == (key and f"Bearer {key}")
    sent = {**fields, "top_k": 5, "model": "up"}
    if model == "ollama":  # which passes over the newer name
        sent["max_tokens"] = sent.pop("max_completion_tokens")
    assert received.json() == sent


def test_unknown_fields_arrive_byte_for_byte_and_extensions_do_not(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    untouched = [
        b'"big": 123456789012345678901234567890',
        b'"small": 0.10000000000000000001',
        b'"beyond": 1e400',
        b'"spaced" : [ 1 ,\t2 ]'.replace(b" :", b":"),
        b'"escaped": "\\u00e9\\/\\ud83d\\uddfb"',
        '"written": "é/🗻"'.encode(),
        b'"within": {"x_priority": "stays", "model": "stays"}',
        b'"xtra": 1',
        b'"deep": ' + b"[" * 500 + b"]" * 500,
    ]
    upstream.play([json_response(completion())])
    content = (
        b'{"x_priority": "high", "messages": [{"role": "user", "content": "Hello", "x_own": 1}], "model": "m", '
        b'"x_mine": {"a": 1}, "\\u0078_hidden": 1, "x_": null, ' + b", ".join(untouched) + b', "x_user_id": "u"}'
    )
    assert post(door, content).status_code == 200
    sent = upstream.received[0].body
    for field in untouched:
        name, _, value = field.partition(b": ") if b": " in field else field.partition(b":")
        assert name + b":" + value in sent, field
    assert json.loads(sent)["messages"] == [{"role": "user", "content": "Hello", "x_own": 1}]
    assert {name for name in json.loads(sent) if name.startswith("x")} == {"xtra"}


def test_the_request_id_reaches_the_upstream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())])
    response = post(door)
    assert upstream.received[0].headers["x-request-id"] == response.headers["x-request-id"]


def test_a_prompt_of_a_megabyte(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())])
    text = "0123456789 東京" * 70_000
    assert ask(door, messages=[{"role": "user", "content": text}]).parse().choices[0].message.content == "Hello."
    assert upstream.received[0].json()["messages"][0]["content"] == text


def test_a_prompt_of_a_megabyte_that_waits_to_be_asked_for(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """`Expect: 100-continue`, as curl says of large bodies; and in chunks."""
    upstream.play([json_response(completion())])
    body = json.dumps(chat_body(messages=[{"role": "user", "content": "x" * 1_000_000}])).encode()
    with socket.create_connection(("127.0.0.1", door.port), 10) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"".join(piece(body[i : i + 10_000]) for i in range(0, len(body), 10_000)) + STREAM_END)
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(upstream.received[0].json()["messages"][0]["content"]) == 1_000_000


def test_a_prompt_that_is_too_long_for_the_model(gateway: RunningGateway) -> None:
    """The real server's own error, with what it said."""
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size") as caught:
        ask(gateway, model="tiny", messages=[{"role": "user", "content": "hello world " * 50_000}])
    assert caught.value.type == "exceed_context_size_error"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"model": "m", "messages": ' + b"[" * 100_000, 400, "invalid_value"),
        (
            json.dumps(chat_body(metadata=None)).encode().replace(b"null", b"[" * 90_000 + b"]" * 90_000),
            400,
            "invalid_json",
        ),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}', 400, "invalid_utf8"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "invalid_json"),
        (b"", 400, "invalid_json"),
        (b"[]", 400, "invalid_value"),
    ],
    ids=["deep", "deep where nobody looks", "invalid UTF-8", "half a character", "nothing", "no object"],
)
def test_what_is_no_request_never_reaches_an_upstream(
    content: bytes, status: int, code: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    response = post(door, content)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert upstream.received == []


# --- what comes back ---


def test_an_answer_is_the_upstreams_own_bytes(upstream: RecordedUpstream, door: RunningGateway) -> None:
    body = json.dumps(
        completion("é", model="what-answered", id="theirs", extra={"a": [1.0, 10**30]}), indent=1
    ).encode()
    upstream.play([json_response(body)])
    response = post(door)
    assert response.content == body
    record = door.record_of(response.headers["x-request-id"])
    assert (record["model"], record["upstream_model"]) == ("m", "what-answered")
    assert record["deployment"] == response.headers["x-lexora-deployment"] == "vllm/up"


def test_model_and_id_are_consistent_throughout_a_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([STREAM_HEAD, piece((RECORDED / "openai" / "vllm.sse").read_bytes()), STREAM_END])
    chunks = list(sdk(door).chat.completions.create(model="m", messages=[HELLO], stream=True))  # type: ignore[list-item]
    assert len(chunks) > 5
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"tiny-chat"}


@pytest.mark.parametrize(
    ("model", "usage", "origin", "header", "cost"),
    [
        ("m", {"prompt_tokens": 1000, "completion_tokens": 50}, "own", "0", 0),
        ("paid", {"prompt_tokens": 1000, "completion_tokens": 50}, "paid", "0.002400000", 0.0024),
        (
            "paid",
            {"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 800}},
            "paid",
            "0.001200000",
            0.0012,
        ),
        ("unpriced", {"prompt_tokens": 1000, "completion_tokens": 50}, "paid", None, None),
    ],
)
def test_headers_say_where_an_answer_came_from_and_what_it_cost(
    model: str,
    usage: dict[str, Any],
    origin: str,
    header: str | None,
    cost: float | None,
    upstream: RecordedUpstream,
    door: RunningGateway,
) -> None:
    upstream.play([json_response(completion(usage=usage))])
    response = post(door, model=model)
    assert response.headers["x-lexora-origin"] == origin
    assert response.headers["x-lexora-deployment"] == ("vllm/up" if model == "m" else "openai/up")
    assert response.headers.get("x-lexora-cost-usd") == header
    record = door.record_of(response.headers["x-request-id"])
    assert record["cost_usd"] == (None if cost is None else pytest.approx(cost))
    assert (record["tokens_in"], record["tokens_out"]) == (1000, 50)
    assert (record["origin"], record["usage_estimated"]) == (origin, 0)


def test_request_ids_are_unique_and_in_order(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())])
    ids = [post(door).headers["x-request-id"] for _ in range(20)]
    assert ids == sorted(set(ids))


def test_an_answer_without_usage_is_estimated(upstream: RecordedUpstream, door: RunningGateway) -> None:
    answer = completion()
    del answer["usage"]
    upstream.play([json_response(answer)])
    record = door.record_of(post(door).headers["x-request-id"])
    assert (record["tokens_in"], record["usage_estimated"]) == (2, 1)


class BrokenStore:
    """Prepared answers that cannot be read."""

    async def get(self, prompt: str, variant: int) -> str | None:
        raise OSError("the table is not there")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_without_its_prepared_answers_a_known_prompt_is_forwarded(
    streamed: bool, upstream: RecordedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    body = [STREAM_HEAD, piece(b"data: [DONE]\n\n"), STREAM_END] if streamed else [json_response(completion())]
    upstream.play(body)
    with InProcess(upstream, answers=BrokenStore()) as gateway:
        response = post(gateway, messages=[{"role": "user", "content": KNOWN_PROMPT}], stream=streamed)
    assert (response.status_code, response.headers["x-lexora-origin"]) == (200, "own")
    (record,) = gateway.records
    assert (record.outcome, record.origin, record.deployment) == ("completed", "own", "vllm/up")
    said = f"request {record.request_id}: the prepared answers cannot be read: the table is not there"
    assert [(line.levelname, line.getMessage(), line.exc_info) for line in caplog.records] == [("ERROR", said, None)]


# --- the real llama.cpp, asked directly and through the gateway ---

ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "system message": {"messages": [{"role": "system", "content": "Be brief."}, HELLO]},
    "two choices": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "seed": {"temperature": 1.5, "seed": 7},
    "stop": {"stop": ["E"]},
    "JSON schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"verdict": {"enum": ["yes"]}}}},
        },
        "max_tokens": 60,
    },
    "tools": {"tools": [TOOL], "tool_choice": "required"},
    "a tool's result": {"messages": [HELLO, *CONVERSATION[2:4]], "tools": [TOOL]},
    "its own parameter": {"extra_body": {"min_p": 0.3, "top_k": 3}},
}


@pytest.fixture(scope="module")
def direct(llamacpp: Deployment) -> openai.OpenAI:
    return openai.OpenAI(base_url=llamacpp.base_url, api_key="none", max_retries=0)


@pytest.mark.parametrize("what", ASKED)
def test_an_answer_is_the_same_as_without_a_gateway(what: str, direct: openai.OpenAI, gateway: RunningGateway) -> None:
    fields = {"model": "tiny-chat", "messages": [HELLO], "max_tokens": 8, "temperature": 0, **ASKED[what]}
    # What the server has cached shows in its arithmetic.
    fields["extra_body"] = {**fields.get("extra_body", {}), "cache_prompt": False}

    def answers(client: openai.OpenAI) -> tuple[Any, Any]:
        plain = client.chat.completions.create(**fields)
        usage = {"stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**{**fields, **usage, "stream": True}))
        assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens
        # One after the other: of several choices, tokens come in no certain order.
        deltas = sorted((choice.model_dump() for chunk in chunks for choice in chunk.choices), key=lambda c: c["index"])
        counts = (plain.usage.prompt_tokens, plain.usage.completion_tokens)
        return (plain.model, [choice.model_dump() for choice in plain.choices], counts), (chunks[0].model, deltas)

    assert answers(sdk(gateway)) == answers(direct)


def test_a_plain_answer_is_recorded_with_the_real_servers_count(gateway: RunningGateway) -> None:
    answer = ask(gateway, model="tiny", max_tokens=5)
    parsed = answer.parse()
    assert parsed.model == "tiny-chat"
    record = gateway.record_of(answer.headers["x-request-id"])
    assert record["tokens_out"] == parsed.usage.completion_tokens == 5
    assert record["tokens_in"] == parsed.usage.prompt_tokens


# --- Anthropic's dialect, against llama.cpp's own /v1/messages ---


@pytest.fixture(scope="module")
def translating(llamacpp: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that speaks Anthropic's dialect to llama.cpp."""
    deployment = {"provider": "anthropic", "base_url": llamacpp.base_url, "model": "tiny-chat", "credential": None}
    with running_gateway(tmp_path_factory.mktemp("translating"), models_config(claude=deployment)) as running:
        yield running


# The model is random and calls no tool by itself, so its answer is begun for it; from there the server holds it to
# the schema.
BEGUN = [HELLO, {"role": "assistant", "content": "<tool_call>\n"}]
LAMP = {
    "type": "object",
    "properties": {
        "room": {"enum": ["hall", "küche"]},
        "on": {"type": "boolean"},
        "hours": {"type": "array", "items": {"enum": [7, 22.5]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["room", "on", "hours"],
    "additionalProperties": False,
}
IN_ANTHROPICS_WORDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({"messages": [HELLO]}, {"messages": [HELLO]}),
    "a system message": (
        {"messages": [HELLO], "system": "Be brief."},
        {"messages": [{"role": "system", "content": "Be brief."}, HELLO]},
    ),
    "a tool call": (
        {
            "messages": BEGUN,
            "tools": [{"name": "set_lamp", "input_schema": LAMP}],
            "tool_choice": {"type": "any"},
            "max_tokens": 1000,
        },
        {
            "messages": BEGUN,
            "tools": [{"type": "function", "function": {"name": "set_lamp", "parameters": LAMP}}],
            "tool_choice": "required",
            "max_tokens": 1000,
        },
    ),
    "a tool's result": (
        {
            "messages": [
                HELLO,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Oslo"}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "7 °C"}]},
            ],
            "tools": [{"name": "get_weather", "description": "Weather", "input_schema": WEATHER}],
        },
        {"messages": [HELLO, *CONVERSATION[2:4]], "tools": [TOOL]},
    ),
}


def seen_by_anthropic(message: anthropic.types.Message) -> tuple[str, list[tuple[str, Any]], tuple[int, int], str]:
    """Text, tool calls, usage and model, as the anthropic SDK reads them."""
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    prompt = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    return text, calls, (prompt, message.usage.output_tokens), str(message.model)


def seen_by_openai(answer: Any) -> tuple[str, list[tuple[str, Any]], tuple[int, int], str]:
    """The same as the openai SDK reads them."""
    message = answer.choices[0].message
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    return message.content or "", calls, (answer.usage.prompt_tokens, answer.usage.completion_tokens), answer.model


@pytest.mark.parametrize("what", IN_ANTHROPICS_WORDS)
def test_both_sdks_read_the_same_from_one_upstream(
    what: str, llamacpp: Deployment, translating: RunningGateway
) -> None:
    """The anthropic SDK directly, the openai SDK through the gateway; plain and streamed."""
    theirs, ours = IN_ANTHROPICS_WORDS[what]
    theirs = {"model": "tiny-chat", "max_tokens": 12, "extra_body": {"temperature": 0}, **theirs}
    ours = {"model": "claude", "max_tokens": 12, "temperature": 0, **ours}
    direct, through = anthropic_sdk(llamacpp.base_url), sdk(translating)

    direct.messages.create(**theirs)  # what the server has cached shows in its arithmetic
    expected = seen_by_anthropic(direct.messages.create(**theirs))
    with direct.messages.stream(**theirs) as streamed:
        assert seen_by_anthropic(streamed.get_final_message()) == expected
    assert expected[2][1] > 0
    if what == "a tool call":
        assert expected[1]
        assert all(name == "set_lamp" and lamp.keys() == {"room", "on", "hours"} for name, lamp in expected[1])
    else:
        assert expected[0]

    assert seen_by_openai(through.chat.completions.create(**ours)) == expected
    with through.chat.completions.stream(**ours, stream_options={"include_usage": True}) as stream:
        for _ in stream:
            answer = stream.current_completion_snapshot
    assert seen_by_openai(answer) == expected
    assert answer.choices[0].finish_reason == ("tool_calls" if what == "a tool call" else "length")


def test_anthropics_usage_is_counted_when_nobody_asked(translating: RunningGateway) -> None:
    response = post(translating, model="claude", stream=True, max_tokens=12, temperature=0)
    *chunks, last = events(response)
    assert last == "[DONE]"
    assert not any("usage" in chunk for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["model"] for chunk in chunks} == {"tiny-chat"}
    record = translating.record_of(response.headers["x-request-id"])
    assert (record["tokens_out"], record["usage_estimated"]) == (12, 0)
    assert record["tokens_in"] > 5


def test_anthropic_gets_tools_and_images_in_its_own_form(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """To Anthropic's address, with its headers; images of the user's and of a tool's."""
    upstream.play([json_response(json.loads((RECORDED / "anthropic" / "message.json").read_bytes()))])
    in_a_result = {"role": "tool", "tool_call_id": "call_1", "content": [IMAGE]}
    answer = ask(door, model="claude", messages=[*CONVERSATION[:3], in_a_result], tools=[TOOL], max_tokens=99).parse()
    assert answer.choices[0].message.role == "assistant"
    (received,) = upstream.received
    assert received.path == "/v1/messages"
    assert received.headers["x-api-key"] == UPSTREAM_KEY
    assert received.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in received.headers
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    assert received.json() == {
        "model": "up",
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Where is this?"}, picture]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Oslo"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": [picture]}]},
        ],
        "tools": [{"name": "get_weather", "description": "Weather", "input_schema": WEATHER}],
    }


def test_what_anthropic_cannot_do_is_refused_before_it_is_asked(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    response: httpx2.Response = post(door, model="claude", n=2)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"
    assert upstream.received == []


def test_a_key_says_whose_request_it_is_and_how_urgent_it_may_be(folder: Path, upstream: RecordedUpstream) -> None:
    """`x_user_id` counts only for a key that may speak for others, and `x_priority` never above the key's own."""
    upstream.play([json_response(completion())])
    store = SqliteKeys(folder / "data" / "lexora.db")
    rights: dict[str, dict[str, Any]] = {"own": {"models": ["m"]}, "others": {"on_behalf": True, "priority": "high"}}
    made = {
        name: create(store, new_key({"user_id": "ann", **more}), 1.0, f"{number:012x}", "s" * 43)[1]
        for number, (name, more) in enumerate(rights.items())
    }
    store.close()
    own = {"provider": "vllm", "base_url": upstream.base_url, "model": "up"}
    with running_gateway(folder, {"auth": {"required": True}, **models_config(m=own, other=own)}) as gateway:

        def ask(key: str, **fields: Any) -> httpx2.Response:
            headers = {"authorization": f"Bearer {made[key]}"}
            return httpx2.post(f"{gateway.url}/v1/chat/completions", json=chat_body(**fields), headers=headers)

        def recorded_as(response: httpx2.Response) -> tuple[str, str]:
            record = gateway.record_of(response.headers["x-request-id"])
            return record["user_id"], record["priority"]

        assert recorded_as(ask("own", x_user_id="bob", x_priority="high")) == ("ann", "normal")
        assert recorded_as(ask("own", x_priority="low")) == ("ann", "low")
        assert recorded_as(ask("others", x_user_id="bob")) == ("bob", "high")
        refused = ask("own", model="other")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        assert httpx2.get(f"{gateway.url}/stats").status_code == 401
