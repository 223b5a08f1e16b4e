"""What a request becomes for Gemini, against the types of Google's SDK, which know every field of its API."""

import json
from typing import Any, get_type_hints

import pytest
from google.genai import types as google
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from lexora.core.chat import parse_chat_request
from lexora.core.errors import InvalidRequest
from lexora.providers import gemini_request
from lexora.providers.gemini import GeminiDialect

DIALECT = GeminiDialect()
FLASH, OLD = "gemini-3.8-flash", "gemini-2.5-flash"
HELLO = {"role": "user", "content": "Hello"}
CONTENTS = [{"role": "user", "parts": [{"text": "Hello"}]}]
PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjcK"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
SENT_TOOLS = [
    {"functionDeclarations": [{"name": "get_weather", "description": "Weather", "parametersJsonSchema": WEATHER}]}
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
NAMED: dict[str, Any] = {"type": "function", "function": {"name": "get_weather"}}
UNSIGNED = "skip_thought_signature_validator"


def request(**fields: Any) -> Any:
    return parse_chat_request(json.dumps({"messages": [HELLO], **fields}).encode())


def sent(model: str = FLASH, **fields: Any) -> dict[str, Any]:
    """The body that goes out for `fields`, once the SDK's types have found nothing wrong or unknown in it."""
    path, body, _ = DIALECT.chat_request(request(**fields), model)
    assert path == f"/models/{model}:generateContent"
    out: dict[str, Any] = json.loads(body)
    for content in [*out["contents"], *([out["systemInstruction"]] if "systemInstruction" in out else [])]:
        google.Content.model_validate(content)
    google.GenerationConfig.model_validate(out.get("generationConfig", {}))
    google.ToolConfig.model_validate(out.get("toolConfig", {}))
    for tool in out.get("tools", ()):
        google.Tool.model_validate(tool)
    return out


def contents(*messages: dict[str, Any], model: str = FLASH) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(model, messages=list(messages))["contents"]
    return found


def refusal(model: str = FLASH, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.chat_request(request(**fields), model)
    assert caught.value.status == 400
    return caught.value


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def called(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(of_call: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": of_call, "content": content}


def test_the_least_request() -> None:
    assert sent(model=FLASH) == {"contents": CONTENTS}


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"max_tokens": 5}, {"maxOutputTokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"maxOutputTokens": 6}),
        ({"max_completion_tokens": None, "max_tokens": 5}, {"maxOutputTokens": 5}),
        ({"stop": "###"}, {"stopSequences": ["###"]}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"stop": []}, None),
        ({"temperature": 1.5, "top_p": 0.5, "top_k": 40}, {"temperature": 1.5, "topP": 0.5, "topK": 40}),
        ({"temperature": 0, "seed": 0}, {"temperature": 0, "seed": 0}),
        (
            {"presence_penalty": 0.5, "frequency_penalty": -0.5},
            {"presencePenalty": 0.5, "frequencyPenalty": -0.5},
        ),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"n": 1}, None),
        ({"n": 3}, {"candidateCount": 3}),
        ({"reasoning_effort": "minimal"}, {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}),
        ({"reasoning_effort": "xhigh"}, {"thinkingConfig": {"thinkingLevel": "XHIGH"}}),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "w", "strict": True, "description": "A place", "schema": WEATHER},
                }
            },
            {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"description": "A place", **WEATHER},
            },
        ),
        (
            {"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}, "seed": 7},
            {"seed": 7, "mediaResolution": "MEDIA_RESOLUTION_LOW"},
        ),
    ],
)
def test_what_a_field_becomes(fields: dict[str, Any], config: dict[str, Any] | None) -> None:
    expected = {"contents": CONTENTS} | ({"generationConfig": config} if config else {})
    assert sent(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "calling"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"mode": "AUTO"}),
        ({"tool_choice": "none"}, {"mode": "NONE"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"mode": "NONE"}),
        ({"tool_choice": "required", "parallel_tool_calls": True}, {"mode": "ANY"}),
        ({"tool_choice": NAMED}, {"mode": "ANY", "allowedFunctionNames": ["get_weather"]}),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["get_weather"]},
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}},
            {"mode": "ANY", "allowedFunctionNames": ["get_weather"]},
        ),
    ],
)
def test_tools(fields: dict[str, Any], calling: dict[str, Any] | None) -> None:
    expected = {"contents": CONTENTS, "tools": SENT_TOOLS}
    expected |= {"toolConfig": {"functionCallingConfig": calling}} if calling else {}
    assert sent(tools=[TOOL], **fields) == expected


