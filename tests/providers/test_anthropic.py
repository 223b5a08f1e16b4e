"""The Anthropic dialect against the wire formats that the two official SDKs describe.

In `tests/recorded/anthropic`, `llamacpp.*` and `vllm.*` are what those servers sent; the others are written to
Anthropic's documentation.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import anthropic.types as wire
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import BaseModel, TypeAdapter

from lexora.core.chat import parse_chat_request
from lexora.core.errors import InvalidRequest, UpstreamBroken, UpstreamRefused
from lexora.core.usage import Usage
from lexora.providers import anthropic_request
from lexora.providers.anthropic import AnthropicDialect
from lexora.providers.dialect import ChunkReader, MalformedEvent
from lexora.providers.sse import EventDecoder
from lexora.providers.table import PROVIDERS

RECORDED = Path(__file__).parents[1] / "recorded" / "anthropic"
STREAMS = sorted(path.name for path in RECORDED.glob("*.sse"))
ANSWERS = sorted(path.name for path in RECORDED.glob("*.json"))

NOW = 1_795_260_267
DIALECT = AnthropicDialect(clock=lambda: NOW + 0.9)
# Fields of ours that OpenAI's objects do not have.
BESIDE_OPENAIS = {"reasoning_content", "stop_reason", "thinking_blocks"}

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
HELLO = {"role": "user", "content": "Hello"}
PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjcK"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
SENT_TOOL = {"name": "get_weather", "description": "Weather", "input_schema": WEATHER}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}

SDK_REQUEST = TypeAdapter[Any](wire.message_create_params.MessageCreateParams)
SDK_EVENT = TypeAdapter[Any](wire.RawMessageStreamEvent)
# Version 2023-06-01 of the API takes these, the SDK is of the version after it.
SAMPLING = {"temperature", "top_p", "top_k"}


def plain(value: Any) -> Any:
    """A validated value as JSON has it; pydantic validates an Iterable only while it is walked."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(exclude_unset=True))
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value


def request(**fields: Any) -> Any:
    return parse_chat_request(json.dumps({"messages": [HELLO], **fields}).encode())


def sent(**fields: Any) -> dict[str, Any]:
    """The body that goes out for `fields`, once the SDK's types have found nothing wrong or unknown in it."""
    path, body, _ = DIALECT.chat_request(request(**fields), "claude-sonnet-5-5")
    assert path == "/messages"
    out: dict[str, Any] = json.loads(body)
    known = {name: value for name, value in out.items() if name not in SAMPLING}
    assert plain(SDK_REQUEST.validate_python(known)) == known
    return out


def sent_messages(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = sent(messages=list(messages))["messages"]
    return turns


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.chat_request(request(**fields), "claude-sonnet-5-5")
    assert caught.value.status == 400
    return caught.value


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def tool_result(of_call: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": of_call, "content": content}


# --- the request ---------------------------------------------------------------------------------------------------


def test_the_least_request() -> None:
    assert sent(model="claude") == {"model": "claude-sonnet-5-5", "max_tokens": 16_384, "messages": [HELLO]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"max_completion_tokens": None, "max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 0}, {"max_tokens": 0}),
        ({"stop": "###"}, {"stop_sequences": ["###"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"stop": []}, {}),
        ({"temperature": 0.25, "top_p": 0.5}, {"temperature": 0.25, "top_p": 0.5}),
        ({"temperature": 1}, {"temperature": 1}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"stream": False}, {"stream": False}),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        ({"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
        ({"reasoning_effort": "medium"}, {"output_config": {"effort": "medium"}}),
        ({"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
        ({"reasoning_effort": "xhigh"}, {"output_config": {"effort": "xhigh"}}),
        ({"reasoning_effort": "max"}, {"output_config": {"effort": "max"}}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {
                "reasoning_effort": "high",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "w", "strict": True, "description": "A place", "schema": WEATHER},
                },
            },
            {
                "output_config": {
                    "effort": "high",
                    "format": {"type": "json_schema", "schema": {"description": "A place", **WEATHER}},
                }
            },
        ),
        ({"tools": []}, {}),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}, {}),
        ({"tools": [TOOL]}, {"tools": [SENT_TOOL]}),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [SENT_TOOL], "tool_choice": {"type": "auto"}}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tools": [SENT_TOOL], "tool_choice": {"type": "none"}}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [SENT_TOOL], "tool_choice": {"type": "any"}}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            {"tools": [SENT_TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}},
        ),
        ({"tools": [TOOL], "parallel_tool_calls": True}, {"tools": [SENT_TOOL]}),
        (
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [SENT_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        (
            {
                "tools": [TOOL],
                "parallel_tool_calls": False,
                "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
            },
            {
                "tools": [SENT_TOOL],
                "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
            },
        ),
        (
            {"tools": [TOOL], "parallel_tool_calls": False, "tool_choice": "none"},
            {"tools": [SENT_TOOL], "tool_choice": {"type": "none"}},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "now", "strict": True}}]},
            {"tools": [{"name": "now", "input_schema": {"type": "object"}, "strict": True}]},
        ),
        (
            {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]},
            {"tools": [{**SENT_TOOL, "cache_control": {"type": "ephemeral"}}]},
        ),
    ],
)
def test_what_a_field_becomes(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    least = {"model": "claude-sonnet-5-5", "max_tokens": 16_384, "messages": [HELLO]}
    assert sent(**fields) == {**least, **expected}


HARMLESS = [
    {"n": 1},
    {"logprobs": False},
    {"top_logprobs": 0},
    {"logit_bias": {}},
    {"presence_penalty": 0, "frequency_penalty": 0.0},
    {"modalities": ["text"]},
    {"verbosity": "medium"},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"store": True, "metadata": {"user_id": "not Anthropic's business"}},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit"}},
    {"safety_identifier": "s"},
    {"stream_options": {"include_obfuscation": False}},
    {"functions": []},
    {"parallel_tool_calls": False},
    {"tool_choice": "none"},
    {"x_priority": "high", "x_user_id": "u"},
]


