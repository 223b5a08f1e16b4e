"""Anthropic's messages as OpenAI's (https://platform.claude.com/docs/en/api/messages).

What a block says is passed on; `cache_control`, signatures and citations of old answers are not: they mean nothing to
another model.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.errors import InvalidRequest
from lexora.providers.anthropic_messages import unsupported

Part = dict[str, Any]
OpenAIMessage = dict[str, Any]


_NO_FILES = "Files kept at Anthropic are out of other models' reach. Send the content itself."


class _Citations(msgspec.Struct):
    enabled: bool | None = None


def _refuse_citations(citations: _Citations | None, where: str) -> None:
    if citations is not None and citations.enabled:
        raise unsupported(f"{where}.citations", "No citations can be had of this model. Leave them out.")


class _Block(msgspec.Struct, tag_field="type"):
    """A block of a user's content, or of a tool's result."""

    def parts(self, where: str) -> list[Part]:
        """The parts of OpenAI's content that it becomes; `where` is its path in the request."""
        raise NotImplementedError


class Text(_Block, tag="text"):
    text: str

    def parts(self, where: str) -> list[Part]:
        return [_text(self.text)]


class _Base64(msgspec.Struct, tag_field="type", tag="base64"):
    media_type: str
    data: str


class _Url(msgspec.Struct, tag_field="type", tag="url"):
    url: str


class _File(msgspec.Struct, tag_field="type", tag="file"):
    file_id: str


class _PlainText(msgspec.Struct, tag_field="type", tag="text"):
    data: str


class _Image(_Block, tag="image"):
    source: _Base64 | _Url | _File

    def parts(self, where: str) -> list[Part]:
        match self.source:
            case _Base64(media_type=media_type, data=data):
                return [_image(f"data:{media_type};base64,{data}")]
            case _Url(url=url):
                return [_image(url)]
            case _File():
                raise unsupported(f"{where}.source", _NO_FILES)


class _Blocks(msgspec.Struct, tag_field="type", tag="content"):
    content: str | list[Text | _Image]


class _Document(_Block, tag="document"):
    source: _Base64 | _PlainText | _Blocks | _Url | _File
    title: str | None = None
    context: str | None = None
    citations: _Citations | None = None

    def parts(self, where: str) -> list[Part]:
        _refuse_citations(self.citations, where)
        head = [_text("\n".join(filter(None, (self.title, self.context))))] if self.title or self.context else []
        match self.source:
            case _Base64(media_type="application/pdf", data=data):
                name, file_data = self.title or "document.pdf", f"data:application/pdf;base64,{data}"
                return [*head, {"type": "file", "file": {"filename": name, "file_data": file_data}}]
            case _Base64(media_type=media_type):
                raise unsupported(
                    f"{where}.source.media_type", f"No model here reads {media_type}. Send a PDF or text."
                )
            case _PlainText(data=data) | _Blocks(content=str(data)):
                return [*head, _text(data)]
            case _Blocks(content=blocks):
                return head + _parts(blocks, f"{where}.source")  # type: ignore[arg-type]  # str is dealt with
            case _Url():
                raise unsupported(f"{where}.source", "Documents are not fetched. Send the PDF as base64, or its text.")
            case _File():
                raise unsupported(f"{where}.source", _NO_FILES)


class _SearchResult(_Block, tag="search_result"):
    source: str
    title: str
    content: list[Text]
    citations: _Citations | None = None

    def parts(self, where: str) -> list[Part]:
        _refuse_citations(self.citations, where)
        return [_text("\n".join([self.title, self.source, *(block.text for block in self.content)]))]


class _ToolResult(msgspec.Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[Text | _Image | _Document | _SearchResult] | None = None
    is_error: bool | None = None


class _ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Raw]

    def call(self) -> dict[str, Any]:
        arguments = msgspec.json.encode(self.input).decode()
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


