"""Anthropic's request as OpenAI's chat request (https://platform.claude.com/docs/en/api/messages).

Every field of Anthropic's API is mapped, known not to change the answer, or refused with what to do instead. Any other
field (`seed`, `min_p`, `chat_template_kwargs`, …) is taken for the upstream's own and goes out as the client's bytes.
"""

import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Raw

from lexora.core.chat import Cached, ChatRequest, Name, Seconds, invalid_field, parse_chat_request
from lexora.core.errors import InvalidRequest
from lexora.providers.chat_fields import unsupported
from lexora.providers.messages_door_blocks import Message, Text
from lexora.providers.messages_door_content import conversation, is_anthropics, mark_end, system_message


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _ThinkingEnabled(msgspec.Struct, tag_field="type", tag="enabled"):
    budget_tokens: int


class _ThinkingDisabled(msgspec.Struct, tag_field="type", tag="disabled"):
    pass


class _ThinkingAdaptive(msgspec.Struct, tag_field="type", tag="adaptive"):
    """As much as the model likes: what models do that are told nothing."""


class _ThinkingBetweenTools(_ThinkingAdaptive, tag="between_tools"):
    pass


class _Format(msgspec.Struct, tag_field="type", tag="json_schema"):
    schema: dict[str, Raw]


class _OutputConfig(msgspec.Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _Format | None = None


class _Tool(msgspec.Struct):
    cache_control: dict[str, Any] | None = None
    type: str | None = None
    name: str | None = None
    input_schema: dict[str, Raw] | None = None
    description: str | None = None
    strict: bool | None = None
    input_examples: list[Raw] | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None


class _Choice(msgspec.Struct, tag_field="type"):
    disable_parallel_tool_use: bool = False


class _Auto(_Choice, tag="auto"):
    pass


class _Any(_Choice, tag="any"):
    pass


class _Named(_Choice, tag="tool", kw_only=True):
    name: str


class _NoTool(_Choice, tag="none"):
    pass


class _Edit(msgspec.Struct):
    type: str


class _ContextManagement(msgspec.Struct):
    edits: list[_Edit] = []


class MessagesFields(msgspec.Struct):
    """The fields of Anthropic's request that have a counterpart of another name, form or range."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    system: str | list[Text] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    metadata: _Metadata | None = None
    thinking: _ThinkingEnabled | _ThinkingDisabled | _ThinkingAdaptive | _ThinkingBetweenTools | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None  # where `output_config.format` was while it was a beta
    tools: list[_Tool] | None = None
    tool_choice: _Auto | _Any | _Named | _NoTool | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None
    context_management: _ContextManagement | None = None
    cache_control: dict[str, Any] | None = None


class CountedRequest(MessagesFields):
    """All that is read of a request: those, and what the gateway reads of any (`x_*` are its own)."""

    model: Name | None = None
    stream: bool | None = None
    x_priority: Literal["high", "normal", "low"] | None = None
    x_user_id: Name | None = None
    x_timeout: Seconds | None = None
    x_cache: Cached | None = None


class MessagesRequest(CountedRequest, kw_only=True):
    """The same of one that is answered."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1)]


_NOT_IN_A_MESSAGE = "Leave it out: a message has no room for what it asks for."
_REFUSED = {
    "container": "Leave it out: no code is run here.",
    "mcp_servers": "Leave it out, and offer the servers' tools in `tools`.",
    "inference_geo": "Leave it out: where a model runs is the gateway's configuration.",
    "n": "Leave it out, and ask once for each answer.",
    "logprobs": _NOT_IN_A_MESSAGE,
    "top_logprobs": _NOT_IN_A_MESSAGE,
    "modalities": _NOT_IN_A_MESSAGE,
    "audio": _NOT_IN_A_MESSAGE,
    "functions": "Send `tools`.",
    "function_call": "Send `tool_choice`.",
}

# Bookkeeping and hints about a cache: no answer depends on them. `stream_options` is the gateway's own matter here.
_IRRELEVANT = {"diagnostics", "user_profile_id", "workspace_id", "stream_options"}

_CONSUMED = {"model", *MessagesFields.__struct_fields__, *_IRRELEVANT}

# The least budgets for thinking that are this effort: what Google counts each for, in its own API of OpenAI's form
# (https://ai.google.dev/gemini-api/docs/openai).
_EFFORTS = (("high", 24_576), ("medium", 8_192), ("low", 0))

# With this line coding agents tell Anthropic who is to be billed for the request. It differs in each one, and at the
# head of the prompt it would keep the upstream from finding the rest in its cache.
_BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")

_MOST_USER_CHARACTERS = 64  # OpenAI refuses longer ones

_NULL = memoryview(b"null")

_encode = msgspec.json.encode
_decode_asked = msgspec.json.Decoder(MessagesFields).decode


def chat_request(body: bytes, *, counted: bool = False) -> ChatRequest:
    """The request that a body asks for. Raises InvalidRequest for what cannot be understood, or not be passed on.

    `counted`: its tokens are to be counted, so that it needs no `max_tokens`, and whoever counts gets what was sent.
    """
    sent = parse_chat_request(body)
    fields = {name: raw for name, raw in sent.fields.items() if memoryview(raw) != _NULL}
    for name in _REFUSED.keys() & fields.keys():
        message = f"What '{name}' asks for cannot be done here. {_REFUSED[name]}"
        raise InvalidRequest(message, param=name, code="unsupported_parameter")
    try:
        asked = _decode_asked(_encode(fields))
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
    if asked.max_tokens is None and not counted:
        raise InvalidRequest("The field 'max_tokens' is required.", param="max_tokens", code="missing_required_field")
    out: dict[str, Any] = {
        "messages": conversation(asked.messages, _system(asked.system), counted=counted),
        **_limits(asked),
        **_tools(asked),
        **_output(asked),
    }
    if "model" in fields:
        out["model"] = fields["model"]
    if sent.stream:
        # Anthropic's streams end with the usage.
        out["stream_options"] = {"include_usage": True}
    for name, raw in fields.items():
        if name in _CONSUMED:
            continue
        if name in out:
            message = f"'{name}' is OpenAI's own name for what this request says in Anthropic's way too. Say it once."
            raise InvalidRequest(message, param=name, code="invalid_value")
        out[name] = raw
    request = parse_chat_request(_encode(out))
    known = msgspec.structs.replace(
        request.known,
        x_priority=sent.known.x_priority,
        x_user_id=sent.known.x_user_id,
        x_timeout=sent.known.x_timeout,
        x_cache=sent.known.x_cache,
    )
    anthropic = sent.fields if counted or is_anthropics(asked.messages) else None
    return msgspec.structs.replace(request, known=known, anthropic=anthropic)


def marked(request: ChatRequest) -> ChatRequest:
    """The same with the marks that Anthropic's models alone understand: what is to be cached, their signed thoughts."""
    if request.anthropic is None:
        return request
    asked = _decode_asked(_encode({name: raw for name, raw in request.anthropic.items() if memoryview(raw) != _NULL}))
    messages = conversation(asked.messages, _system(asked.system, marks=True), counted=True, marks=True)
    if asked.cache_control is not None:
        mark_end(messages[-1], asked.cache_control)
    fields = {**request.fields, "messages": Raw(_encode(messages))}
    if asked.tools:
        tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(asked.tools)]
        for tool, sent in zip(tools, asked.tools, strict=True):
            if sent.cache_control is not None:
                tool["cache_control"] = sent.cache_control
        fields["tools"] = Raw(_encode(tools))
    return msgspec.structs.replace(request, fields=fields)


