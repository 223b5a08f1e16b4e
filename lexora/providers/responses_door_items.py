"""The items of OpenAI's Responses API as the messages of a chat completion.

An item is kept as the client's bytes until here, so that what is stored is what was sent.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw

from lexora.core.chat import invalid_field
from lexora.core.errors import InvalidRequest
from lexora.providers import tool_results

Message = dict[str, Any]

_T = TypeVar("_T")


def decode(decoder: msgspec.json.Decoder[_T], raw: bytes | Raw, where: str) -> _T:
    """Decodes a part of the request; `where` is its path. Raises InvalidRequest that names the field at fault."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise invalid_field(f"{what} - at `${where}{path or '`'}") from None


def unsupported(param: str, message: str) -> InvalidRequest:
    """The refusal of a value that the gateway can do nothing with."""
    return InvalidRequest(message, param=param, code="unsupported_value")


class _Part(msgspec.Struct, tag_field="type"):
    """A part of a message's content."""

    def part(self, where: str) -> dict[str, Any]:
        """The part of a chat message that it becomes; `where` is its path in the request."""
        raise NotImplementedError


class _Text(_Part, tag="input_text"):
    text: str

    def part(self, where: str) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


class _OutputText(_Text, tag="output_text"):
    """What a model has said before. Its annotations and logprobs are no part of a prompt."""


class _Refusal(_Part, tag="refusal"):
    refusal: str


class _Image(_Part, tag="input_image"):
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["low", "high", "auto", "original"] | None = None

    def part(self, where: str) -> dict[str, Any]:
        if self.image_url is None:
            raise _no_files(self.file_id, where, "image_url")
        detail = {"detail": self.detail} if self.detail else {}
        return {"type": "image_url", "image_url": {"url": self.image_url, **detail}}


class _File(_Part, tag="input_file"):
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None

    def part(self, where: str) -> dict[str, Any]:
        if self.file_data is None:
            if self.file_url is not None:
                raise unsupported(f"{where}.file_url", "The gateway fetches no files. Send the file as 'file_data'.")
            raise _no_files(self.file_id, where, "file_data")
        name = {"filename": self.filename} if self.filename else {}
        return {"type": "file", "file": {"file_data": self.file_data, **name}}


class _Audio(_Part, tag="input_audio"):
    input_audio: Raw

    def part(self, where: str) -> dict[str, Any]:
        return {"type": "input_audio", "input_audio": self.input_audio}


def _no_files(file_id: str | None, where: str, field: str) -> InvalidRequest:
    if file_id is not None:
        return unsupported(f"{where}.file_id", f"The gateway keeps no files. Send the content as '{field}'.")
    return InvalidRequest(f"The field '{where}.{field}' is required.", param=f"{where}.{field}", code="invalid_value")


_Content = str | list[_Text | _OutputText | _Refusal | _Image | _File | _Audio]


class _Head(msgspec.Struct):
    """What tells one kind of item from another: a message may go without its type, a reference too."""

    type: str | None = None
    role: str | None = None
    id: str | None = None


