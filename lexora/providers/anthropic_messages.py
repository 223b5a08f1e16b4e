"""OpenAI's messages as Anthropic's (https://platform.claude.com/docs/en/build-with-claude/working-with-messages)."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from lexora.core.errors import InvalidRequest

Block = dict[str, Any]


def unsupported(param: str, message: str) -> InvalidRequest:
    """The refusal of a value that the other side's API has no counterpart for."""
    return InvalidRequest(message, param=param, code="unsupported_value")


class _Part(msgspec.Struct, tag_field="type", kw_only=True):
    """A part of OpenAI's content. `cache_control` is Anthropic's, which clients write on parts by wide custom."""

    cache_control: Raw | UnsetType = UNSET

    def block(self, where: str) -> Block:
        """The content block it becomes; `where` is its path in the request."""
        raise NotImplementedError


class _TextPart(_Part, tag="text"):
    text: str

    def block(self, where: str) -> Block:
        return {"type": "text", "text": self.text}


class _RefusalPart(_Part, tag="refusal"):
    refusal: str

    def block(self, where: str) -> Block:
        return {"type": "text", "text": self.refusal}


class _ImageUrl(msgspec.Struct):
    """`detail` is not read: it is a hint about the price of an image, and Anthropic's images have one size."""

    url: str


class _ImagePart(_Part, tag="image_url"):
    image_url: _ImageUrl

    def block(self, where: str) -> Block:
        url, where = self.image_url.url, f"{where}.image_url.url"
        if url.startswith(("https://", "http://")):
            return {"type": "image", "source": {"type": "url", "url": url}}
        media_type, data = _data_url(url, where)
        media_type = "image/jpeg" if media_type == "image/jpg" else media_type
        if media_type not in ("image/jpeg", "image/png", "image/gif", "image/webp"):
            raise unsupported(where, f"Anthropic reads no {media_type}. Send a JPEG, PNG, GIF or WebP image.")
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


class _File(msgspec.Struct):
    file_data: str | None = None
    filename: str | None = None


class _FilePart(_Part, tag="file"):
    file: _File

    def block(self, where: str) -> Block:
        data, where = self.file.file_data, f"{where}.file.file_data"
        if data is None:
            raise unsupported(where, "Files kept at OpenAI are out of Anthropic's reach. Send the PDF as `file_data`.")
        # OpenAI takes a data URL or bare base64; "JVBERi0" is what "%PDF-" looks like in base64.
        media_type = "application/pdf" if data.startswith("JVBERi0") else ""
        if not media_type:
            media_type, data = _data_url(data, where)
        if media_type != "application/pdf":
            raise unsupported(where, "Of files, only PDFs can be sent to Anthropic. Send other text as a text part.")
        block = {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
        return {**block, "title": self.file.filename} if self.file.filename else block


class _AudioPart(_Part, tag="input_audio"):
    def block(self, where: str) -> Block:
        raise unsupported(where, "Anthropic's models hear no audio. Send a transcript as text.")


def _data_url(url: str, where: str) -> tuple[str, str]:
    """Media type and data of a base64 data URL (https://www.rfc-editor.org/rfc/rfc2397)."""
    head, _, data = url.partition(",")
    scheme, _, described = head.partition(":")
    media_type, *parameters = described.split(";")
    if scheme.lower() != "data" or "base64" not in parameters:
        raise InvalidRequest(
            f"Invalid value for '{where}': neither a web address nor base64 data in a `data:` URL.",
            param=where,
            code="invalid_value",
        )
    return media_type.lower(), data


_InputParts = list[_TextPart | _ImagePart | _FilePart | _AudioPart]


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct):
    id: str
    function: _Function
    type: Literal["function"] = "function"

    def block(self, where: str) -> Block:
        try:
            # Models that call a tool without parameters may leave its arguments empty.
            arguments = _decode_object(self.function.arguments.strip() or "{}")
        except (msgspec.DecodeError, RecursionError):
            param = f"{where}.function.arguments"
            message = f"Invalid value for '{param}': a string that holds a JSON object is expected."
            raise InvalidRequest(message, param=param, code="invalid_value") from None
        return {"type": "tool_use", "id": _tool_id(self.id), "name": self.function.name, "input": arguments}


