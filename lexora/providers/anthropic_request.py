"""OpenAI's chat request as Anthropic's (https://platform.claude.com/docs/en/api/messages).

Every field of OpenAI's API is mapped, known not to change the answer, or refused with what to do instead. Any other
field (`thinking`, `top_k`, `cache_control`, …) is taken for Anthropic's own and goes out as the client's bytes.
"""

from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from lexora.core.chat import ChatRequest, invalid_field
from lexora.core.errors import InvalidRequest
from lexora.providers.anthropic_messages import Block, Message, conversation, unsupported


class _TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    pass


class _JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    pass


class _Schema(msgspec.Struct):
    schema: dict[str, Raw]
    description: str | None = None


class _JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    json_schema: _Schema


class _ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: Literal["function"]
    function: _ToolFunction
    cache_control: Raw | UnsetType = UNSET


class _Named(msgspec.Struct):
    name: str


class _NamedTool(msgspec.Struct):
    type: Literal["function"]
    function: _Named


class _Mapped(msgspec.Struct):
    """The fields of OpenAI's request that have a counterpart of another name, form or range."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: _TextFormat | _JsonObjectFormat | _JsonSchemaFormat | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedTool | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None


class _Refused(NamedTuple):
    """A field that Anthropic has no counterpart for: the values that ask for nothing, and what else to do."""

    harmless: tuple[object, ...]
    instead: str


_REFUSED = {
    "n": _Refused((1,), "Ask once for each answer."),
    "logprobs": _Refused((False,), "Leave it out, or choose a model of another provider."),
    "top_logprobs": _Refused((0,), "Leave it out, or choose a model of another provider."),
    "logit_bias": _Refused(({},), "Leave it out, or choose a model of another provider."),
    "presence_penalty": _Refused((0,), "Leave it out, or say in the prompt what not to repeat."),
    "frequency_penalty": _Refused((0,), "Leave it out, or say in the prompt what not to repeat."),
    "seed": _Refused((), "Leave it out: an answer cannot be repeated."),
    "modalities": _Refused((["text"],), 'Leave it out, or send ["text"].'),
    "audio": _Refused((), "Leave it out: answers are text."),
    "prediction": _Refused((), "Leave it out: answers take no prediction."),
    "moderation": _Refused((), "Leave it out, or moderate in a request of its own."),
    "verbosity": _Refused(("medium",), "Leave it out, or say in the prompt how long the answer is to be."),
    "web_search_options": _Refused((), "Leave it out, or offer a search tool of your own in `tools`."),
    "service_tier": _Refused(("auto", "default"), "Leave it out, or send 'auto' or 'default'."),
    "functions": _Refused(([],), "Send `tools`."),
    "function_call": _Refused((), "Send `tool_choice`."),
}

# Bookkeeping of OpenAI's own and hints about its cache: no answer depends on them.
_IRRELEVANT = {
    "store",
    "metadata",
    "stream_options",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
}

_CONSUMED = {"model", *_Mapped.__struct_fields__, *_REFUSED, *_IRRELEVANT} - {"temperature"}

_TOOL_CHOICE = {"none": "none", "auto": "auto", "required": "any"}

_NULL = memoryview(b"null")

_encode = msgspec.json.encode
_decode_any = msgspec.json.decode
_decode_mapped = msgspec.json.Decoder(_Mapped).decode


def messages_request(request: ChatRequest, upstream_model: str, default_max_tokens: int) -> bytes:
    """The body for `/messages`. Raises InvalidRequest for what cannot be understood, and for what Anthropic cannot do.

    `default_max_tokens` is for requests that set no limit: Anthropic's API requires one.
    """
    fields = {name: raw for name, raw in request.fields.items() if memoryview(raw) != _NULL}
    try:
        _refuse(fields)
        asked = _decode_mapped(_encode(fields))
    except msgspec.ValidationError as error:
        raise invalid_field(str(error)) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
    if asked.temperature is not None and asked.temperature > 1:
        raise unsupported("temperature", "Anthropic's temperature goes from 0 to 1, OpenAI's to 2. Send at most 1.")
    limits = (asked.max_completion_tokens, asked.max_tokens)
    out: dict[str, Any] = {
        "model": upstream_model,
        "max_tokens": next((limit for limit in limits if limit is not None), default_max_tokens),
        **conversation(asked.messages),
        **_tools(asked),
        **_output(asked),
    }
    if asked.stop:
        out["stop_sequences"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if asked.user:
        out["metadata"] = {"user_id": asked.user}
    for name, raw in fields.items():
        if name in _CONSUMED:
            continue
        if name in out:
            message = f"'{name}' is Anthropic's own name for what this request says in OpenAI's way too. Say it once."
            raise InvalidRequest(message, param=name, code="invalid_value")
        out[name] = raw
    return _encode(out)


def _refuse(fields: dict[str, Raw]) -> None:
    """Raises InvalidRequest for the first field that asks for what Anthropic cannot do."""
    for name, raw in fields.items():
        refused = _REFUSED.get(name)
        if refused is not None and _decode_any(raw) not in refused.harmless:
            message = f"Anthropic's models cannot do what '{name}' asks for. {refused.instead}"
            raise InvalidRequest(message, param=name, code="unsupported_parameter")


def _tools(asked: _Mapped) -> dict[str, Any]:
    """`tools` and `tool_choice`."""
    choice = asked.tool_choice
    if not asked.tools:
        if choice in (None, "none", "auto"):
            return {}
        raise InvalidRequest("'tool_choice' asks for a tool, and 'tools' has none.", param="tool_choice")
    out: dict[str, Any] = {"tools": [_tool(tool) for tool in asked.tools]}
    if isinstance(choice, _NamedTool):
        out["tool_choice"] = {"type": "tool", "name": choice.function.name}
    elif choice or asked.parallel_tool_calls is False:
        out["tool_choice"] = {"type": _TOOL_CHOICE[choice or "auto"]}
    if asked.parallel_tool_calls is False and choice != "none":
        out["tool_choice"]["disable_parallel_tool_use"] = True
    return out


def _tool(tool: _Tool) -> Block:
    function = tool.function
    # No parameters means none to OpenAI; Anthropic wants the type said.
    block: Block = {"name": function.name, "input_schema": {"type": "object", **(function.parameters or {})}}
    if function.description:
        block["description"] = function.description
    if function.strict:
        block["strict"] = True
    if tool.cache_control is not UNSET:
        block["cache_control"] = tool.cache_control
    return block


def _output(asked: _Mapped) -> dict[str, Any]:
    """`output_config` and `thinking`: how hard to try, and in what form to answer."""
    config: dict[str, Any] = {}
    out: dict[str, Any] = {}
    if asked.reasoning_effort == "none":
        out["thinking"] = {"type": "disabled"}
    elif asked.reasoning_effort:
        # Anthropic's least effort is "low".
        config["effort"] = "low" if asked.reasoning_effort == "minimal" else asked.reasoning_effort
    match asked.response_format:
        case _JsonObjectFormat():
            raise unsupported(
                "response_format.type",
                "Anthropic has no JSON mode without a schema. Send 'json_schema', or ask for JSON in the prompt.",
            )
        case _JsonSchemaFormat(json_schema=form):
            described = {"description": form.description} if form.description else {}
            config["format"] = {"type": "json_schema", "schema": {**described, **form.schema}}
    return {**out, "output_config": config} if config else out
