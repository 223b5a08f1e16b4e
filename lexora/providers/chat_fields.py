"""OpenAI's chat request as dialects read it that translate it: its messages, tools and formats, and how to refuse.

(https://platform.openai.com/docs/api-reference/chat/create)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest, invalid_field
from lexora.core.errors import InvalidRequest

_T = TypeVar("_T")

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class _Part(msgspec.Struct, tag_field="type", kw_only=True):
    """`cache_control` is Anthropic's, which clients write on parts, tools and calls by wide custom."""

    cache_control: Any = None


class TextPart(_Part, tag="text"):
    text: str


class RefusalPart(_Part, tag="refusal"):
    refusal: str


class ImageUrl(msgspec.Struct):
    """`detail` is not read: it is a hint about what an image may cost."""

    url: str


class ImagePart(_Part, tag="image_url"):
    image_url: ImageUrl


class File(msgspec.Struct):
    file_data: str | None = None
    filename: str | None = None


class FilePart(_Part, tag="file"):
    file: File


class Audio(msgspec.Struct):
    data: str
    format: str


class AudioPart(_Part, tag="input_audio"):
    input_audio: Audio


InputPart = TextPart | ImagePart | FilePart | AudioPart


class Function(msgspec.Struct):
    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """`extra_content` is Google's (https://ai.google.dev/gemini-api/docs/openai): what a call must come back with."""

    id: str
    function: Function
    type: Literal["function"] = "function"
    extra_content: Any = None
    cache_control: Any = None


class SystemMessage(msgspec.Struct, tag_field="role", tag="system"):
    content: str | list[TextPart]
    name: str | None = None


class DeveloperMessage(SystemMessage, tag="developer"):
    pass


class UserMessage(msgspec.Struct, tag_field="role", tag="user"):
    content: str | list[InputPart]
    name: str | None = None


class AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None
    thinking_blocks: list[dict[str, Any]] | None = None  # LiteLLM's name for what the model wants to see again
    tool_calls: list[ToolCall] | None = None
    name: str | None = None
    audio: Any = None
    function_call: Any = None


