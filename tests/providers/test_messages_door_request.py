"""What Anthropic's requests become, held against the types of both official SDKs."""

import json
from collections.abc import Iterable
from typing import Any, get_type_hints

import pytest
from anthropic.types.message_create_params import MessageCreateParams, MessageCreateParamsBase
from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import BaseModel, TypeAdapter

from lexora.core.chat import ChatRequest
from lexora.core.continuation import continued
from lexora.core.errors import InvalidRequest
from lexora.core.ports import SoFar
from lexora.providers import messages_door_request
from lexora.providers.anthropic import AnthropicDialect
from lexora.providers.messages_door import MessagesDoor

DOOR = MessagesDoor()
HELLO = {"role": "user", "content": "Hello"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PNG_URL = "data:image/png;base64,iVBORw0KGgo="
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjcK"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather", "input_schema": SCHEMA}
FUNCTION = {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}
SENT_TOOL = {"type": "function", "function": FUNCTION}
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}

ANTHROPIC = TypeAdapter[Any](MessageCreateParams)
OPENAI = TypeAdapter[Any](CompletionCreateParams)
# These the SDK does not know: it is of the API's version after the one that has them.
SAMPLING = {"temperature", "top_p", "top_k"}


def walked(value: Any) -> None:
    """Validates what pydantic validates only while it is walked."""
    if isinstance(value, BaseModel):
        walked(value.model_dump())
    elif isinstance(value, dict):
        list(map(walked, value.values()))
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        list(map(walked, value))


def parsed(**fields: Any) -> ChatRequest:
    return DOOR.request(json.dumps({"model": "m", "max_tokens": 9, "messages": [HELLO], **fields}).encode())


def sent(**fields: Any) -> dict[str, Any]:
    """What goes on for `fields`, once both SDKs' types have found nothing wrong."""
    asked = {"model": "m", "max_tokens": 9, "messages": [HELLO], **fields}
    walked(
        ANTHROPIC.validate_python(
            {name: value for name, value in asked.items() if name not in SAMPLING and value is not None}
        )
    )
    out = {name: json.loads(bytes(raw)) for name, raw in parsed(**fields).fields.items()}
    walked(OPENAI.validate_python(out))
    return out


