"""The blocks of Anthropic's messages, and the parts of OpenAI's that they become.

(https://platform.claude.com/docs/en/api/messages)
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from lexora.providers.chat_fields import unsupported

Part = dict[str, Any]


_NO_FILES = "Files kept at Anthropic are out of other models' reach. Send the content itself."


class _Citations(msgspec.Struct):
    enabled: bool | None = None


def _refuse_citations(citations: _Citations | None, where: str) -> None:
    if citations is not None and citations.enabled:
        raise unsupported(f"{where}.citations", "No citations can be had of this model. Leave them out.")


class Marked(msgspec.Struct, tag_field="type", kw_only=True):
    """Up to here, Anthropic is to keep the prompt in its cache."""

    cache_control: dict[str, Any] | None = None


class Block(Marked):
    """A block of a user's content, or of a tool's result."""

    def parts(self, where: str) -> list[Part]:
        """The parts of OpenAI's content that it becomes; `where` is its path in the request."""
        raise NotImplementedError


class Text(Block, tag="text"):
    text: str

    def parts(self, where: str) -> list[Part]:
        return [text_part(self.text)]


class _Base64(msgspec.Struct, tag_field="type", tag="base64"):
    media_type: str
    data: str


class _Url(msgspec.Struct, tag_field="type", tag="url"):
    url: str


class _File(msgspec.Struct, tag_field="type", tag="file"):
    file_id: str


class _PlainText(msgspec.Struct, tag_field="type", tag="text"):
    data: str


class _Image(Block, tag="image"):
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


class _Document(Block, tag="document"):
    source: _Base64 | _PlainText | _Blocks | _Url | _File
    title: str | None = None
    context: str | None = None
    citations: _Citations | None = None

    def parts(self, where: str) -> list[Part]:
        _refuse_citations(self.citations, where)
        head = [text_part("\n".join(filter(None, (self.title, self.context))))] if self.title or self.context else []
        match self.source:
            case _Base64(media_type="application/pdf", data=data):
                name, file_data = self.title or "document.pdf", f"data:application/pdf;base64,{data}"
                return [*head, {"type": "file", "file": {"filename": name, "file_data": file_data}}]
            case _Base64(media_type=media_type):
                raise unsupported(
                    f"{where}.source.media_type", f"No model here reads {media_type}. Send a PDF or text."
                )
            case _PlainText(data=data) | _Blocks(content=str(data)):
                return [*head, text_part(data)]
            case _Blocks(content=blocks):
                return head + parts_of(blocks, f"{where}.source")  # type: ignore[arg-type]  # str is dealt with
            case _Url():
                raise unsupported(f"{where}.source", "Documents are not fetched. Send the PDF as base64, or its text.")
            case _File():
                raise unsupported(f"{where}.source", _NO_FILES)


class _SearchResult(Block, tag="search_result"):
    source: str
    title: str
    content: list[Text]
    citations: _Citations | None = None

    def parts(self, where: str) -> list[Part]:
        _refuse_citations(self.citations, where)
        return [text_part("\n".join([self.title, self.source, *(block.text for block in self.content)]))]


class ToolResult(Marked, tag="tool_result"):
    tool_use_id: str
    content: str | list[Text | _Image | _Document | _SearchResult] | None = None
    is_error: bool | None = None


class ToolUse(Marked, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Raw]

    def call(self) -> dict[str, Any]:
        arguments = msgspec.json.encode(self.input).decode()
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


class Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinking(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    """Encrypted: only its maker can read it."""

    data: str = ""


class User(msgspec.Struct, tag_field="role", tag="user"):
    content: str | list[Text | _Image | _Document | _SearchResult | ToolResult]


class Assistant(msgspec.Struct, tag_field="role", tag="assistant"):
    content: str | list[Text | Thinking | RedactedThinking | ToolUse]


class System(msgspec.Struct, tag_field="role", tag="system"):
    content: str | list[Text]


Message = User | Assistant | System


def parts_of(blocks: Iterable[Block], where: str) -> list[Part]:
    return [part for i, block in enumerate(blocks) for part in block.parts(f"{where}.content[{i}]")]


def text_part(text: str) -> Part:
    return {"type": "text", "text": text}


def _image(url: str) -> Part:
    return {"type": "image_url", "image_url": {"url": url}}