def _tool_id(of_call: str) -> str:
    """The id of a tool call in the alphabet that Anthropic accepts: other models' ids have dots and colons."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", of_call)


class _SystemMessage(msgspec.Struct, tag_field="role", tag="system"):
    content: str | list[_TextPart]
    name: str | None = None


class _DeveloperMessage(_SystemMessage, tag="developer"):
    pass


class _UserMessage(msgspec.Struct, tag_field="role", tag="user"):
    content: str | _InputParts
    name: str | None = None


class _AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    content: str | list[_TextPart | _RefusalPart] | None = None
    refusal: str | None = None
    thinking_blocks: list[Block] | None = None  # LiteLLM's name for what Anthropic wants to see again
    tool_calls: list[_ToolCall] | None = None
    name: str | None = None
    audio: Any = None
    function_call: Any = None


class _ToolMessage(msgspec.Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str | _InputParts


class _FunctionMessage(msgspec.Struct, tag_field="role", tag="function"):
    pass


Message = _SystemMessage | _DeveloperMessage | _UserMessage | _AssistantMessage | _ToolMessage | _FunctionMessage

_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def conversation(messages: Sequence[Message]) -> dict[str, Any]:
    """Anthropic's `messages`, and `system` if there is any. Raises InvalidRequest.

    System messages are gathered at the top wherever they stand, as models before Opus 4.8 take them nowhere else.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    results: list[Block] | None = None  # those of the turn before, which a tool message adds to
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        match message:
            case _SystemMessage(content=content):
                _refuse_name(message.name, where)
                system += _blocks([_TextPart(text=content)] if isinstance(content, str) else content, where)
            case _ToolMessage(tool_call_id=of_call, content=content):
                if results is None:
                    results = []
                    turns.append({"role": "user", "content": results})
                said = content if isinstance(content, str) else _blocks(content, where)
                results.append({"type": "tool_result", "tool_use_id": _tool_id(of_call), "content": said})
            case _UserMessage(content=content):
                _refuse_name(message.name, where)
                results = None
                said = content if isinstance(content, str) else _blocks(content, where)
                turns.append({"role": "user", "content": said})
            case _AssistantMessage():
                results = None
                turns.append({"role": "assistant", "content": _assistant_content(message, where)})
            case _FunctionMessage():
                raise unsupported(f"{where}.role", "Function messages are not taken any more. Send role 'tool'.")
    if not turns:
        raise unsupported("messages", "Anthropic answers no system message alone. Add a user message.")
    return {"system": system, "messages": turns} if system else {"messages": turns}


def _blocks(parts: Sequence[_Part], where: str) -> list[Block]:
    """The blocks of a list of parts. Empty text is left out: Anthropic refuses it, and it says nothing."""
    blocks = []
    for position, part in enumerate(parts):
        block = part.block(f"{where}.content[{position}]")
        if part.cache_control is not UNSET:
            block["cache_control"] = part.cache_control
        if block.get("text") != "":
            blocks.append(block)
    return blocks


def _assistant_content(message: _AssistantMessage, where: str) -> str | list[Block]:
    _refuse_name(message.name, where)
    if message.audio is not None:
        raise unsupported(f"{where}.audio", "Audio kept at OpenAI is out of Anthropic's reach. Send what was said.")
    if message.function_call is not None:
        raise unsupported(f"{where}.function_call", "Function calls are not taken any more. Send `tool_calls`.")
    content = message.refusal if message.content is None else message.content
    if content is None and not message.tool_calls:
        message_text = f"'{where}' says nothing: it needs `content` or `tool_calls`."
        raise InvalidRequest(message_text, param=f"{where}.content", code="missing_required_field")
    if isinstance(content, str):
        if not message.tool_calls and not message.thinking_blocks:
            return content
        content = [_TextPart(text=content)]
    calls = [call.block(f"{where}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())]
    return [*(message.thinking_blocks or ()), *_blocks(content or [], where), *calls]


def _refuse_name(name: str | None, where: str) -> None:
    # Who speaks may matter to the answer; only in a tool message is a name said twice.
    if name:
        raise unsupported(f"{where}.name", "Anthropic takes no names of speakers. Write the name into the content.")