def sent_messages(*messages: Any) -> list[Any]:
    said: list[Any] = sent(messages=[*messages])["messages"]
    return said


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parsed(**fields)
    assert caught.value.status == 400
    return caught.value


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*blocks]}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def test_the_least_request() -> None:
    assert sent() == {"model": "m", "max_completion_tokens": 9, "messages": [HELLO]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"system": "Be brief."}, {"messages": [{"role": "system", "content": "Be brief."}, HELLO]}),
        ({"system": ""}, {}),
        (
            {"system": [text("Be brief.", **EPHEMERAL), text("Be kind.")]},
            {"messages": [{"role": "system", "content": "Be brief.\nBe kind."}, HELLO]},
        ),
        (
            {"system": [text("x-anthropic-billing-header: cc_version=2.1; cch=eb6c6;"), text("Be kind.")]},
            {"messages": [{"role": "system", "content": "Be kind."}, HELLO]},
        ),
        (
            {"system": "x-anthropic-billing-header: cch=eb6c6;\nBe kind."},
            {"messages": [{"role": "system", "content": "Be kind."}, HELLO]},
        ),
        ({"stop_sequences": ["###", "END"]}, {"stop": ["###", "END"]}),
        ({"stop_sequences": []}, {}),
        ({"temperature": 0.25, "top_p": 0.5, "top_k": 40}, {"temperature": 0.25, "top_p": 0.5, "top_k": 40}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {"stream": False}),
        ({"metadata": {"user_id": "u-1"}}, {"user": "u-1"}),
        ({"metadata": {"user_id": None}}, {}),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, {}),
        ({"thinking": {"type": "between_tools"}}, {}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 8192}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, {"reasoning_effort": "high"}),
        ({"output_config": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "max"}},
            {"reasoning_effort": "max"},
        ),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "none"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        (
            {"output_format": {"type": "json_schema", "schema": SCHEMA}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"service_tier": "auto"}, {}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"speed": "standard", "diagnostics": {}, "user_profile_id": "p", **EPHEMERAL}, {}),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}, {}),
        ({"context_management": {}}, {}),
        ({"container": None, "system": None, "tools": None, "metadata": None}, {}),
        ({"tools": []}, {}),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
        ({"tools": [TOOL]}, {"tools": [SENT_TOOL]}),
        (
            {"tools": [{**TOOL, **EPHEMERAL, "type": "custom", "eager_input_streaming": True}]},
            {"tools": [SENT_TOOL]},
        ),
        (
            {"tools": [{**TOOL, "strict": True, "allowed_callers": ["direct"], "defer_loading": False}]},
            {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
        ),
        (
            {"tools": [{**TOOL, "input_examples": [{"city": "Oslo"}]}]},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {**FUNCTION, "parameters": {**SCHEMA, "examples": [{"city": "Oslo"}]}},
                    }
                ]
            },
        ),
        (
            {"tools": [{"name": "now", "input_schema": {"type": "object"}}]},
            {"tools": [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]},
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, {"tools": [SENT_TOOL], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tools": [SENT_TOOL], "tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tools": [SENT_TOOL], "tool_choice": "none"}),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
            },
            {
                "tools": [SENT_TOOL],
                "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
                "parallel_tool_calls": False,
            },
        ),
        # The upstream's own fields pass as they are.
        ({"seed": 7, "min_p": 0.1}, {"seed": 7, "min_p": 0.1}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(**fields) == {"model": "m", "max_completion_tokens": 9, "messages": [HELLO], **expected}


def test_a_long_user_id_is_shortened_and_stays_the_same_one() -> None:
    agent = json.dumps({"device_id": "d" * 64, "session_id": "s"})
    users = [sent(metadata={"user_id": agent})["user"] for _ in range(2)]
    assert len(users[0]) == 64
    assert users[0] == users[1] != sent(metadata={"user_id": agent + "2"})["user"]
    assert sent(metadata={"user_id": "u" * 64})["user"] == "u" * 64


def test_a_request_without_a_model_is_the_default_models() -> None:
    request = DOOR.request(json.dumps({"max_tokens": 1, "messages": [HELLO]}).encode())
    assert request.known.model is None
    assert "model" not in request.fields


def test_extensions_and_what_the_gateway_reads() -> None:
    request = parsed(x_priority="high", x_user_id="u", x_timeout=5, stream=True, tools=[TOOL])
    known = request.known
    assert (known.x_priority, known.x_user_id, known.x_timeout) == ("high", "u", 5)
    assert not any(name.startswith("x_") for name in request.fields)
    assert request.stream
    assert request.include_usage
    assert known.tools is not None
    assert request.latest()[0] == "Hello"
    assert refusal(x_priority="now").param == "x_priority"


def test_a_known_prompt_can_be_answered_by_a_prepared_answer() -> None:
    assert parsed(messages=[user(text("Hello"))]).lone_prompt() == "Hello"
    assert parsed(system="Be brief.").lone_prompt() is None


# --- the conversation ----------------------------------------------------------------------------------------------


def test_a_conversation_with_tools() -> None:
    said = sent_messages(
        user(text("Weather?", **EPHEMERAL), text("In Oslo.")),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Ask.", "signature": "s"},
                {"type": "redacted_thinking", "data": "xyz"},
                text("Let me "),
                text("look."),
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}, **EPHEMERAL},
                {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
            ],
        },
        user(
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain", **EPHEMERAL},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("no"), text("clock")], "is_error": True},
            text("And?"),
        ),
        {"role": "system", "content": [text("Be quick.")]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_3", "name": "now", "input": {"a": 1.0}}]},
        user({"type": "tool_result", "tool_use_id": "toolu_3"}),
        {"role": "assistant", "content": []},
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "So."},
        HELLO,
    )
    arguments = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    assert said == [
        user(text("Weather?"), text("In Oslo.")),
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "Ask.",
            "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": arguments},
                {"id": "toolu_2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "Rain"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no\nclock"},
        {"role": "user", "content": "And?\n\n<system-reminder>\nBe quick.\n</system-reminder>"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "toolu_3", "type": "function", "function": {"name": "now", "arguments": '{"a":1.0}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_3", "content": ""},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "So."},
        HELLO,
    ]


def test_there_is_one_system_message_and_it_is_the_first() -> None:
    """What Claude Code sends, and what templates such as Qwen's refuse otherwise."""
    later = "<system-reminder>\nBe quick.\n</system-reminder>"
    quick = {"role": "system", "content": "Be quick."}
    system = {"role": "system", "content": "Be brief."}
    assert sent(system="Be brief.", messages=[HELLO, quick])["messages"] == [
        system,
        {"role": "user", "content": f"Hello\n\n{later}"},
    ]
    said = sent_messages(user(text("See"), {"type": "image", "source": PNG}), quick)
    assert [part["type"] for part in said[0]["content"]] == ["text", "image_url", "text"]
    assert said[0]["content"][2]["text"] == later
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "now", "input": {}}]}
    result = user({"type": "tool_result", "tool_use_id": "t", "content": "noon"})
    assert sent_messages(HELLO, call, result, quick)[2:] == [
        {"role": "tool", "tool_call_id": "t", "content": "noon"},
        {"role": "user", "content": later},
    ]
    assert sent(system="Be brief.", messages=[quick, HELLO])["messages"] == [
        {"role": "system", "content": "Be brief.\nBe quick."},
        HELLO,
    ]
    assert sent_messages(quick, HELLO) == [quick, HELLO]