class _Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class _RedactedThinking(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    """Encrypted: only its maker can read it."""


class _User(msgspec.Struct, tag_field="role", tag="user"):
    content: str | list[Text | _Image | _Document | _SearchResult | _ToolResult]


class _Assistant(msgspec.Struct, tag_field="role", tag="assistant"):
    content: str | list[Text | _Thinking | _RedactedThinking | _ToolUse]


class _System(msgspec.Struct, tag_field="role", tag="system"):
    content: str | list[Text]


Message = _User | _Assistant | _System


def conversation(
    messages: Sequence[Message], system: Sequence[OpenAIMessage] = (), *, counted: bool = False
) -> list[OpenAIMessage]:
    """OpenAI's messages, after the system prompt. Raises InvalidRequest for what cannot be passed on.

    `counted`: nobody is to answer them, so that they may end with an answer.
    """
    said = [*system]
    for position, message in enumerate(messages):
        match message:
            case _System(content=content):
                _add_system(said, system_message(content))
            case _Assistant(content=content):
                said.append(_assistant_message(content))
            case _User(content=str(content)):
                said.append({"role": "user", "content": content})
            case _User(content=list(blocks)):
                said += _user_messages(blocks, f"messages[{position}]")
    if said and said[-1]["role"] == "assistant" and not counted:
        where = f"messages[{len(messages) - 1}]"
        raise unsupported(
            where, "Not every model goes on with an answer that is begun for it. End with a user message."
        )
    return said


def is_anthropics(messages: Sequence[Message]) -> bool:
    """Whether Anthropic takes the thinking in the history for its own: it checks the signatures."""
    blocks = (block for message in messages if isinstance(message.content, list) for block in message.content)
    return all(block.signature for block in blocks if isinstance(block, _Thinking))


def system_message(content: str | Sequence[Text]) -> OpenAIMessage:
    """One text: not every model's template takes parts in a system message."""
    text = content if isinstance(content, str) else "\n".join(block.text for block in content)
    return {"role": "system", "content": text}


def _add_system(said: list[OpenAIMessage], message: OpenAIMessage) -> None:
    """Many models' templates take one system message, and only as the first: later ones go into what the user says,
    marked as coding agents mark them there.
    """
    text = message["content"]
    if not said:
        said.append(message)
    elif (last := said[-1])["role"] == "system":
        last["content"] += f"\n{text}"
    else:
        reminder = f"<system-reminder>\n{text}\n</system-reminder>"
        if last["role"] != "user":
            said.append({"role": "user", "content": reminder})
        elif isinstance(last["content"], str):
            last["content"] += f"\n\n{reminder}"
        else:
            last["content"].append(_text(reminder))


def _assistant_message(content: str | Sequence[Text | _Thinking | _RedactedThinking | _ToolUse]) -> OpenAIMessage:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    calls = [block.call() for block in content if isinstance(block, _ToolUse)]
    text = "".join(block.text for block in content if isinstance(block, Text))
    message: OpenAIMessage = {"role": "assistant", "content": text or (None if calls else "")}
    # Models that think between calls want to see what they thought; those that do not never sent any.
    thinking = "\n".join(block.thinking for block in content if isinstance(block, _Thinking) and block.thinking)
    if thinking:
        message["reasoning_content"] = thinking
    if calls:
        message["tool_calls"] = calls
    return message


def _user_messages(blocks: Sequence[_Block | _ToolResult], where: str) -> list[OpenAIMessage]:
    """The tools' results, which OpenAI wants right after the calls, and then what else the user says."""
    results: list[OpenAIMessage] = []
    parts: list[Part] = []
    for position, block in enumerate(blocks):
        here = f"{where}.content[{position}]"
        if isinstance(block, _ToolResult):
            text, others = _result(block, here)
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": text})
            parts += others
        else:
            parts += block.parts(here)
    if not blocks:
        raise InvalidRequest(f"'{where}.content' is empty.", param=f"{where}.content", code="invalid_value")
    if not parts:
        return results
    lone_text = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else None
    return [*results, {"role": "user", "content": parts if lone_text is None else lone_text}]


def _result(result: _ToolResult, where: str) -> tuple[str, list[Part]]:
    """The text of a tool's result, and what is no text: OpenAI's tool messages have room for text alone."""
    content = result.content or ""
    parts = [_text(content)] if isinstance(content, str) else _parts(content, where)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if result.is_error:
        text = f"Error: {text}"  # OpenAI's has no other way to say so
    others = [part for part in parts if part["type"] != "text"]
    if not others:
        return text, []
    text = "\n".join(filter(None, (text, "(The rest of the result is in the next message.)")))
    return text, [_text(f"The rest of the result of {result.tool_use_id}:"), *others]


def _parts(blocks: Iterable[_Block], where: str) -> list[Part]:
    return [part for i, block in enumerate(blocks) for part in block.parts(f"{where}.content[{i}]")]


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _image(url: str) -> Part:
    return {"type": "image_url", "image_url": {"url": url}}