def test_a_strict_tool_is_called_by_its_schema_alone() -> None:
    strict = {"type": "function", "function": {"name": "now", "strict": True}}
    out = sent(tools=[TOOL, strict])
    assert out["tools"][0]["functionDeclarations"][1] == {"name": "now"}
    assert out["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert sent(tools=[strict], tool_choice="required")["toolConfig"]["functionCallingConfig"]["mode"] == "ANY"


@pytest.mark.parametrize(
    ("effort", "budget"), [("none", 0), ("minimal", 1024), ("low", 1024), ("medium", 8192), ("high", 24_576)]
)
def test_models_before_the_third_are_told_in_tokens_how_much_to_think(effort: str, budget: int) -> None:
    assert sent(OLD, reasoning_effort=effort)["generationConfig"] == {"thinkingConfig": {"thinkingBudget": budget}}


@pytest.mark.parametrize(("model", "effort"), [(FLASH, "none"), (FLASH, "max"), (OLD, "xhigh"), (OLD, "max")])
def test_an_effort_that_a_model_does_not_know_is_refused(model: str, effort: str) -> None:
    error = refusal(model, reasoning_effort=effort)
    assert (error.param, error.code) == ("reasoning_effort", "unsupported_value")
    assert "'low', 'medium', 'high'" in error.message


@pytest.mark.parametrize(("tier", "theirs"), [("default", "standard"), ("flex", "flex"), ("priority", "priority")])
def test_service_tiers(tier: str, theirs: str) -> None:
    assert sent(service_tier=tier) == {"contents": CONTENTS, "serviceTier": theirs}


HARMLESS = [
    {"logit_bias": {}},
    {"modalities": ["text"]},
    {"verbosity": "medium"},
    {"service_tier": "auto"},
    {"store": True, "metadata": {"a": "b"}, "user": "u-1"},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit"}},
    {"safety_identifier": "s"},
    {"functions": []},
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False},
    {"tool_choice": "none"},
    {"x_priority": "high", "x_user_id": "u"},
]


@pytest.mark.parametrize("fields", HARMLESS)
def test_a_field_that_does_not_change_the_answer_is_not_sent(fields: dict[str, Any]) -> None:
    assert sent(**fields) == sent()


def test_null_is_as_good_as_absent() -> None:
    openai_fields = set(get_type_hints(CompletionCreateParamsStreaming)) - {"messages", "model"}
    assert len(openai_fields) > 30
    assert sent(**dict.fromkeys(openai_fields | {"safetySettings", "top_k", "generationConfig"})) == sent()


