"""What a request becomes for Bedrock, against the model of its API that AWS publishes with botocore."""

import json
from functools import cache
from typing import Any, get_type_hints

import botocore.session
import pytest
from botocore.validate import ParamValidator
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from lexora.core.chat import parse_chat_request
from lexora.core.errors import InvalidRequest
from lexora.providers import bedrock_request
from lexora.providers.bedrock import BedrockDialect

DIALECT = BedrockDialect()
CLAUDE, NOVA, NOVA_2 = "eu.anthropic.claude-sonnet-4-6", "amazon.nova-pro-v1:0", "us.amazon.nova-2-lite-v1:0"
GPT, LLAMA = "openai.gpt-oss-120b-1:0", "meta.llama3-3-70b-instruct-v1:0"
HELLO = {"role": "user", "content": "Hello"}
MESSAGES = [{"role": "user", "content": [{"text": "Hello"}]}]
PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjcK"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER},
}
SENT_TOOL = {"toolSpec": {"name": "get_weather", "description": "Weather", "inputSchema": {"json": WEATHER}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
NAMED: dict[str, Any] = {"type": "function", "function": {"name": "get_weather"}}


@cache
def shape() -> Any:
    return botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape


def request(**fields: Any) -> Any:
    return parse_chat_request(json.dumps({"messages": [HELLO], **fields}).encode())


def sent(model: str = CLAUDE, **fields: Any) -> dict[str, Any]:
    """The body that goes out for `fields`, once AWS's model of it has found nothing wrong or unknown in it."""
    out: dict[str, Any] = json.loads(DIALECT.chat_request(request(**fields), model).body)
    report = ParamValidator().validate({"modelId": model, **out}, shape())
    assert not report.has_errors(), report.generate_report()
    return out


def turns(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(messages=list(messages), **fields)["messages"]
    return found


def refusal(model: str = CLAUDE, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.chat_request(request(**fields), model)
    assert caught.value.status == 400
    return caught.value


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def file(data: str | None) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data} if data else {"file_id": "file-1"}}


def called(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(of_call: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": of_call, "content": content}


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("amazon.nova-pro-v1:0", False, "/model/amazon.nova-pro-v1%3A0/converse"),
        ("amazon.nova-pro-v1:0", True, "/model/amazon.nova-pro-v1%3A0/converse-stream"),
        ("arn:aws:bedrock:a:1:x/y", False, "/model/arn%3Aaws%3Abedrock%3Aa%3A1%3Ax%2Fy/converse"),
    ],
)
def test_the_least_request(model: str, stream: bool, path: str) -> None:
    out = DIALECT.chat_request(request(stream=stream), model)
    assert (out.path, json.loads(out.body)) == (path, {"messages": MESSAGES})


def schema_format(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": WEATHER, **more}}


def text_format(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "structure": {"jsonSchema": {"schema": WEATHER, **more}}}


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (CLAUDE, {"max_tokens": 5}, {"inferenceConfig": {"maxTokens": 5}}),
        (CLAUDE, {"max_completion_tokens": 6, "max_tokens": 5}, {"inferenceConfig": {"maxTokens": 6}}),
        (CLAUDE, {"stop": "###"}, {"inferenceConfig": {"stopSequences": ["###"]}}),
        (CLAUDE, {"stop": ["a", "b"]}, {"inferenceConfig": {"stopSequences": ["a", "b"]}}),
        (CLAUDE, {"stop": []}, {}),
        (CLAUDE, {"temperature": 0, "top_p": 0.5}, {"inferenceConfig": {"temperature": 0, "topP": 0.5}}),
        (CLAUDE, {"top_k": 40}, {"additionalModelRequestFields": {"top_k": 40}}),
        (NOVA, {"top_k": 40}, {"additionalModelRequestFields": {"inferenceConfig": {"topK": 40}}}),
        (CLAUDE, {"reasoning_effort": "minimal"}, {"outputConfig": {"effort": "low"}}),
        (CLAUDE, {"reasoning_effort": "xhigh"}, {"outputConfig": {"effort": "xhigh"}}),
        (LLAMA, {"reasoning_effort": "high"}, {"outputConfig": {"effort": "high"}}),
        (
            CLAUDE,
            {"reasoning_effort": "none"},
            {"additionalModelRequestFields": {"thinking": {"type": "disabled"}}},
        ),
        (GPT, {"reasoning_effort": "low"}, {"additionalModelRequestFields": {"reasoning_effort": "low"}}),
        (
            NOVA_2,
            {"reasoning_effort": "minimal"},
            {"additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}},
        ),
        (
            NOVA_2,
            {"reasoning_effort": "none"},
            {"additionalModelRequestFields": {"reasoningConfig": {"type": "disabled"}}},
        ),
        (
            CLAUDE,
            {"thinking": {"type": "adaptive"}, "reasoning_effort": "high"},
            {"additionalModelRequestFields": {"thinking": {"type": "adaptive"}}, "outputConfig": {"effort": "high"}},
        ),
        (CLAUDE, {"response_format": {"type": "text"}}, {}),
        (CLAUDE, {"response_format": schema_format()}, {"outputConfig": {"textFormat": text_format()}}),
        (
            CLAUDE,
            {"response_format": schema_format(description="A place"), "reasoning_effort": "low"},
            {"outputConfig": {"effort": "low", "textFormat": text_format(description="A place")}},
        ),
        (CLAUDE, {"service_tier": "auto"}, {}),
        (CLAUDE, {"service_tier": "default"}, {"serviceTier": {"type": "default"}}),
        (CLAUDE, {"service_tier": "flex"}, {"serviceTier": {"type": "flex"}}),
        (CLAUDE, {"service_tier": "priority"}, {"serviceTier": {"type": "priority"}}),
        (CLAUDE, {"n": 1, "logprobs": False, "presence_penalty": 0, "modalities": ["text"]}, {}),
    ],
)
def test_what_a_field_becomes(model: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = sent(model, **fields)
    if "textFormat" in found.get("outputConfig", {}):
        schema = found["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
        schema["schema"] = json.loads(schema["schema"])  # which is a string to Bedrock
    assert found == {"messages": MESSAGES, **expected}


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"auto": {}}),
        ({"tool_choice": "required", "parallel_tool_calls": True}, {"any": {}}),
        ({"tool_choice": NAMED}, {"tool": {"name": "get_weather"}}),
    ],
)
def test_tools(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    config = sent(tools=[TOOL], **fields)["toolConfig"]
    assert config == {"tools": [SENT_TOOL], **({"toolChoice": choice} if choice else {})}


@pytest.mark.parametrize(("mode", "choice"), [("auto", {"auto": {}}), ("required", {"any": {}})])
def test_of_allowed_tools_the_model_sees_no_others(mode: str, choice: dict[str, Any]) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [NAMED]}}
    config = sent(tools=[other, TOOL], tool_choice=allowed)["toolConfig"]
    assert config == {"tools": [SENT_TOOL], "toolChoice": choice}