@pytest.mark.parametrize("fields", HARMLESS)
def test_a_field_that_does_not_change_the_answer_is_not_sent(fields: dict[str, Any]) -> None:
    assert sent(**fields) == sent()


def test_null_is_as_good_as_absent() -> None:
    openai_fields = set(get_type_hints(CompletionCreateParamsStreaming)) - {"messages", "model"}
    assert len(openai_fields) > 30
    assert sent(**dict.fromkeys(openai_fields | {"thinking", "top_k"})) == sent()


def test_tools_that_are_not_allowed_are_not_offered() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    name = TOOL["function"]["name"]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": name}}]}
    found = sent(tools=[TOOL, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert ([tool["name"] for tool in found["tools"]], found["tool_choice"]) == ([name], {"type": "any"})


REFUSED = {
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"50256": -100},
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "seed": 0,
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "moderation": {"model": "omni-moderation-latest"},
    "verbosity": "low",
    "web_search_options": {},
    "service_tier": "flex",
    "functions": [{"name": "f"}],
    "function_call": "auto",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_anthropic_cannot_follow_is_refused(name: str) -> None:
    error = refusal(**{name: REFUSED[name]})
    assert error.param == name
    assert f"'{name}'" in error.message
    assert "Leave it out" in error.message or "Send" in error.message or "Ask" in error.message


def test_every_field_of_openai_is_decided_upon() -> None:
    # Fails when a new release of OpenAI's SDK brings a field: decide whether it is mapped, harmless or refused.
    undecided = set(get_type_hints(CompletionCreateParamsStreaming)) - anthropic_request._CONSUMED
    assert undecided == {"temperature", "top_p", "stream"}  # sent as they are
    assert set(REFUSED) == set(anthropic_request._REFUSED)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 1.01}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
            "tool_choice.allowed_tools.mode",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice.type"),
        ({"tools": [TOOL, {"type": "custom", "custom": {"name": "c"}}]}, "tools[1].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"user": 7}, "user"),
        # Said in OpenAI's way and in Anthropic's.
        ({"stop": "a", "stop_sequences": ["b"]}, "stop_sequences"),
        ({"reasoning_effort": "low", "output_config": {"effort": "high"}}, "output_config"),
        ({"reasoning_effort": "none", "thinking": {"type": "adaptive"}}, "thinking"),
        ({"messages": [{"role": "system", "content": "a"}, HELLO], "system": "b"}, "system"),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "narrator", "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": "x", "name": "Ann"}, "messages[1].name"),
        ({"role": "system", "content": "x", "name": "example_user"}, "messages[1].name"),
        ({"role": "assistant", "content": "x", "name": "Bob"}, "messages[1].name"),
        ({"role": "system", "content": [image("https://example.com/a.png")]}, "messages[1].content[0].type"),
        (user({"type": "text"}), "messages[1].content[0].text"),
        (user({"type": "text", "text": "a"}, {"type": "video_url"}), "messages[1].content[1].type"),
        (user({"type": "image_url", "image_url": "https://example.com"}), "messages[1].content[0].image_url"),
        (user(image("gs://bucket/a.png")), "messages[1].content[0].image_url.url"),
        (user(image("data:image/png,raw")), "messages[1].content[0].image_url.url"),
        (user(image(f"data:image/tiff;base64,{PNG}")), "messages[1].content[0].image_url.url"),
        (user({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}), "messages[1].content[0]"),
        (user({"type": "file", "file": {"file_id": "file-1"}}), "messages[1].content[0].file.file_data"),
        (user({"type": "file", "file": {"file_data": "TWFyawo="}}), "messages[1].content[0].file.file_data"),
        (
            user({"type": "file", "file": {"file_data": "data:text/csv;base64,YSxi"}}),
            "messages[1].content[0].file.file_data",
        ),
        ({"role": "assistant"}, "messages[1].content"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "messages[1].content"),
        ({"role": "assistant", "audio": {"id": "audio_1"}}, "messages[1].audio"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, "messages[1].function_call"),
        ({"role": "assistant", "tool_calls": [{"type": "custom", "id": "1"}]}, "messages[1].tool_calls[0].type"),
        (
            {"role": "assistant", "tool_calls": [CALL, {**CALL, "function": {"name": "f", "arguments": '{"a":'}}]},
            "messages[1].tool_calls[1].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"role": "function", "name": "f", "content": "x"}, "messages[1].role"),
        ({"role": "tool", "content": "x"}, "messages[1].tool_call_id"),
        ({"role": "tool", "tool_call_id": 7, "content": "x"}, "messages[1].tool_call_id"),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_by_its_path(message: dict[str, Any], param: str) -> None:
    assert refusal(messages=[HELLO, message]).param == param


def test_nesting_that_only_just_passed_the_gateway_is_no_accident() -> None:
    outcomes = set()
    for depth in range(800, 1_100):
        body = b'{"messages":[{"role":"user","content":"x"}],"seed":' + b"[" * depth + b"]" * depth + b"}"
        try:
            DIALECT.chat_request(parse_chat_request(body), "m")
        except InvalidRequest as error:
            outcomes.add(error.code)
    assert outcomes == {"unsupported_parameter", "invalid_json"}


def test_a_conversation() -> None:
    body = sent(
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "developer",
                "content": [
                    {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
                    {"type": "text", "text": ""},
                ],
            },
            user(
                {"type": "text", "text": "What are these?"},
                image(f"data:image/jpg;base64,{PNG}"),
                image("https://example.com/a.webp"),
                {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_data": PDF}},
            ),
            {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL, {**CALL, "id": "functions.f:1"}]},
            tool_result("call_1", "Rain"),
            {"role": "system", "content": "Be quick."},
            tool_result("functions.f:1", [{"type": "text", "text": "see"}, image(f"data:image/png;base64,{PNG}")]),
            {"role": "user", "content": "And?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{**CALL, "function": {"name": "f", "arguments": ""}}],
            },
            tool_result("call_1", ""),
            {"role": "assistant", "content": [{"type": "text", "text": "So"}, {"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": "Hm?"},
            {"role": "assistant", "content": "Yes.", "thinking_blocks": [THOUGHT], "reasoning_content": "Hm."},
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": None, "refusal": "I will not say.", "reasoning_content": "Hm."},
            {"role": "user", "content": "Please."},
            {"role": "assistant", "content": "Because"},
        ]
    )
    assert body["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be quick."},
    ]
    assert body["messages"] == [
        user(
            {"type": "text", "text": "What are these?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG}},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.webp"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "a.pdf",
            },
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
        ),
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "functions_f_1", "name": "get_weather", "input": {"city": "Oslo"}},
            ],
        },
        user(
            {"type": "tool_result", "tool_use_id": "call_1", "content": "Rain"},
            {
                "type": "tool_result",
                "tool_use_id": "functions_f_1",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                ],
            },
        ),
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "f", "input": {}}]},
        user({"type": "tool_result", "tool_use_id": "call_1", "content": ""}),
        {"role": "assistant", "content": [{"type": "text", "text": "So"}, {"type": "text", "text": "no"}]},
        {"role": "user", "content": "Hm?"},
        {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "Yes."}]},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "I will not say."},
        {"role": "user", "content": "Please."},
        {"role": "assistant", "content": "Because"},
    ]