REFUSED = {
    "logit_bias": {"50256": -100},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "moderation": {"model": "omni-moderation-latest"},
    "verbosity": "low",
    "web_search_options": {},
    "functions": [{"name": "f"}],
    "function_call": "auto",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_gemini_cannot_follow_is_refused(name: str) -> None:
    error = refusal(**{name: REFUSED[name]})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert error.message.startswith(f"Gemini models cannot do what '{name}' asks for. ")
    assert "Leave it out" in error.message or "Send" in error.message


def test_every_field_of_openai_is_decided_upon() -> None:
    # Fails when a new release of OpenAI's SDK brings a field: decide whether it is mapped, harmless or refused.
    assert not set(get_type_hints(CompletionCreateParamsStreaming)) - gemini_request._CONSUMED
    assert set(REFUSED) == set(gemini_request._REFUSED)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"stop": [1]}, "stop[0]"),
        ({"seed": 1.5}, "seed"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [TOOL, {"type": "custom", "custom": {"name": "c"}}]}, "tools[1].type"),
        # Said in OpenAI's way and in Gemini's.
        ({"seed": 1, "generationConfig": {"seed": 2}}, "generationConfig.seed"),
        ({"messages": [{"role": "system", "content": "a"}, HELLO], "systemInstruction": {}}, "systemInstruction"),
        ({"contents": []}, "contents"),
        ({"tools": [TOOL], "tool_choice": "auto", "toolConfig": {}}, "toolConfig"),
        ({"generationConfig": []}, "generationConfig"),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "narrator", "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": "x", "name": "Ann"}, "messages[1].name"),
        ({"role": "system", "content": "x", "name": "example_user"}, "messages[1].name"),
        ({"role": "assistant", "content": "x", "name": "Bob"}, "messages[1].name"),
        ({"role": "system", "content": [image("https://example.com/a.png")]}, "messages[1].content[0].type"),
        (user({"type": "text", "text": "a"}, {"type": "video_url"}), "messages[1].content[1].type"),
        (user(image("gs://bucket/a.png")), "messages[1].content[0].image_url.url"),
        (user(image("data:image/png,raw")), "messages[1].content[0].image_url.url"),
        (user({"type": "file", "file": {"file_id": "file-1"}}), "messages[1].content[0].file.file_data"),
        (user({"type": "file", "file": {"file_data": "TWFyawo="}}), "messages[1].content[0].file.file_data"),
        (user({"type": "input_audio", "input_audio": {"data": ""}}), "messages[1].content[0].input_audio.format"),
        ({"role": "assistant"}, "messages[1].content"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "messages[1].content"),
        ({"role": "assistant", "audio": {"id": "audio_1"}}, "messages[1].audio"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, "messages[1].function_call"),
        (
            called(CALL, {**CALL, "function": {"name": "f", "arguments": '{"a":'}}),
            "messages[1].tool_calls[1].function.arguments",
        ),
        (
            called({**CALL, "function": {"name": "f", "arguments": "[1]"}}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"role": "function", "name": "f", "content": "x"}, "messages[1].role"),
        (result("call_of_nobody", "x"), "messages[1].tool_call_id"),
        ({"role": "tool", "content": "x"}, "messages[1].tool_call_id"),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_by_its_path(message: dict[str, Any], param: str) -> None:
    assert refusal(messages=[HELLO, message]).param == param


def test_a_system_message_alone_is_refused() -> None:
    assert refusal(messages=[{"role": "system", "content": "x"}]).param == "messages"


def test_a_conversation() -> None:
    body = sent(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": ""}]},
            user(
                {"type": "text", "text": "What are these?"},
                image(f"data:image/jpg;base64,{PNG}"),
                image("https://example.com/a.webp?size=1"),
                image("https://example.com/picture"),
                {"type": "file", "file": {"file_data": f"data:text/csv;base64,{PNG}", "filename": "a.csv"}},
                {"type": "file", "file": {"file_data": PDF}},
                {"type": "input_audio", "input_audio": {"data": PNG, "format": "mp3"}},
                {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
            ),
            called(
                CALL, {**CALL, "id": "call_2", "function": {"name": "now", "arguments": ""}}, content="Let me look."
            ),
            {"role": "system", "content": "Be quick."},
            result("call_1", "Rain"),
            result("call_2", [{"type": "text", "text": "see"}, image(f"data:image/png;base64,{PNG}")]),
            {"role": "user", "content": ""},
            {"role": "assistant", "content": [{"type": "text", "text": "So"}, {"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": None, "refusal": "I will not say.", "reasoning_content": "Hm."},
            {"role": "user", "content": "Please."},
        ]
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}, {"text": "Be quick."}]}
    assert body["contents"] == [
        {
            "role": "user",
            "parts": [
                {"text": "What are these?"},
                {"inlineData": {"mimeType": "image/jpeg", "data": PNG}},
                {"fileData": {"fileUri": "https://example.com/a.webp?size=1", "mimeType": "image/webp"}},
                {"fileData": {"fileUri": "https://example.com/picture"}},
                {"inlineData": {"mimeType": "text/csv", "data": PNG}},
                {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
                {"inlineData": {"mimeType": "audio/mpeg", "data": PNG}},
                {"inlineData": {"mimeType": "audio/wav", "data": PNG}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Let me look."},
                {
                    "functionCall": {"id": "call_1", "name": "get_weather", "args": {"city": "Oslo"}},
                    "thoughtSignature": UNSIGNED,
                },
                {"functionCall": {"id": "call_2", "name": "now", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "call_1", "name": "get_weather", "response": {"output": "Rain"}}},
                {
                    "functionResponse": {
                        "id": "call_2",
                        "name": "now",
                        "response": {"output": "see"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
                    }
                },
            ],
        },
        {"role": "user", "parts": [{"text": ""}]},
        {"role": "model", "parts": [{"text": "So"}, {"text": "no"}]},
        {"role": "user", "parts": [{"text": "Why?"}]},
        {"role": "model", "parts": [{"text": "I will not say."}]},
        {"role": "user", "parts": [{"text": "Please."}]},
    ]


def test_tool_results_of_two_turns_stay_apart() -> None:
    roles = [
        turn["role"]
        for turn in contents(HELLO, called(CALL), result("call_1", "a"), called(CALL), result("call_1", "b"))
    ]
    assert roles == ["user", "model", "user", "model", "user"]


def test_the_signature_of_a_call_goes_back_to_where_it_came_from() -> None:
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "CiQB"}}}
    (_, turn, _) = contents(HELLO, called(signed, {**CALL, "id": "call_2"}), result("call_1", "a"))
    assert [part.get("thoughtSignature") for part in turn["parts"]] == ["CiQB", None]