def test_a_tool_without_parameters_and_a_strict_one() -> None:
    bare = {"type": "function", "function": {"name": "now", "strict": True}}
    (tool,) = sent(tools=[bare])["toolConfig"]["tools"]
    assert tool == {"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object"}}, "strict": True}}


@pytest.mark.parametrize("tools", [[], [TOOL]])
def test_tools_that_may_not_be_called_are_not_shown(tools: list[Any]) -> None:
    """Converse has no other way to say so; with calls in the history this way is closed too."""
    assert "toolConfig" not in sent(tools=tools, tool_choice="none", parallel_tool_calls=False)
    history = [HELLO, called(CALL), result("call_1", "rain")]
    assert refusal(messages=history, tools=[TOOL], tool_choice="none").param == "tool_choice"


def test_a_conversation_with_tools_in_it_needs_them_declared() -> None:
    assert refusal(messages=[HELLO, called(CALL), result("call_1", "rain")]).param == "tools"


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u"},
        {"store": True, "metadata": {"a": "b"}, "prompt_cache_key": "k", "safety_identifier": "s"},
        {"stream_options": {"include_usage": True}, "stream": True},
        {"max_tokens": None, "seed": None, "tools": None, "additionalModelRequestFields": None},
    ],
)
def test_a_field_that_does_not_change_the_answer_is_not_sent(fields: dict[str, Any]) -> None:
    assert sent(**fields) == {"messages": MESSAGES}


