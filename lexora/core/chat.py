"""A request, as the gateway reads it: a chat completion, or what else a model is asked for.

The gateway decodes only what it relies on. Every top-level field keeps the client's own bytes, so what is
forwarded is what was sent: unknown fields, big numbers and all.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple, TypeVar, get_args

import msgspec
from msgspec import Raw

from lexora.core.errors import InvalidRequest
from lexora.core.record import Priority
from lexora.core.task import CHAT, Task

# What our own fields may be, for those who send something else.
_CHOICES = {"x_priority": get_args(Priority)}


class ContentPart(msgspec.Struct, gc=False):
    """One part of a message's content; only text is looked at, and how long the rest is."""

    type: str
    text: str | None = None
    image_url: Raw = msgspec.field(default_factory=Raw)
    input_audio: Raw = msgspec.field(default_factory=Raw)
    file: Raw = msgspec.field(default_factory=Raw)


class Message(msgspec.Struct, gc=False):
    """One message; fields that the gateway does not need stay in the raw request."""

    role: str
    content: str | list[ContentPart] | None = None

    def text(self) -> str:
        """The message's text, the text parts of a list joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: str


# Fields with which vLLM and llama.cpp bind an answer to a form.
_GRAMMARS = {
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"),
    *("grammar", "json_schema"),
}

_TAIL = 200

Name = Annotated[str, msgspec.Meta(max_length=256)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
# Whether an earlier answer will do and this one may be kept, or for how many seconds.
Cached = bool | Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)]


class ChatFields(msgspec.Struct, gc=False):
    """The fields of a chat completion request that the gateway itself relies on (OpenAI's names; `x_*` are ours)."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: Name | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Raw] | None = None
    functions: list[Raw] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    x_priority: Priority | None = None
    x_user_id: Name | None = None
    x_timeout: Seconds | None = None
    x_cache: Cached | None = None


class Form(NamedTuple):
    """A multipart form, ready for any model: its bytes before and after the name of it."""

    boundary: bytes
    before: bytes
    after: bytes

    def filled(self, model: str) -> tuple[bytes, bytes]:
        """The body for a model, and the header line that goes with it."""
        header = b'content-type: multipart/form-data; boundary="%b"\r\n' % self.boundary
        return self.before + model.encode() + self.after, header


class ChatRequest(msgspec.Struct, gc=False):
    """A parsed request: `known` is what the gateway reads, `fields` what it forwards (no `x_*` in it).

    `size` is that of the body, in bytes. `anthropic` are the fields that came, where they are Anthropic's: what an
    upstream of that API gets, and with them `betas`, the client's header `anthropic-beta`. `cache_control` is
    another of its headers.

    `task` is what is asked for. Where that is not chat, `known.messages` stand for what the model is given, one for
    each text, and `known.n` for all answers; `token_ids` counts what is given as tokens (if that is all, `size` is 0),
    and a `form` is forwarded in place of `fields`. `measured` is what `estimates` has found of its size.
    """

    known: ChatFields
    fields: dict[str, Raw]
    size: int
    anthropic: dict[str, Raw] | None = None
    betas: bytes = b""
    task: Task = CHAT
    token_ids: int = 0
    form: Form | None = None
    cache_control: bytes = b""
    measured: tuple[int, int] | None = None

    @property
    def stream(self) -> bool:
        return self.known.stream is True

    @property
    def include_usage(self) -> bool:
        """Whether the client asked to see usage at the end of a stream."""
        options = self.known.stream_options
        return options is not None and options.include_usage is True

    def lone_prompt(self) -> str | None:
        """The text of a lone user message that is asked plainly, else None.

        Plainly: no tools, no response format but text, one choice, no logprobs. Only such a request can be
        answered by a prepared answer.
        """
        known = self.known
        if len(known.messages) != 1 or known.messages[0].role != "user" or self.task is not CHAT:
            return None
        if known.tools or known.functions or known.logprobs or (known.n or 1) != 1:
            return None
        if known.response_format is not None and known.response_format.type != "text":
            return None
        content = known.messages[0].content
        if isinstance(content, list) and any(part.type != "text" for part in content):
            return None
        return known.messages[0].text()

    def latest(self) -> tuple[str, str]:
        """The text of the user's last message, empty if there is none; the last 200 characters of all, one a line."""
        said = tail = None
        for message in reversed(self.known.messages):
            text = message.text()
            if said is None and message.role == "user":
                said = text
            if tail is None:
                tail = text
            elif len(tail) < _TAIL:
                tail = f"{text}\n{tail}" if tail else text
            elif said is not None:
                break
        return said or "", (tail or "")[-_TAIL:]

    def can_be_continued(self) -> bool:
        """Whether another model could go on with half an answer: one choice, of free text, that nobody has begun."""
        known = self.known
        return (
            self.task is CHAT
            and (known.n or 1) == 1
            and (known.response_format is None or known.response_format.type == "text")
            and known.messages[-1].role != "assistant"
            and not self.fields.keys() & _GRAMMARS
        )

    def setting(self, name: str, value: int) -> "ChatRequest":
        """The same with this value of a field, whatever the client has set."""
        return msgspec.structs.replace(self, fields={**self.fields, name: Raw(msgspec.json.encode(value))})

    def texts(self) -> Iterator[str]:
        return (message.text() for message in self.known.messages)


_Known = TypeVar("_Known")

_decode_known = msgspec.json.Decoder(ChatFields).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode

_UNREADABLE = (UnicodeDecodeError, msgspec.DecodeError, RecursionError)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Reads a request body. Raises InvalidRequest that names the field at fault."""
    try:
        # msgspec passes over the strings it is not asked for without looking at their encoding.
        body.decode()
        known = _decode_known(body)
        fields = _decode_fields(body)
    except _UNREADABLE as error:
        raise _unreadable(error) from None
    # Not `in`: for bytes that tries a number first, and drops the error which that is.
    if body.find(b'"x_') >= 0 or body.find(b"\\u") >= 0:
        _drop_own(fields)
    return ChatRequest(known, fields, len(body))


def read_fields(body: bytes, decode_known: Callable[[bytes], _Known]) -> tuple[_Known, dict[str, Raw]]:
    """The same for what is no chat: what the gateway reads of a body, and what it forwards. Raises InvalidRequest."""
    try:
        body.decode()
        known = decode_known(body)
        fields = _decode_fields(body)
    except _UNREADABLE as error:
        raise _unreadable(error) from None
    _drop_own(fields)
    return known, fields


def _drop_own(fields: dict[str, Raw]) -> None:
    for name in [name for name in fields if name.startswith("x_")]:
        del fields[name]


def _unreadable(error: Exception) -> InvalidRequest:
    if isinstance(error, UnicodeDecodeError):
        return InvalidRequest(
            f"The body is not valid UTF-8 (byte {error.start}). Send JSON encoded as UTF-8.", code="invalid_utf8"
        )
    if isinstance(error, msgspec.ValidationError):
        return invalid_field(str(error))
    if isinstance(error, RecursionError):
        return InvalidRequest("The body is nested too deeply.", code="invalid_json")
    return InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json")


def invalid_field(problem: str) -> InvalidRequest:
    """Turns msgspec's "Expected `str`, got `int` - at `$.a[0].b`" into an error that names `a[0].b`."""
    what, _, path = problem.partition(" - at `$")
    param = path.rstrip("`").lstrip(".")
    if what.startswith("Object missing required field `"):
        param = f"{param}.{what.split('`')[1]}".lstrip(".")
        return InvalidRequest(f"The field '{param}' is required.", param=param, code="missing_required_field")
    if what.startswith("Invalid enum value") and param in _CHOICES:
        what += f"; send {', '.join(_CHOICES[param])} or leave it out"
    where = f"Invalid value for '{param}'" if param else "Invalid request"
    return InvalidRequest(f"{where}: {what[:1].lower()}{what[1:]}.", param=param or None, code="invalid_value")