def test_only_models_that_insist_on_signatures_get_a_substitute() -> None:
    (_, turn) = contents(HELLO, called(CALL), model=OLD)
    assert "thoughtSignature" not in turn["parts"][0]
    for strange in ("CiQB", {"google": "CiQB"}, {"google": {"thought_signature": 5}}, [], None):
        (_, turn) = contents(HELLO, called({**CALL, "extra_content": strange}))
        assert turn["parts"][0]["thoughtSignature"] == UNSIGNED


def test_geminis_own_fields_go_out_as_the_clients_bytes() -> None:
    own = b'"safetySettings":[{"category":"X",  "threshold":"OFF"}],"cachedContent":"cachedContents/1"'
    config = b'"generationConfig":{"topA":123456789012345678901234567890.10}'
    body = b'{"messages":[{"role":"user","content":"x"}],%b,%b,"seed":1}' % (own, config)
    out = DIALECT.chat_request(parse_chat_request(body), FLASH).body
    assert own in out
    assert b'"generationConfig":{"seed":1,"topA":123456789012345678901234567890.10}' in out


def test_schemas_and_arguments_keep_their_bytes() -> None:
    body = (
        b'{"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"1","type":"function",'
        b'"function":{"name":"f","arguments":"{\\"n\\": 12345678901234567890.10}"}}]}],'
        b'"tools":[{"type":"function","function":{"name":"f","parameters":{"maximum":1e400,"type":"object"}}}]}'
    )
    out = DIALECT.chat_request(parse_chat_request(body), FLASH).body
    assert b'"n":12345678901234567890.10' in out
    assert b'{"maximum":1e400,"type":"object"}' in out


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3.8-flash", "/models/gemini-3.8-flash:"),
        ("models/gemini-3.8-flash", "/models/gemini-3.8-flash:"),
        ("gemini-/../../x?key=1#", "/models/gemini-%2F..%2F..%2Fx%3Fkey%3D1%23:"),
        ("gemini-x HTTP/1.1\r\nhost: y", "/models/gemini-x%20HTTP%2F1.1%0D%0Ahost%3A%20y:"),
    ],
)
def test_a_models_name_stays_one_part_of_the_path(model: str, path: str) -> None:
    assert DIALECT.chat_request(request(), model).path == f"{path}generateContent"
    assert DIALECT.chat_request(request(stream=True), model).path == f"{path}streamGenerateContent?alt=sse"


def test_nesting_that_only_just_passed_the_gateway_is_no_accident() -> None:
    outcomes = set()
    for depth in range(800, 1_100):
        body = b'{"messages":[{"role":"user","content":"x"}],"audio":' + b"[" * depth + b"]" * depth + b"}"
        try:
            DIALECT.chat_request(parse_chat_request(body), "m")
        except InvalidRequest as error:
            outcomes.add(error.code)
    assert outcomes == {"unsupported_parameter", "invalid_json"}