def test_images_and_documents() -> None:
    [said] = sent_messages(
        user(
            {"type": "image", "source": PNG, **EPHEMERAL},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.webp"}},
            {"type": "document", "source": PDF, "title": "a.pdf", "context": "From Oslo"},
            {"type": "document", "source": PDF},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Rain"}, "title": "T"},
            {"type": "document", "source": {"type": "content", "content": "Snow"}, "citations": {"enabled": False}},
            {
                "type": "document",
                "source": {"type": "content", "content": [text("Hail"), {"type": "image", "source": PNG}]},
            },
            {"type": "search_result", "source": "https://e.com", "title": "W", "content": [text("Sun"), text("Wind")]},
        )
    )
    pdf = "data:application/pdf;base64,JVBERi0xLjcK"
    assert said["content"] == [
        {"type": "image_url", "image_url": {"url": PNG_URL}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.webp"}},
        text("a.pdf\nFrom Oslo"),
        {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": pdf}},
        text("T"),
        text("Rain"),
        text("Snow"),
        text("Hail"),
        {"type": "image_url", "image_url": {"url": PNG_URL}},
        text("W\nhttps://e.com\nSun\nWind"),
    ]


def test_images_that_tools_return_follow_in_a_message_of_the_users() -> None:
    said = sent_messages(
        HELLO,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "see", "input": {}}]},
        user(
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [text("Seen."), {"type": "image", "source": PNG}],
            },
            text("What is it?"),
        ),
    )
    note = "(The rest of the result is in the next message.)"
    assert said[2:] == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": f"Seen.\n{note}"},
        user(
            text("The rest of the result of toolu_1:"),
            {"type": "image_url", "image_url": {"url": PNG_URL}},
            text("What is it?"),
        ),
    ]


# --- to Anthropic itself -------------------------------------------------------------------------------------------


