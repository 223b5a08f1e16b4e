"""A request of OpenAI's Responses API as a chat completion's (https://platform.openai.com/docs/api-reference/responses).

Every field of that API is translated, known not to change the answer, or refused with what to do instead. Any other
field is taken for the model's own and goes on as the client's bytes, as in a chat completion.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Raw

from lexora.core.chat import Cached, Name, Seconds
from lexora.core.errors import InvalidRequest
from lexora.providers.responses_door_items import decode, unsupported

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_Key = Annotated[str, msgspec.Meta(max_length=64)]
_Value = Annotated[str, msgspec.Meta(max_length=512)]


class Reasoning(msgspec.Struct):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    mode: str | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    pass


class JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema", omit_defaults=True):
    name: str
    schema: dict[str, Raw]
    description: str | None = None
    strict: bool | None = None


class Text(msgspec.Struct):
    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _Named(msgspec.Struct):
    type: Literal["function"]
    name: str


class _ToolChoice(msgspec.Struct):
    """A function by its name, or the ones that may be called at all."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[_Named] | None = None


class _Function(msgspec.Struct, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class ResponsesFields(msgspec.Struct, gc=False):
    """The fields of a request for a response that the gateway itself relies on (OpenAI's names; `x_*` are ours)."""

    input: str | list[Raw]
    model: Name | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    tools: list[Raw] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: Annotated[dict[_Key, _Value], msgspec.Meta(max_length=16)] | None = None
    max_tool_calls: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    x_priority: Literal["high", "normal", "low"] | None = None
    x_user_id: Name | None = None
    x_timeout: Seconds | None = None
    x_cache: Cached | None = None

    @property
    def logprobs(self) -> bool:
        return bool(self.top_logprobs) or _LOGPROBS in (self.include or ())


class Asked(NamedTuple):
    """A request as it was asked: `fields` are the client's own bytes, without those that are null."""

    known: ResponsesFields
    fields: Mapping[str, Raw]


class _Refused(NamedTuple):
    """A field that the gateway can do nothing with: the values that ask for nothing, and what else to do."""

    harmless: tuple[object, ...]
    instead: str


_REFUSED = {
    "background": _Refused((False,), "Leave it out, and read the answer as a stream if it takes long."),
    "background_options": _Refused(({},), "Leave it out."),
    "conversation": _Refused((), "Leave it out, and send the conversation so far as 'input'."),
    "prompt": _Refused((), "Leave it out, and send the prompt's text as 'instructions' or 'input'."),
    "truncation": _Refused(("disabled",), "Leave it out, and send no more than the model can read."),
    "context_management": _Refused(([],), "Leave it out, and send no more than the model can read."),
    "moderation": _Refused((), "Leave it out, or moderate in a request of its own."),
    "access_programs": _Refused(({},), "Leave it out."),
    "image": _Refused(({},), "Leave it out."),
    "stream_options": _Refused(({}, {"include_obfuscation": False}), "Leave it out: events carry nothing but data."),
}

# What a chat completion calls something else, and this API's name for it.
_MOVED = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "functions": "tools",
    "function_call": "tool_choice",
    "logprobs": "top_logprobs",
    "n": None,
}

_LOGPROBS = "message.output_text.logprobs"
# Results of tools that nobody here has, and reasoning for a next request, which needs none.
_INCLUDES = {
    _LOGPROBS,
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
}

# Fields that a chat completion has under the same name.
_SAME = {
    *("model", "stream", "temperature", "top_p", "user", "service_tier"),
    *("safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
}
_CONSUMED = (
    {*ResponsesFields.__struct_fields__, *_REFUSED} - _SAME - {"x_priority", "x_user_id", "x_timeout", "x_cache"}
)

_NULL = memoryview(b"null")
_FIELDS = msgspec.json.Decoder(ResponsesFields)
_FUNCTION = msgspec.json.Decoder(_Function)
_TOOL = msgspec.json.Decoder(dict[str, Any])
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any = msgspec.json.decode


def param_here(param: str | None) -> str | None:
    """This API's name for a chat completion's field, such as an upstream's error names."""
    if param is None:
        return None
    name = param.partition(".")[0].partition("[")[0]
    return _MOVED.get(name) or param


def parse(body: bytes) -> Asked:
    """Reads a request body. Raises InvalidRequest that names the field at fault."""
    try:
        body.decode()  # msgspec passes over the strings it is not asked for without looking at their encoding
        fields = {name: raw for name, raw in _decode_fields(body).items() if memoryview(raw) != _NULL}
        known = decode(_FIELDS, body, "")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid UTF-8 (byte {error.start}). Send JSON encoded as UTF-8.", code="invalid_utf8"
        ) from None
    except msgspec.ValidationError:
        raise InvalidRequest("Invalid request: the body must be a JSON object.", code="invalid_value") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
    _refuse(known, fields)
    return Asked(known, fields)