def test_tool_results_of_two_turns_stay_apart() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    turns = sent_messages(HELLO, call, tool_result("call_1", "a"), call, tool_result("call_1", "b"))
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[4]["content"] == [{"type": "tool_result", "tool_use_id": "call_1", "content": "b"}]


def test_a_user_message_between_tool_results_keeps_its_place() -> None:
    turns = sent_messages(HELLO, tool_result("a", "1"), HELLO, tool_result("b", "2"))
    assert [turn["content"] if turn == HELLO else len(turn["content"]) for turn in turns] == ["Hello", 1, "Hello", 1]


def test_a_system_message_alone_is_refused() -> None:
    assert refusal(messages=[{"role": "system", "content": "x"}]).param == "messages"


def test_anthropics_own_fields_go_out_as_the_clients_bytes() -> None:
    own = b'"thinking": {"type": "enabled",  "budget_tokens":2048}, "top_k":40, "odd":123456789012345678901234567890.10'
    body = b'{"messages":[{"role":"user","content":"x"}],%b}' % own
    out = DIALECT.chat_request(parse_chat_request(body), "m").body
    for piece in own.split(b", "):
        name, _, value = piece.partition(b":")
        assert name + b":" + value.strip() in out


def test_schemas_and_arguments_keep_their_bytes() -> None:
    body = (
        b'{"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"1","type":"function",'
        b'"function":{"name":"f","arguments":"{\\"n\\": 12345678901234567890.10}"}}]}],'
        b'"tools":[{"type":"function","function":{"name":"f","parameters":{"maximum":1e400,"type":"object"}}}]}'
    )
    out = DIALECT.chat_request(parse_chat_request(body), "m").body
    assert b'"n":12345678901234567890.10' in out
    assert b'{"type":"object","maximum":1e400}' in out