def to_anthropic(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(AnthropicDialect().chat_request(parsed(**fields), "claude").body)
    return body


def thinking(signature: str) -> list[Any]:
    block = {"type": "thinking", "thinking": "Hm.", "signature": signature}
    return [HELLO, {"role": "assistant", "content": [block, text("Hi")]}, HELLO]


def test_anthropic_gets_what_was_sent_to_it() -> None:
    fields = {
        "system": [text("x-anthropic-billing-header: cch=eb6c6;"), text("Be brief.", **EPHEMERAL)],
        "messages": thinking("sig"),
        "tools": [{**TOOL, **EPHEMERAL}],
        "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
        "metadata": {"user_id": "u" * 100},
        "stream": True,
    }
    assert to_anthropic(**fields, x_priority="low") == {"model": "claude", "max_tokens": 9, **fields}


def test_what_one_deployment_is_told_besides_keeps_the_request_whole_for_the_next() -> None:
    fields = parsed(system="Be brief.").setting("priority", 1)
    assert json.loads(AnthropicDialect().chat_request(fields, "m").body)["system"] == "Be brief."


def test_anthropic_is_not_shown_the_thinking_of_others() -> None:
    assert to_anthropic(messages=thinking(""))["messages"] == [HELLO, {"role": "assistant", "content": "Hi"}, HELLO]


def test_the_rest_of_an_answer_is_asked_for_in_the_gateways_way() -> None:
    request = continued(parsed(system="Be brief."), SoFar("So ", 1), {})
    body = json.loads(AnthropicDialect().chat_request(request, "claude").body)
    assert body["messages"] == [HELLO, {"role": "assistant", "content": "So"}]
    assert body["max_tokens"] == 8


# --- refusals ------------------------------------------------------------------------------------------------------


def document(**fields: Any) -> dict[str, Any]:
    return {"type": "document", "source": PDF, **fields}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [user()]}, "messages[0].content"),
        ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [HELLO, {"role": "assistant", "content": "{"}]}, "messages[1]"),
        (
            {"messages": [HELLO, {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f"}]}]},
            "messages[1].content[0].input",
        ),
        (
            {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]},
            "messages[0].content[0].source",
        ),
        ({"messages": [user(text("a"), document(citations={"enabled": True}))]}, "messages[0].content[1].citations"),
        (
            {"messages": [user(document(source={"type": "url", "url": "https://e.com"}))]},
            "messages[0].content[0].source",
        ),
        ({"messages": [user(document(source={"type": "file", "file_id": "f"}))]}, "messages[0].content[0].source"),
        (
            {"messages": [user(document(source={**PDF, "media_type": "text/csv"}))]},
            "messages[0].content[0].source.media_type",
        ),
        (
            {
                "messages": [
                    user(
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}],
                        }
                    )
                ]
            },
            "messages[0].content[0].content[0].source",
        ),
        ({"messages": [user({"type": "container_upload", "file_id": "f"})]}, "messages[0].content[0].type"),
        (
            {"messages": [user({"type": "tool_use", "id": "1", "name": "f", "input": {}})]},
            "messages[0].content[0].type",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}}],
                    },
                    HELLO,
                ]
            },
            "messages[0].content[0].type",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}, "tools[1].type"),
        ({"tools": [{"type": "computer_toolset_20260801"}]}, "tools[0].type"),
        ({"tools": [{"input_schema": SCHEMA}]}, "tools[0].name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "allowed_callers": ["code_execution_20250825"]}]}, "tools[0].allowed_callers"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"output_config": {"effort": "most"}}, "output_config.effort"),
        ({"speed": "fast"}, "speed"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits[0].type"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"stop_sequences": ["a"], "stop": "b"}, "stop"),
        ({"max_completion_tokens": 8}, "max_completion_tokens"),
    ],
)
def test_refusals_name_the_clients_own_field(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert error.message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b'{"max_tokens": 1, "messages": "\xff"}', "invalid_utf8"),
        (b'{"seed": ' + b"[" * 100_000, "invalid_json"),
        (
            b'{"max_tokens":1,"messages":[{"role":"user","content":"x"}],"system":' + b"[" * 900 + b"]" * 900 + b"}",
            "invalid_value",
        ),
    ],
)
def test_a_body_that_is_none(body: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DOOR.request(body)
    assert caught.value.code == code


def test_every_field_of_the_api_is_mapped_known_to_be_irrelevant_or_refused() -> None:
    """A field that the SDK comes to know fails here until somebody has decided what becomes of it."""
    decided = messages_door_request._CONSUMED | messages_door_request._REFUSED.keys() | {"stream"}
    assert get_type_hints(MessageCreateParamsBase).keys() <= decided


def test_tokens_are_counted_without_a_limit() -> None:
    request = messages_door_request.chat_request(json.dumps({"model": "m", "messages": [HELLO]}).encode(), counted=True)
    assert "max_completion_tokens" not in request.fields


def test_marks_reach_every_block_that_has_one() -> None:
    kept = {"cache_control": {"type": "ephemeral"}}
    body = {
        **kept,  # the end of the prompt
        "max_tokens": 5,
        "system": [{"type": "text", "text": "Be brief.", **kept}],
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "d"}, **kept}]},
            {
                "role": "assistant",
                "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "a"}],
            },
            {"role": "user", "content": [{"type": "text", "text": "b"}]},
        ],
    }
    plain = messages_door_request.chat_request(json.dumps(body).encode())
    assert b"cache_control" not in b"".join(plain.fields.values())
    assert json.loads(bytes(messages_door_request.marked(plain).fields["messages"])) == [
        {
            "role": "system",
            "content": [{"type": "text", "text": "Be brief.", **kept}, {"type": "text", "text": "Be kind."}],
        },
        {"role": "user", "content": [{"type": "text", "text": "d", **kept}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "a"}],
            "thinking_blocks": [{"type": "redacted_thinking", "data": "x"}],
        },
        {"role": "user", "content": [{"type": "text", "text": "b", **kept}]},
    ]