ASKS_MUCH: dict[str, Any] = {
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"1": 2},
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "seed": 1,
    "modalities": ["text", "audio"],
    "audio": {"voice": "x", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "moderation": {"model": "omni"},
    "verbosity": "low",
    "web_search_options": {},
    "functions": [{"name": "f"}],
    "function_call": "auto",
}


@pytest.mark.parametrize("name", bedrock_request._REFUSED)
def test_a_field_that_bedrock_cannot_follow_is_refused(name: str) -> None:
    error = refusal(**{name: ASKS_MUCH[name]})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert error.message.startswith(f"Bedrock's models cannot do what '{name}' asks for. ")


def test_every_field_of_openai_is_decided_upon() -> None:
    known = set(get_type_hints(CompletionCreateParamsStreaming))
    assert known <= bedrock_request._CONSUMED


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (CLAUDE, {"temperature": 1.5}, "temperature"),
        (CLAUDE, {"response_format": {"type": "json_object"}}, "response_format.type"),
        (CLAUDE, {"response_format": {"type": "xml"}}, "response_format.type"),
        (CLAUDE, {"service_tier": "scale"}, "service_tier"),
        (CLAUDE, {"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        (CLAUDE, {"tool_choice": "required"}, "tool_choice"),
        (CLAUDE, {"tool_choice": NAMED, "tools": []}, "tool_choice"),
        (LLAMA, {"top_k": 5}, "top_k"),
        (LLAMA, {"reasoning_effort": "none"}, "reasoning_effort"),
        (LLAMA, {"thinking": {"type": "adaptive"}}, "thinking"),
        (CLAUDE, {"thinking": {"type": "adaptive"}, "reasoning_effort": "none"}, "thinking"),
        (CLAUDE, {"min_p": 0.1}, "min_p"),
        (CLAUDE, {"max_tokens": "many"}, "max_tokens"),
        (CLAUDE, {"max_tokens": 5, "inferenceConfig": {"maxTokens": 6}}, "inferenceConfig.maxTokens"),
        (CLAUDE, {"reasoning_effort": "low", "outputConfig": {"effort": "low"}}, "outputConfig.effort"),
        (
            CLAUDE,
            {"top_k": 5, "additionalModelRequestFields": {"top_k": 5}},
            "additionalModelRequestFields.top_k",
        ),
        (CLAUDE, {"tools": [TOOL], "toolConfig": {"tools": []}}, "toolConfig"),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_by_its_path(model: str, fields: dict[str, Any], param: str) -> None:
    assert refusal(model, **fields).param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(image("https://example.com/a.png")), "messages[0].content[0].image_url.url"),
        (user(image("data:image/tiff;base64,AA==")), "messages[0].content[0].image_url.url"),
        (user(image("data:image/png,AA")), "messages[0].content[0].image_url.url"),
        (user(file(None)), "messages[0].content[0].file.file_data"),
        (user(file("data:application/zip;base64,AA==")), "messages[0].content[0].file.file_data"),
        ({**HELLO, "name": "Ann"}, "messages[0].name"),
        ({"role": "assistant", "content": "x", "name": "a"}, "messages[0].name"),
        ({"role": "assistant"}, "messages[0].content"),
        ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "content": "x", "thinking_blocks": [{"type": "x"}]}, "messages[0].thinking_blocks"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[0].role"),
        (called({**CALL, "function": {"name": "f", "arguments": "["}}), "messages[0].tool_calls[0].function.arguments"),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_by_its_path(message: dict[str, Any], param: str) -> None:
    assert refusal(messages=[message]).param == param


@pytest.mark.parametrize("messages", [[{"role": "system", "content": "x"}], [{"role": "user", "content": ""}]])
def test_nothing_to_answer_is_refused(messages: list[Any]) -> None:
    assert refusal(messages=messages).param == "messages"