# --- the plain answer ----------------------------------------------------------------------------------------------


def completed(body: bytes) -> dict[str, Any]:
    """The completion that `body` becomes, once OpenAI's types have found nothing wrong or unknown in it."""
    out = DIALECT.completion(body)
    checked = ChatCompletion.model_validate_json(out.body, strict=True)
    assert unknown_names(checked) <= BESIDE_OPENAIS
    assert out.model == checked.model
    result: dict[str, Any] = json.loads(out.body)
    return result


def unknown_names(model: BaseModel) -> set[str]:
    """Names of fields that the SDK's types do not know, at any depth."""
    names = set(model.model_extra or ())
    for value in dict(model).values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                names |= unknown_names(inner)
    return names


def test_a_plain_answer_with_everything_in_it() -> None:
    body = (RECORDED / "message.json").read_bytes()
    assert completed(body) == {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "object": "chat.completion",
        "created": NOW,
        "model": "claude-sonnet-5-5",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "I'll look both up.",
                    "refusal": None,
                    "reasoning_content": "Two cities, two calls.",
                    "thinking_blocks": [b for b in json.loads(body)["content"] if "thinking" in b["type"]],
                    "tool_calls": [
                        {
                            "id": "toolu_01A09q90qw90lq917835lq9",
                            "type": "function",
                            "function": {
                                "name": "get_weather",
                                "arguments": '{"city":"San Francisco, CA","unit":"celsius"}',
                            },
                        },
                        {
                            "id": "toolu_01T1x1fJ34qAmk2tNTrN7Up6",
                            "type": "function",
                            "function": {"name": "now", "arguments": "{}"},
                        },
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 3472,
            "completion_tokens": 120,
            "total_tokens": 3592,
            "prompt_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 1000},
            "completion_tokens_details": {"reasoning_tokens": 31},
        },
    }
    assert DIALECT.completion(body).usage == Usage(3472, 120, 2000, 31, cache_write_tokens=1000)


