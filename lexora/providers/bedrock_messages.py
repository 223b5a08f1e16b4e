"""OpenAI's messages as Converse's (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html)."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from lexora.core.errors import InvalidRequest
from lexora.providers import chat_fields as openai
from lexora.providers.chat_fields import unsupported

Block = dict[str, Any]

_WHOSE = "Bedrock"

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}


class _Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class _RedactedThinking(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    data: str


def conversation(messages: Sequence[openai.Message]) -> dict[str, Any]:
    """Converse's `messages`, and `system` if there is any. Raises InvalidRequest.

    System messages are gathered wherever they stand. Messages of one role that follow each other become one, since
    Converse wants the roles to alternate; a message that says nothing is left out.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        match message:
            case openai.SystemMessage(content=content):
                openai.refuse_name(message.name, where, _WHOSE)
                system += _blocks(content, where)
            case openai.UserMessage(content=content):
                openai.refuse_name(message.name, where, _WHOSE)
                _add(turns, "user", _blocks(content, where))
            case openai.AssistantMessage():
                _add(turns, "assistant", _answer(message, where))
            case openai.ToolMessage(tool_call_id=of_call, content=content):
                said = _blocks(content, where)
                points = [block for block in said if "cachePoint" in block]  # they stand beside a result, not in it
                result = {"toolUseId": _tool_id(of_call), "content": [block for block in said if block not in points]}
                _add(turns, "user", [{"toolResult": result}, *points])
            case openai.FunctionMessage():
                raise openai.function_message(where)
    if not turns:
        raise unsupported(
            "messages", "Bedrock answers no conversation in which nobody says anything. Add a user message."
        )
    return {"system": system, "messages": turns} if system else {"messages": turns}


def uses_tools(turns: Sequence[dict[str, Any]]) -> bool:
    """Whether Converse's `messages` have calls of tools in them, or their results."""
    return any("toolUse" in block or "toolResult" in block for turn in turns for block in turn["content"])


def cache_point(control: object) -> list[Block]:
    """The block that says what comes before it is to be cached, if a client has said so in Anthropic's way."""
    if not isinstance(control, dict):
        return []
    return [{"cachePoint": {"type": "default", **({"ttl": control["ttl"]} if control.get("ttl") else {})}}]


def _add(turns: list[dict[str, Any]], role: str, blocks: list[Block]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    elif blocks:
        turns.append({"role": role, "content": blocks})


def _blocks(content: str | Sequence[openai.InputPart | openai.RefusalPart], where: str) -> list[Block]:
    """The blocks of a message's content. Empty text is left out: Bedrock refuses it, and it says nothing."""
    if isinstance(content, str):
        return [{"text": content}] if content else []
    blocks: list[Block] = []
    for position, part in enumerate(content):
        block = _block(part, f"{where}.content[{position}]")
        if block.get("text") != "":
            blocks += [block, *cache_point(part.cache_control)]
    return blocks


def _block(part: openai.InputPart | openai.RefusalPart, where: str) -> Block:
    match part:
        case openai.TextPart(text=text) | openai.RefusalPart(refusal=text):
            return {"text": text}
        case openai.ImagePart(image_url=image):
            return _image(image.url, f"{where}.image_url.url")
        case openai.AudioPart(input_audio=audio):
            return {"audio": {"format": audio.format, "source": {"bytes": audio.data}}}
        case openai.FilePart(file=file):
            return _document(file, f"{where}.file.file_data")


def _image(url: str, where: str) -> Block:
    if url.startswith(("https://", "http://")):
        raise unsupported(where, "Bedrock fetches no images. Send the image itself, as base64 in a `data:` URL.")
    media_type, data = openai.data_url(url, where)
    form = _IMAGES.get(media_type)
    if form is None:
        raise unsupported(where, f"Bedrock reads no {media_type}. Send a JPEG, PNG, GIF or WebP image.")
    return {"image": {"format": form, "source": {"bytes": data}}}


def _document(file: openai.File, where: str) -> Block:
    media_type, data = openai.file_data(file, where, _WHOSE)
    form = _DOCUMENTS.get(media_type)
    if form is None:
        raise unsupported(where, f"Bedrock reads no {media_type}. Send a PDF, or the text as a text part.")
    # Each needs a name of its own, which the model reads: AWS advises to choose one that says nothing.
    name = re.sub(r"[^0-9]+", " ", where).strip().replace(" ", "-")
    return {"document": {"format": form, "name": f"document {name}", "source": {"bytes": data}}}


def _answer(message: openai.AssistantMessage, where: str) -> list[Block]:
    content = openai.answer(message, where, _WHOSE)
    thoughts = _thoughts(message.thinking_blocks, f"{where}.thinking_blocks")
    calls = [
        block for i, call in enumerate(message.tool_calls or ()) for block in _call(call, f"{where}.tool_calls[{i}]")
    ]
    return [*thoughts, *_blocks(content or "", where), *calls]


def _thoughts(blocks: object, where: str) -> list[Block]:
    """What the model has thought, with the signatures that it wants to see again."""
    try:
        return [_thought(block) for block in msgspec.convert(blocks or [], list[_Thinking | _RedactedThinking])]
    except msgspec.ValidationError as error:
        message = f"Invalid value for '{where}': they must come back as they were sent ({error})."
        raise InvalidRequest(message, param=where, code="invalid_value") from None


def _thought(block: _Thinking | _RedactedThinking) -> Block:
    match block:
        case _Thinking(thinking=text, signature=signature):
            said = {"text": text, **({"signature": signature} if signature else {})}
            return {"reasoningContent": {"reasoningText": said}}
        case _RedactedThinking(data=data):
            return {"reasoningContent": {"redactedContent": data}}


def _call(call: openai.ToolCall, where: str) -> list[Block]:
    arguments = openai.arguments(call, where)
    block = {"toolUse": {"toolUseId": _tool_id(call.id), "name": call.function.name, "input": arguments}}
    return [block, *cache_point(call.cache_control)]


def _tool_id(of_call: str) -> str:
    """The id of a tool call in the alphabet that all models accept: those of other providers have dots and colons."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", of_call)