def _invalid(problem: str) -> InvalidRequest:
    error = invalid_field(problem)
    if error.param and error.param.endswith(".type"):
        kind = problem.split("'")[1] if "'" in problem else "it"
        return unsupported(error.param, f"Not every model can be given '{kind}' at '{error.param}'. Leave it out.")
    return error


def _system(system: str | list[Text] | None, *, marks: bool = False) -> list[dict[str, Any]]:
    """The system prompt as a message, if there is one."""
    blocks = [Text(system)] if isinstance(system, str) else system or []
    if blocks:
        text = blocks[0].text
        blocks[0].text = _BILLING.sub("", text, 1) if _BILLING.match(text) else text
    blocks = [block for block in blocks if block.text]
    return [system_message(blocks, marks=marks)] if blocks else []


def _limits(asked: MessagesFields) -> dict[str, Any]:
    """What bounds the answer, who asks, and how fast it is to be."""
    out: dict[str, Any] = {}
    if asked.max_tokens is not None:
        out["max_completion_tokens"] = asked.max_tokens
    if asked.stop_sequences:
        out["stop"] = asked.stop_sequences
    if asked.metadata is not None and asked.metadata.user_id:
        user = asked.metadata.user_id
        # Coding agents write a whole object into it; the same user is still the same.
        out["user"] = user if len(user) <= _MOST_USER_CHARACTERS else hashlib.sha256(user.encode()).hexdigest()
    if asked.service_tier == "standard_only":
        out["service_tier"] = "default"
    if asked.speed == "fast":
        raise unsupported("speed", "No model here has a fast mode of Anthropic's. Leave it out.")
    for position, edit in enumerate(asked.context_management.edits if asked.context_management else ()):
        if not edit.type.startswith("clear_"):
            # Without the others the model sees the whole history; these would write something into it.
            where = f"context_management.edits[{position}].type"
            raise unsupported(where, f"The history cannot be edited by '{edit.type}' here. Leave it out.")
    return out