def _refuse(known: ResponsesFields, fields: Mapping[str, Raw]) -> None:
    """Raises InvalidRequest for the first thing asked for that cannot be done here."""
    for name, raw in fields.items():
        refused = _REFUSED.get(name)
        if refused is not None and _decode_any(raw) not in refused.harmless:
            message = f"The gateway cannot do what '{name}' asks for. {refused.instead}"
            raise InvalidRequest(message, param=name, code="unsupported_parameter")
        if name in _MOVED:
            here = _MOVED[name]
            instead = f"Here it is '{here}'." if here else "Ask once for each answer."
            message = f"'{name}' is a field of chat completions. {instead}"
            raise InvalidRequest(message, param=name, code="unsupported_parameter")
    for position, name in enumerate(known.include or ()):
        if name not in _INCLUDES:
            raise unsupported(f"include[{position}]", f"The gateway has no '{name}' to include. Leave it out.")
    reasoning = known.reasoning or Reasoning()
    if reasoning.mode not in (None, "standard"):
        raise unsupported("reasoning.mode", "The gateway knows only the mode 'standard'. Leave it out.")
    if reasoning.context == "all_turns":
        raise unsupported("reasoning.context", "Reasoning of earlier turns is not sent again. Leave it out.")


def chat_fields(asked: Asked, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of the chat completion that stands for the request. Raises InvalidRequest."""
    known, fields = asked
    chat: dict[str, Any] = {name: raw for name, raw in fields.items() if name not in _CONSUMED}
    chat["messages"] = messages
    if known.stream:
        chat["stream_options"] = {"include_usage": True}
    if known.max_output_tokens is not None:
        chat["max_completion_tokens"] = known.max_output_tokens
    if known.reasoning is not None and known.reasoning.effort is not None:
        chat["reasoning_effort"] = known.reasoning.effort
    if known.logprobs:
        chat["logprobs"] = True
        if known.top_logprobs:
            chat["top_logprobs"] = known.top_logprobs
    return {**chat, **_text(known.text or Text()), **_tools(known)}


def _text(text: Text) -> dict[str, Any]:
    """`response_format` and `verbosity`."""
    chat: dict[str, Any] = {}
    match text.format:
        case JsonObjectFormat():
            chat["response_format"] = {"type": "json_object"}
        case JsonSchemaFormat(name=name, schema=schema, description=description, strict=strict):
            described = {"description": description} if description is not None else {}
            strictly = {"strict": strict} if strict is not None else {}
            form = {"name": name, **described, "schema": schema, **strictly}
            chat["response_format"] = {"type": "json_schema", "json_schema": form}
    if text.verbosity is not None:
        chat["verbosity"] = text.verbosity
    return chat


def _tools(known: ResponsesFields) -> dict[str, Any]:
    """`tools`, `tool_choice` and `parallel_tool_calls`."""
    functions = [_function(raw, f"tools[{position}]") for position, raw in enumerate(known.tools or ())]
    choice: Any = known.tool_choice
    if isinstance(choice, _ToolChoice):
        functions, choice = _choose(choice, functions)
    if not functions:
        if choice in (None, "none", "auto"):
            return {}
        raise InvalidRequest(
            "'tool_choice' asks for a tool, and 'tools' has none.", param="tool_choice", code="invalid_value"
        )
    chat: dict[str, Any] = {"tools": [{"type": "function", "function": function} for function in functions]}
    if choice is not None:
        chat["tool_choice"] = choice
    if known.parallel_tool_calls is not None:
        chat["parallel_tool_calls"] = known.parallel_tool_calls
    return chat


def _function(raw: Raw, where: str) -> _Function:
    tool = decode(_TOOL, raw, where)
    if tool.get("type") != "function":
        message = f"The gateway has no tools of its own such as '{tool.get('type')}'. Offer functions that you run."
        raise unsupported(f"{where}.type", message)
    for name in ("async", "defer_loading", "output_schema"):
        if tool.get(name):
            raise unsupported(f"{where}.{name}", f"The gateway cannot do what '{name}' asks for. Leave it out.")
    if tool.get("allowed_callers") not in (None, ["direct"]):
        raise unsupported(f"{where}.allowed_callers", "Functions can only be called by the model. Leave it out.")
    return decode(_FUNCTION, raw, where)


def _choose(choice: _ToolChoice, functions: list[_Function]) -> tuple[list[_Function], Any]:
    """The functions that may be called, and a chat completion's `tool_choice` among them."""
    names = {function.name for function in functions}
    if choice.type == "function" and choice.name is not None:
        if choice.name not in names:
            raise _unknown_function(choice.name, "tool_choice.name")
        return functions, {"type": "function", "function": {"name": choice.name}}
    if choice.type == "allowed_tools" and choice.tools:
        allowed = [tool.name for tool in choice.tools]
        for position, name in enumerate(allowed):
            if name not in names:
                raise _unknown_function(name, f"tool_choice.tools[{position}].name")
        # Not every model server knows this choice; that the others are not offered means the same.
        return [function for function in functions if function.name in allowed], choice.mode
    raise unsupported("tool_choice", "Choose 'none', 'auto', 'required', a function by its name, or allowed_tools.")


def _unknown_function(name: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"'tools' has no function '{name}'.", param=param, code="invalid_value")