@pytest.mark.parametrize("name", ANSWERS)
def test_recorded_answers_are_of_anthropics_form(name: str) -> None:
    body = (RECORDED / name).read_bytes()
    message = wire.Message.model_validate_json(body)
    text = "".join(block.text for block in message.content if block.type == "text")
    assert text
    assert completed(body)["choices"][0]["message"]["content"] == text


def message(**fields: Any) -> bytes:
    usage = {"input_tokens": 1, "output_tokens": 1}
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    return json.dumps({**base, "stop_reason": "end_turn", **fields}).encode()


STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "a_new_one": "stop",
}


@pytest.mark.parametrize("stop_reason", STOP_REASONS)
def test_stop_reasons(stop_reason: str) -> None:
    assert completed(message(stop_reason=stop_reason))["choices"][0]["finish_reason"] == STOP_REASONS[stop_reason]
    reader = started()
    finish = chunks(reader.read(event("message_delta", delta={"stop_reason": stop_reason})))
    assert [chunk["choices"][0]["finish_reason"] for chunk in finish] == [STOP_REASONS[stop_reason]]


def test_every_stop_reason_of_the_sdk_is_known() -> None:
    assert set(get_args(wire.StopReason)) == set(STOP_REASONS) - {"a_new_one"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "tool_use", "id": "1", "name": "f", "input": {}}], None),
        ([{"type": "of_tomorrow", "text": {"not": "text"}}, {"type": "text", "text": "a"}], "a"),
    ],
)
def test_the_text_of_an_answer(content: list[Any], expected: str | None) -> None:
    assert completed(message(content=content))["choices"][0]["message"]["content"] == expected


def test_an_answer_without_usage() -> None:
    body = message(usage=None)
    assert "usage" not in completed(body)
    assert DIALECT.completion(body).usage is None


def test_a_count_that_is_not_told_is_zero() -> None:
    body = message(usage={})
    assert DIALECT.completion(body).usage == Usage()
    usage = completed(body)["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens_details"]["cache_write_tokens"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"id":"chatcmpl-1","choices":[]}',
        message(content="text"),
        message(content=[{"type": "text", "text": 5}]),
        message(content=[{"text": "no type"}]),
        message(content=[{"type": "tool_use", "name": "no id"}]),
    ],
)
def test_an_answer_that_is_no_message_is_broken(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        DIALECT.completion(body)


# --- the stream ----------------------------------------------------------------------------------------------------


def recorded_events(name: str) -> list[bytes]:
    decoder = EventDecoder()
    return decoder.feed((RECORDED / name).read_bytes()) + decoder.finish()


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, **fields}).encode()


def chunks(framed: bytes) -> list[dict[str, Any]]:
    """The chunks in `framed`, once OpenAI's types have found nothing wrong or unknown in them."""
    found = []
    for block in framed.decode().split("\n\n")[:-1]:
        data = block.removeprefix("data: ")
        assert data != block
        assert unknown_names(ChatCompletionChunk.model_validate_json(data, strict=True)) <= BESIDE_OPENAIS
        found.append(json.loads(data))
    assert not framed or framed.endswith(b"\n\n")
    return found


def new_reader(include_usage: bool = False) -> ChunkReader:
    return DIALECT.chunk_reader(request(stream=True, stream_options={"include_usage": include_usage}))


def started(include_usage: bool = False) -> ChunkReader:
    reader = new_reader(include_usage)
    facts = {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 7, "output_tokens": 1}}
    assert chunks(reader.read(event("message_start", message=facts)))
    return reader


def streamed(name: str, include_usage: bool) -> tuple[ChunkReader, list[dict[str, Any]]]:
    reader = new_reader(include_usage)
    return reader, [chunk for data in recorded_events(name) for chunk in chunks(reader.read(data))]