class ToolMessage(msgspec.Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str | list[InputPart]


class FunctionMessage(msgspec.Struct, tag_field="role", tag="function"):
    pass


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


class ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    type: Literal["function"]
    function: ToolFunction
    cache_control: Any = None


class _Named(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct, tag_field="type", tag="function"):
    function: _Named


class _Allowed(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedTools(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: _Allowed


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedTools


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    pass


class Schema(msgspec.Struct):
    schema: dict[str, Raw]
    description: str | None = None


class JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    json_schema: Schema


Format = TextFormat | JsonObjectFormat | JsonSchemaFormat

# Bookkeeping of OpenAI's own and hints about its cache: no answer depends on them.
IRRELEVANT = {
    "store",
    "metadata",
    "stream_options",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
}


_NULL = memoryview(b"null")


def read(
    request: ChatRequest, decode: Callable[[bytes], _T], refused: "Mapping[str, Refused]", whose: str
) -> tuple[dict[str, Raw], _T]:
    """The fields of a request that are not null, and what `decode` reads of them. Raises InvalidRequest."""
    fields = {name: raw for name, raw in request.fields.items() if memoryview(raw) != _NULL}
    try:
        refuse(fields, refused, whose)
        return fields, decode(msgspec.json.encode(fields))
    except msgspec.ValidationError as error:
        raise invalid_field(str(error)) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None


def said_twice(name: str, whose: str) -> InvalidRequest:
    """The refusal of a provider's own field beside what means the same."""
    message = f"'{name}' is {whose} own name for what this request says in OpenAI's way too. Say it once."
    return InvalidRequest(message, param=name, code="invalid_value")


class Refused(NamedTuple):
    """A field that a provider has no counterpart for: the values that ask for nothing, and what else to do."""

    harmless: tuple[object, ...]
    instead: str


def refuse(fields: Mapping[str, Raw], refused: Mapping[str, Refused], whose: str) -> None:
    """Raises InvalidRequest for the first field that asks for what `whose` models cannot do; null asks for nothing."""
    for name, raw in fields.items():
        row = refused.get(name)
        if row is not None and msgspec.json.decode(raw) not in (None, *row.harmless):
            message = f"{whose} models cannot do what '{name}' asks for. {row.instead}"
            raise InvalidRequest(message, param=name, code="unsupported_parameter")


def unsupported(param: str, message: str) -> InvalidRequest:
    """The refusal of a value that the provider has no counterpart for."""
    return InvalidRequest(message, param=param, code="unsupported_value")


def arguments(call: ToolCall, where: str) -> dict[str, Raw]:
    """The arguments of a tool call that stands at `where`. Raises InvalidRequest."""
    try:
        # Models that call a tool without parameters may leave its arguments empty.
        return _decode_object(call.function.arguments.strip() or "{}")
    except (msgspec.DecodeError, RecursionError):
        param = f"{where}.function.arguments"
        message = f"Invalid value for '{param}': a string that holds a JSON object is expected."
        raise InvalidRequest(message, param=param, code="invalid_value") from None


def refuse_name(name: str | None, where: str, whose: str) -> None:
    """Who speaks may matter to the answer; only in a tool message is a name said twice. Raises InvalidRequest."""
    if name:
        raise unsupported(f"{where}.name", f"{whose} takes no names of speakers. Write the name into the content.")


def function_message(where: str) -> InvalidRequest:
    """The refusal of a message of the role that tools' results had before."""
    return unsupported(f"{where}.role", "Function messages are not taken any more. Send role 'tool'.")


def answer(message: AssistantMessage, where: str, whose: str) -> str | list[TextPart | RefusalPart] | None:
    """What the assistant has said, besides calling tools. Raises InvalidRequest."""
    refuse_name(message.name, where, whose)
    if message.audio is not None:
        raise unsupported(f"{where}.audio", f"Audio kept at OpenAI is out of {whose}'s reach. Send what was said.")
    if message.function_call is not None:
        raise unsupported(f"{where}.function_call", "Function calls are not taken any more. Send `tool_calls`.")
    content = message.refusal if message.content is None else message.content
    if content is None and not message.tool_calls:
        problem = f"'{where}' says nothing: it needs `content` or `tool_calls`."
        raise InvalidRequest(problem, param=f"{where}.content", code="missing_required_field")
    return content


def offered(tools: Sequence[Tool] | None, choice: ToolChoice | None) -> tuple[list[Tool], Any]:
    """The tools that may be called at all, and the choice among them: none that allows some. Raises InvalidRequest."""
    offers = list(tools or ())
    if isinstance(choice, AllowedTools):
        allowed = {tool.function.name for tool in choice.allowed_tools.tools}
        offers = [tool for tool in offers if tool.function.name in allowed]
        choice = choice.allowed_tools.mode
    if not offers and choice not in (None, "none", "auto"):
        raise InvalidRequest("'tool_choice' asks for a tool, and 'tools' has none.", param="tool_choice")
    return offers, choice


def file_data(file: File, where: str, whose: str) -> tuple[str, str]:
    """Media type and base64 data of a file. Raises InvalidRequest."""
    if file.file_data is None:
        raise unsupported(where, f"Files kept at OpenAI are out of {whose}'s reach. Send the file as `file_data`.")
    # OpenAI takes a data URL or the bare base64 of a PDF; "JVBERi0" is what "%PDF-" looks like in base64.
    is_pdf = file.file_data.startswith("JVBERi0")
    return ("application/pdf", file.file_data) if is_pdf else data_url(file.file_data, where)


def data_url(url: str, where: str) -> tuple[str, str]:
    """Media type and data of a base64 data URL (https://www.rfc-editor.org/rfc/rfc2397). Raises InvalidRequest."""
    head, _, data = url.partition(",")
    scheme, _, described = head.partition(":")
    media_type, *parameters = described.split(";")
    if scheme.lower() != "data" or "base64" not in parameters:
        message = f"Invalid value for '{where}': neither a web address nor base64 data in a `data:` URL."
        raise InvalidRequest(message, param=where, code="invalid_value")
    return media_type.lower(), data


_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