def test_a_conversation() -> None:
    out = sent(
        tools=[TOOL],
        messages=[
            {"role": "system", "content": "Be brief."},
            user({"type": "text", "text": "Look"}, image(f"data:image/jpg;base64,{PNG}"), {"type": "text", "text": ""}),
            user(file(PDF), file(f"data:text/csv;base64,{PNG}")),
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            user({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}),
            called(CALL, {**CALL, "id": "functions.f:1"}, content="I look."),
            result("call_1", "rain"),
            result("functions.f:1", [{"type": "text", "text": "sun"}, image(f"data:image/png;base64,{PNG}")]),
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "user", "content": "Why?"},
        ],
    )
    assert out["system"] == [{"text": "Be brief."}, {"text": "Be kind."}]
    png = {"image": {"format": "png", "source": {"bytes": PNG}}}
    used = {"name": "get_weather", "input": {"city": "Oslo"}}
    assert out["messages"] == [
        {
            "role": "user",
            "content": [
                {"text": "Look"},
                {"image": {"format": "jpeg", "source": {"bytes": PNG}}},
                {"document": {"format": "pdf", "name": "document 2-0", "source": {"bytes": PDF}}},
                {"document": {"format": "csv", "name": "document 2-1", "source": {"bytes": PNG}}},
                {"audio": {"format": "wav", "source": {"bytes": "AA=="}}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"text": "I look."},
                {"toolUse": {"toolUseId": "call_1", **used}},
                {"toolUse": {"toolUseId": "functions_f_1", **used}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "call_1", "content": [{"text": "rain"}]}},
                {"toolResult": {"toolUseId": "functions_f_1", "content": [{"text": "sun"}, png]}},
                {"text": "And?"},
            ],
        },
        {"role": "assistant", "content": [{"text": "No."}]},
        {"role": "user", "content": [{"text": "Why?"}]},
    ]


def test_what_the_model_has_thought_goes_back_to_it_first() -> None:
    thoughts = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eHh4"},
    ]
    _, answer, _ = turns(
        HELLO, called(CALL, thinking_blocks=thoughts, content="Ok"), result("call_1", ""), tools=[TOOL]
    )
    assert answer["content"][:3] == [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "eHh4"}},
        {"text": "Ok"},
    ]


def test_what_is_to_be_cached_is_marked_as_bedrock_does_it() -> None:
    kept = {"cache_control": {"type": "ephemeral"}}
    long = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    out = sent(
        tools=[{**TOOL, **long}],
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "Be brief.", **long}]},
            user(
                {"type": "text", "text": "a", **kept},
                {"type": "text", "text": "b"},
                {"type": "text", "text": "", **kept},
            ),
        ],
    )
    for_an_hour = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert out["toolConfig"]["tools"] == [SENT_TOOL, for_an_hour]
    assert out["system"] == [{"text": "Be brief."}, for_an_hour]
    assert out["messages"][0]["content"] == [{"text": "a"}, {"cachePoint": {"type": "default"}}, {"text": "b"}]


def test_bedrocks_own_fields_go_out() -> None:
    own = {
        "guardrailConfig": {"guardrailIdentifier": "g1", "guardrailVersion": "1", "trace": "enabled"},
        "requestMetadata": {"team": "a"},
        "performanceConfig": {"latency": "optimized"},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "inferenceConfig": {"topP": 0.5},
        "additionalModelRequestFields": {"anthropic_beta": ["x"]},
    }
    out = sent(**own, max_tokens=5, top_k=3)
    assert out.pop("inferenceConfig") == {"maxTokens": 5, "topP": 0.5}
    assert out.pop("additionalModelRequestFields") == {"top_k": 3, "anthropic_beta": ["x"]}
    assert out == {"messages": MESSAGES, **{name: own[name] for name in out if name != "messages"}}
    assert len(out) == 5


def test_schemas_and_arguments_keep_their_bytes() -> None:
    big = "123456789012345678901234567890.00"
    schema = f'{{"type":"object","properties":{{"a":{{"const":{big}}}}}}}'
    body = (
        '{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"c",'
        f'"type":"function","function":{{"name":"f","arguments":"{{\\"n\\": {big}}}"}}}}]}},'
        '{"role":"tool","tool_call_id":"c","content":"y"}],'
        f'"tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]}}'
    )
    out = DIALECT.chat_request(parse_chat_request(body.encode()), CLAUDE).body.decode()
    assert out.count(big) == 2


def test_nesting_that_only_just_passed_the_gateway_is_no_accident() -> None:
    outcomes = set()
    for depth in range(800, 1_100):
        body = b'{"messages":[{"role":"user","content":"x"}],"audio":' + b"[" * depth + b"]" * depth + b"}"
        try:
            DIALECT.chat_request(parse_chat_request(body), "m")
        except InvalidRequest as error:
            outcomes.add(error.code)
    assert outcomes == {"unsupported_parameter", "invalid_json"}