def accumulated(said: list[dict[str, Any]]) -> dict[str, Any]:
    """What OpenAI's SDK makes of the chunks."""
    state = ChatCompletionStreamState()
    for chunk in said:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    whole = state.current_completion_snapshot.model_dump(exclude_unset=True)
    for call in whole["choices"][0]["message"].get("tool_calls") or ():
        del call["index"]
        call["function"].pop("parsed_arguments", None)
    return whole


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_adds_up_to_the_plain_answer(name: str) -> None:
    # Anthropic's SDK adds up the events, OpenAI's the chunks made of them: both must have the same answer.
    snapshot, buffers = None, dict[int, bytes]()
    for data in recorded_events(name):
        if json.loads(data)["type"] != "ping":
            known = SDK_EVENT.validate_json(data)
            snapshot = accumulate_event(event=known, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    expected = completed(snapshot.to_json().encode())
    reader, said = streamed(name, include_usage=True)
    whole = accumulated(said)
    choice, wanted = whole["choices"][0], expected["choices"][0]
    assert choice["finish_reason"] == wanted["finish_reason"]
    assert (choice["message"].get("content") or "") == (wanted["message"]["content"] or "")
    assert choice["message"].get("reasoning_content") == wanted["message"].get("reasoning_content")
    assert [parsed(call) for call in choice["message"].get("tool_calls") or ()] == [
        parsed(call) for call in wanted["message"].get("tool_calls", ())
    ]
    assert {name: whole[name] for name in ("id", "model", "usage")} == {
        name: expected[name] for name in ("id", "model", "usage")
    }
    assert reader.usage == DIALECT.completion(snapshot.to_json().encode()).usage


def parsed(call: dict[str, Any]) -> tuple[str, str, str, Any]:
    return call["id"], call["type"], call["function"]["name"], json.loads(call["function"]["arguments"])


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_the_frame_of_a_stream(name: str, include_usage: bool) -> None:
    reader, said = streamed(name, include_usage)
    assert len({(chunk["id"], chunk["model"], chunk["created"], chunk["object"]) for chunk in said}) == 1
    assert said[0]["id"]
    assert said[0]["model"] == reader.model
    assert said[0]["created"] == NOW
    assert said[0]["choices"][0]["delta"]["role"] == "assistant"
    assert not any("role" in choice["delta"] for chunk in said[1:] for choice in chunk["choices"])
    if include_usage:
        *said, last = said
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0
        assert all(chunk["usage"] is None for chunk in said)
    else:
        assert all("usage" not in chunk for chunk in said)
    assert [bool(chunk["choices"][0]["finish_reason"]) for chunk in said] == [False] * (len(said) - 1) + [True]
    assert said[-1]["choices"][0]["delta"] == {}
    assert reader.usage is not None
    assert reader.usage.completion_tokens > 0
    assert reader.tokens_seen == len(said) - 2


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_has_ended_once_its_stop_reason_is_there_and_not_before(name: str) -> None:
    reader = new_reader()
    for data in recorded_events(name):
        before = reader.ended
        reader.read(data)
        kind = json.loads(data)["type"]
        assert (before, reader.ended) == (kind == "message_stop", kind in ("message_delta", "message_stop"))


def deltas(name: str) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in streamed(name, False)[1]]


def test_tool_calls_are_numbered_and_named_once() -> None:
    def call(index: int, id_: str, name: str) -> dict[str, Any]:
        return {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}

    def arguments(index: int, piece: str) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": piece}}

    assert [delta["tool_calls"] for delta in deltas("thinking-and-tools.sse") if "tool_calls" in delta] == [
        [call(0, "toolu_01A09q90qw90lq917835lq9", "get_weather")],
        [arguments(0, '{"city": "San Fra')],
        [arguments(0, 'ncisco, CA", ')],
        [arguments(0, '"unit": "celsius"}')],
        [call(1, "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "now")],
        [arguments(1, "{}")],
        [call(2, "toolu_01Q", "get_weather")],
        [arguments(2, '{"city":"東京"}')],
    ]


def test_thinking_is_streamed_as_reasoning_content() -> None:
    thoughts = [
        delta["reasoning_content"] for delta in deltas("thinking-and-tools.sse") if "reasoning_content" in delta
    ]
    assert thoughts == ["Two cities, ", "two calls."]


def test_what_a_block_holds_from_its_start_is_not_lost() -> None:
    reader = started()
    blocks = [
        {"type": "text", "text": "a"},
        {"type": "thinking", "thinking": "b", "signature": ""},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"c": 1}},
    ]
    said = []
    for index, block in enumerate(blocks):
        said += chunks(reader.read(event("content_block_start", index=index, content_block=block)))
        said += chunks(reader.read(event("content_block_stop", index=index)))
    found = [chunk["choices"][0]["delta"] for chunk in said]
    assert found[:2] == [{"content": "a"}, {"reasoning_content": "b"}]
    assert json.loads(found[3]["tool_calls"][0]["function"]["arguments"]) == {"c": 1}