class _MessageItem(msgspec.Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content


class _FunctionCall(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class _FunctionCallOutput(msgspec.Struct):
    call_id: str
    output: _Content


_HEAD = msgspec.json.Decoder(_Head)
_MESSAGE = msgspec.json.Decoder(_MessageItem)
_FUNCTION_CALL = msgspec.json.Decoder(_FunctionCall)
_FUNCTION_CALL_OUTPUT = msgspec.json.Decoder(_FunctionCallOutput)


def resolve(items: Sequence[Raw], item: Callable[[str, str], Raw]) -> list[Raw]:
    """The items of `input`, references replaced by what they refer to.

    `item` finds one by its id, told the reference's place, or raises InvalidRequest.
    """
    resolved = []
    for position, raw in enumerate(items):
        head = decode(_HEAD, raw, f"input[{position}]")
        if head.type == "item_reference" or (head.type is None and head.role is None and head.id is not None):
            resolved.append(item(head.id or "", f"input[{position}].id"))
        else:
            resolved.append(raw)
    return resolved


def conversation(instructions: str | None, before: Sequence[Raw], items: Sequence[Raw]) -> list[Message]:
    """The messages of a chat completion: instructions, the items of `before`, those of `input`. Raises InvalidRequest.

    Reasoning is left out: models think anew. System and developer messages at the start become one, as many models'
    templates take one only, and only there.
    """
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    for raw in before:
        _add(messages, raw, "previous_response_id")
    for position, raw in enumerate(items):
        _add(messages, raw, f"input[{position}]")
    return list(_with_texts_for_results(messages))


def _with_texts_for_results(messages: Sequence[Message]) -> Iterator[Message]:
    """What outputs of functions hold besides text follows the last of them, in a message of the user's."""
    others: list[dict[str, Any]] = []
    for message in messages:
        content = message["content"]
        if message["role"] != "tool" and others:
            yield {"role": "user", "content": others}
            others = []
        if message["role"] == "tool" and isinstance(content, list):
            text, more = tool_results.split(message["tool_call_id"], content)
            others += more
            message = {**message, "content": text}
        yield message
    if others:
        yield {"role": "user", "content": others}


def _add(messages: list[Message], raw: Raw, where: str) -> None:
    head = decode(_HEAD, raw, where)
    match head.type:
        case "message" | None:
            _add_message(messages, decode(_MESSAGE, raw, where), where)
        case "function_call":
            call = decode(_FUNCTION_CALL, raw, where)
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            function = {"name": call.name, "arguments": call.arguments}
            messages[-1].setdefault("tool_calls", []).append(
                {"id": call.call_id, "type": "function", "function": function}
            )
        case "function_call_output":
            output = decode(_FUNCTION_CALL_OUTPUT, raw, where)
            content = _content(output.output, f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": output.call_id, "content": content})
        case "reasoning":
            pass
        case other:
            message = f"The gateway has no built-in tools and takes no items of type '{other}'. Leave it out."
            raise unsupported(f"{where}.type", message)


def _add_message(messages: list[Message], item: _MessageItem, where: str) -> None:
    where = f"{where}.content"
    match item.role:
        case "user":
            messages.append({"role": "user", "content": _content(item.content, where)})
        case "assistant":
            said = _assistant(item.content, where)
            if messages and "tool_calls" in messages[-1] and messages[-1]["content"] is None:
                messages[-1].update(said)  # it was said beside the calls that stand before it
            else:
                messages.append({"role": "assistant", **said})
        case _:
            text = _text(item.content, where, "\n")
            if len(messages) == 1 and messages[0]["role"] == "system":
                messages[0]["content"] += f"\n\n{text}"
            else:
                messages.append({"role": "system", "content": text})


def _content(content: _Content, where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    for position, part in enumerate(content):
        if isinstance(part, _Refusal):
            raise unsupported(f"{where}[{position}].type", "Only a message of the assistant's can hold a refusal.")
    parts = [part.part(f"{where}[{position}]") for position, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _assistant(content: _Content, where: str) -> Message:
    """Content and refusal of an assistant's message."""
    if isinstance(content, str):
        return {"content": content}
    refusal = "".join(part.refusal for part in content if isinstance(part, _Refusal))
    texts = [part for part in content if not isinstance(part, _Refusal)]
    if not refusal:
        return {"content": _text(texts, where)}
    return {"content": _text(texts, where) or None, "refusal": refusal}


def _text(content: str | Sequence[_Part], where: str, between: str = "") -> str:
    if isinstance(content, str):
        return content
    for position, part in enumerate(content):
        if not isinstance(part, _Text):
            message = "Only a message of the user's or the output of a function can hold anything but text."
            raise unsupported(f"{where}[{position}].type", message)
    return between.join(part.text for part in content if isinstance(part, _Text))
