"""The door for clients that send a multipart form: a sound, of which they want the text.

(https://platform.openai.com/docs/api-reference/audio/createTranscription; https://www.rfc-editor.org/rfc/rfc7578)
"""

import re
from email.parser import BytesHeaderParser

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatFields, ChatRequest, ContentPart, Form, Message, Name, Seconds, invalid_field
from lexora.core.errors import InvalidRequest
from lexora.core.record import Priority
from lexora.core.task import TRANSCRIPTIONS
from lexora.providers.chat_door import ChatDoor
from lexora.providers.task_door import EventStream

_MOST_PARTS = 200
_LONGEST_HEAD = 4096
# RFC 2046, 5.1.1
_BOUNDARY = re.compile(rb"--([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])\r\n")


class TranscriptionFields(msgspec.Struct, kw_only=True, gc=False):
    """The parts of the form that the gateway itself relies on."""

    file: Raw
    model: Name | None = None
    prompt: str | None = None
    stream: bool | None = None
    x_priority: Priority | None = None
    x_user_id: Name | None = None
    x_timeout: Seconds | None = None


_TEXTS = {*TranscriptionFields.__struct_fields__} - {"file"}
_EVENTS = EventStream()


class TranscriptionDoor(ChatDoor):
    """Speaks OpenAI's transcriptions with clients."""

    def request(self, body: bytes) -> ChatRequest:
        form, texts, file = _read(body)
        try:
            asked = msgspec.convert({**texts, "file": Raw(file)}, TranscriptionFields, strict=False)
        except msgspec.ValidationError as error:
            raise invalid_field(str(error)) from None
        sound = ContentPart("input_audio", input_audio=asked.file)
        known = ChatFields(
            [Message("user", [sound, ContentPart("text", asked.prompt)])],
            model=asked.model,
            stream=asked.stream,
            x_priority=asked.x_priority,
            x_user_id=asked.x_user_id,
            x_timeout=asked.x_timeout,
        )
        return ChatRequest(known, {}, len(body), task=TRANSCRIPTIONS, form=form)

    def stream(self, request: ChatRequest, record_id: str) -> EventStream:  # noqa: ARG002 - one serves all
        return _EVENTS


def _read(body: bytes) -> tuple[Form, dict[str, str], bytes]:
    """The form without what is the gateway's own, the texts that it relies on, and the file. Raises InvalidRequest."""
    first = _BOUNDARY.match(body)
    if first is None:
        raise _malformed("it does not begin with a boundary")
    boundary = b"--" + first[1]
    if body.count(b"\r\n" + boundary) > _MOST_PARTS:
        raise _malformed(f"it has more than {_MOST_PARTS} parts")
    *parts, end = body[len(boundary) :].split(b"\r\n" + boundary)
    if not end.startswith(b"--"):
        raise _malformed("its end is missing")
    kept: list[bytes] = []
    texts: dict[str, str] = {}
    file = None
    for part in parts:
        head, blank, value = part.partition(b"\r\n\r\n")
        if not head.startswith(b"\r\n") or not blank:
            raise _malformed("a part of it has no headers")
        name = _name(head)
        if name in _TEXTS:
            texts[name] = _text(name, value)
        if name == "file":
            file = value
        if name != "model" and not name.startswith("x_"):
            kept += [boundary, part, b"\r\n"]
    if file is None:
        raise InvalidRequest("The field 'file' is required.", param="file", code="missing_required_field")
    model = b'%b\r\ncontent-disposition: form-data; name="model"\r\n\r\n' % boundary
    return Form(first[1], model, b"".join([b"\r\n", *kept, boundary, b"--\r\n"])), texts, file


def _name(head: bytes) -> str:
    """The name in the headers of a part."""
    if len(head) > _LONGEST_HEAD:
        raise _malformed("the headers of a part are too long")
    name = BytesHeaderParser().parsebytes(head.lstrip()).get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise _malformed("a part of it has no name")
    return name


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        message = f"Invalid value for '{name}': it is not valid UTF-8."
        raise InvalidRequest(message, param=name, code="invalid_utf8") from None


def _malformed(problem: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not a valid multipart form: {problem}.", code="invalid_form")