def test_a_stream_without_message_stop_still_tells_its_usage() -> None:
    reader = started(include_usage=True)
    said = chunks(reader.read(event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})))
    assert [chunk["usage"] and chunk["usage"]["total_tokens"] for chunk in said] == [None, 12]
    assert reader.ended
    assert reader.read(event("message_stop")) == b""


def test_a_stream_without_a_stop_reason_is_finished_by_message_stop() -> None:
    reader = started()
    assert reader.read(event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 5})) == b""
    assert not reader.ended
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks(reader.read(event("message_stop")))] == ["stop"]
    assert reader.ended
    assert reader.usage == Usage(7, 5)


def test_a_stream_without_counts_has_no_usage_chunk() -> None:
    reader = new_reader(include_usage=True)
    assert reader.model == ""
    reader.read(event("message_start", message={"id": "msg_1", "model": "claude"}))
    assert len(chunks(reader.read(event("message_stop")))) == 1
    assert reader.usage is None


def test_later_counts_that_are_less_do_not_take_back_the_earlier() -> None:
    reader = started()
    usage = {"input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 5}
    reader.read(event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage))
    assert reader.usage == Usage(10, 5, 3)


@pytest.mark.parametrize(
    "data",
    [
        event("ping"),
        event("of_tomorrow", delta="anything", index="x"),
        event("content_block_delta", index=0, delta={"type": "of_tomorrow", "text": {"a": 1}}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "x"}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": ""}),
        event("content_block_delta", index=9, delta={"type": "input_json_delta", "partial_json": "{}"}),
        event("content_block_start", index=0, content_block={"type": "of_tomorrow", "text": 7, "content": []}),
        event("content_block_stop", index=0),
    ],
)
def test_events_that_say_nothing_to_a_client_are_passed_over(data: bytes) -> None:
    reader = started()
    assert reader.read(data) == b""
    assert (reader.ended, reader.tokens_seen) == (False, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b'{"type":5}',
        b'{"index":0}',
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": 5}),
        event("content_block_delta", index="0", delta={"type": "text_delta", "text": "a"}),
        event("content_block_delta", index=0, delta={"text": "a"}),
        event("content_block_delta", index=0),
        event("content_block_start", index=0, content_block={"type": "tool_use", "name": "f"}),
        event("message_delta"),
        event("message_start", message="x"),
    ],
)
def test_events_that_are_not_what_they_should_be_are_malformed(data: bytes) -> None:
    reader = started()
    with pytest.raises(MalformedEvent):
        reader.read(data)
    text = {"type": "text_delta", "text": "on"}
    assert chunks(reader.read(event("content_block_delta", index=0, delta=text)))  # the stream goes on


ERRORS = {
    "overloaded_error": 503,
    "rate_limit_error": 429,
    "api_error": 502,
    "timeout_error": 504,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "request_too_large": 413,
    "authentication_error": 502,
    "permission_error": 502,
    "billing_error": 502,
    "conflict_error": 409,
    "internal_error": 502,
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_inside_a_stream_or_a_200_is_raised(kind: str) -> None:
    data = event("error", error={"type": kind, "message": "Too bad"}, request_id="req_1")
    for said in (started().read, DIALECT.completion):
        with pytest.raises(UpstreamRefused) as caught:
            said(data)
        error = caught.value
        assert (error.status, error.upstream_status, error.message) == (ERRORS[kind], 0, "Too bad")
        assert error.envelope()["error"]["type"] == kind


@pytest.mark.parametrize("error", [None, "Overloaded", {"type": ["odd"], "message": 5}])
def test_an_error_of_a_strange_form_is_an_error_too(error: object) -> None:
    reader = started()
    with pytest.raises(UpstreamRefused) as caught:
        reader.read(event("error", error=error))
    assert caught.value.status == 502
    assert not reader.ended


# --- the provider --------------------------------------------------------------------------------------------------


def test_headers() -> None:
    assert DIALECT.headers("sk-ant-1") == {"x-api-key": "sk-ant-1", "anthropic-version": "2023-06-01"}


def test_the_row_in_the_table() -> None:
    row = PROVIDERS["anthropic"]
    assert isinstance(row.dialect, AnthropicDialect)
    assert (row.origin, row.base_url) == ("paid", "https://api.anthropic.com/v1")
    assert (row.credential_env, row.base_url_env) == ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
