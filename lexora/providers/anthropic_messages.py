"""OpenAI's messages as Anthropic's (https://platform.claude.com/docs/en/build-with-claude/working-with-messages)."""

import re
from collections.abc import Sequence
from typing import Any

from lexora.providers import chat_fields as openai
from lexora.providers.chat_fields import unsupported

Block = dict[str, Any]

_WHOSE = "Anthropic"
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def conversation(messages: Sequence[openai.Message]) -> dict[str, Any]:
    """Anthropic's `messages`, and `system` if there is any. Raises InvalidRequest.

    System messages are gathered at the top wherever they stand, as models before Opus 4.8 take them nowhere else.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    results: list[Block] | None = None  # those of the turn before, which a tool message adds to
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if isinstance(message, openai.ToolMessage):
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            said = _said(message.content, where)
            results.append({"type": "tool_result", "tool_use_id": _tool_id(message.tool_call_id), "content": said})
            continue
        if not isinstance(message, openai.SystemMessage):
            results = None
        match message:
            case openai.SystemMessage(content=content):
                openai.refuse_name(message.name, where, _WHOSE)
                system += _blocks([openai.TextPart(text=content)] if isinstance(content, str) else content, where)
            case openai.UserMessage(content=content):
                openai.refuse_name(message.name, where, _WHOSE)
                turns.append({"role": "user", "content": _said(content, where)})
            case openai.AssistantMessage():
                turns.append({"role": "assistant", "content": _answer(message, where)})
            case openai.FunctionMessage():
                raise openai.function_message(where)
    if not turns:
        raise unsupported("messages", "Anthropic answers no system message alone. Add a user message.")
    return {"system": system, "messages": turns} if system else {"messages": turns}


def marked(block: Block, control: object) -> Block:
    """The same with the mark that what ends with it is to be cached, if a client has made one."""
    return block if control is None else {**block, "cache_control": control}


def _said(content: str | Sequence[openai.InputPart], where: str) -> str | list[Block]:
    return content if isinstance(content, str) else _blocks(content, where)


def _blocks(parts: Sequence[openai.InputPart | openai.RefusalPart], where: str) -> list[Block]:
    """The blocks of a list of parts. Empty text is left out: Anthropic refuses it, and it says nothing."""
    blocks = [
        marked(_block(part, f"{where}.content[{position}]"), part.cache_control) for position, part in enumerate(parts)
    ]
    return [block for block in blocks if block.get("text") != ""]


def _block(part: openai.InputPart | openai.RefusalPart, where: str) -> Block:
    match part:
        case openai.TextPart(text=text) | openai.RefusalPart(refusal=text):
            return {"type": "text", "text": text}
        case openai.ImagePart(image_url=image):
            return _image(image.url, f"{where}.image_url.url")
        case openai.AudioPart():
            raise unsupported(where, "Anthropic's models hear no audio. Send a transcript as text.")
        case openai.FilePart(file=file):
            return _document(file, f"{where}.file.file_data")


def _image(url: str, where: str) -> Block:
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = openai.data_url(url, where)
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in _IMAGES:
        raise unsupported(where, f"Anthropic reads no {media_type}. Send a JPEG, PNG, GIF or WebP image.")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _document(file: openai.File, where: str) -> Block:
    media_type, data = openai.file_data(file, where, _WHOSE)
    if media_type != "application/pdf":
        raise unsupported(where, "Of files, only PDFs can be sent to Anthropic. Send other text as a text part.")
    block = {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
    return {**block, "title": file.filename} if file.filename else block


def _answer(message: openai.AssistantMessage, where: str) -> str | list[Block]:
    content = openai.answer(message, where, _WHOSE)
    if isinstance(content, str):
        if not message.tool_calls and not message.thinking_blocks:
            return content
        content = [openai.TextPart(text=content)]
    calls = [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())]
    return [*(message.thinking_blocks or ()), *_blocks(content or [], where), *calls]


def _call(call: openai.ToolCall, where: str) -> Block:
    arguments = openai.arguments(call, where)
    block = {"type": "tool_use", "id": _tool_id(call.id), "name": call.function.name, "input": arguments}
    return marked(block, call.cache_control)


def _tool_id(of_call: str) -> str:
    """The id of a tool call in the alphabet that Anthropic accepts: other models' ids have dots and colons."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", of_call)