def _tools(asked: MessagesFields) -> dict[str, Any]:
    """`tools`, `tool_choice` and `parallel_tool_calls`."""
    choice = asked.tool_choice
    if not asked.tools:
        if isinstance(choice, _Any | _Named):
            raise InvalidRequest("'tool_choice' asks for a tool, and 'tools' has none.", param="tool_choice")
        return {}
    out: dict[str, Any] = {"tools": [_tool(tool, f"tools[{i}]") for i, tool in enumerate(asked.tools)]}
    match choice:
        case _Auto():
            out["tool_choice"] = "auto"
        case _Any():
            out["tool_choice"] = "required"
        case _Named(name=name):
            out["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _NoTool():
            out["tool_choice"] = "none"
    if choice is not None and choice.disable_parallel_tool_use:
        out["parallel_tool_calls"] = False
    return out


def _tool(tool: _Tool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise unsupported(
            f"{where}.type",
            f"The tool '{tool.type}' is Anthropic's own: other models do not know it, and nobody here runs it. "
            "Offer a tool with a name and an input_schema.",
        )
    if tool.defer_loading or not {"direct"}.issuperset(tool.allowed_callers or ()):
        name = "defer_loading" if tool.defer_loading else "allowed_callers"
        raise unsupported(f"{where}.{name}", "Tools are called by the model alone, which is told of all of them.")
    if tool.name is None or tool.input_schema is None:
        param = f"{where}.{'name' if tool.name is None else 'input_schema'}"
        raise InvalidRequest(f"The field '{param}' is required.", param=param, code="missing_required_field")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.input_examples:
        function["parameters"] = {**tool.input_schema, "examples": tool.input_examples}  # JSON Schema's own keyword
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _output(asked: MessagesFields) -> dict[str, Any]:
    """`reasoning_effort` and `response_format`: how hard to try, and in what form to answer."""
    config = asked.output_config or _OutputConfig()
    out: dict[str, Any] = {}
    match asked.thinking:
        case _ThinkingDisabled():
            out["reasoning_effort"] = "none"
        case _ThinkingEnabled(budget_tokens=budget) if config.effort is None:
            out["reasoning_effort"] = next(effort for effort, least in _EFFORTS if max(budget, 0) >= least)
        case _ if config.effort is not None:
            out["reasoning_effort"] = config.effort
    form = config.format or asked.output_format
    if form is not None:
        schema = {"name": "answer", "schema": form.schema, "strict": True}
        out["response_format"] = {"type": "json_schema", "json_schema": schema}
    return out
