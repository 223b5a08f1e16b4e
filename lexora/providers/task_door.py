"""The door for clients of OpenAI's other endpoints: what is sent is handed on, and only what the gateway needs is read.

(https://platform.openai.com/docs/api-reference: completions, embeddings, images, audio; rerank as vLLM, llama.cpp and
others have it)
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Raw

from lexora.core.chat import Cached, ChatFields, ChatRequest, Message, Name, Seconds, StreamOptions, read_fields
from lexora.core.record import Priority
from lexora.core.task import COMPLETIONS, EMBEDDINGS, IMAGES, RERANK, Task
from lexora.providers.chat_door import ChatDoor, ChatStream

# More of them than any books could hold.
_MOST_ANSWERS = 2**16

# A text, texts, a text's tokens, tokens of texts; some servers take objects with an image or a text in them.
Prompt = str | list[str | int | list[int] | dict[str, Raw]]


class TaskFields(msgspec.Struct, kw_only=True, gc=False):
    """What every endpoint takes (`x_*` are the gateway's)."""

    model: Name | None = None
    x_priority: Priority | None = None
    x_user_id: Name | None = None
    x_timeout: Seconds | None = None
    x_cache: Cached | None = None

    def given(self) -> Prompt:
        """What the model is given."""
        raise NotImplementedError

    def known(self) -> dict[str, Any]:
        """What else the gateway relies on, by the names of chat."""
        return {}


class CompletionFields(TaskFields, kw_only=True, gc=False):
    """The fields of a text completion that the gateway itself relies on."""

    prompt: Prompt
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: int | None = None

    def given(self) -> Prompt:
        return self.prompt

    def known(self) -> dict[str, Any]:
        several = isinstance(self.prompt, list) and not any(isinstance(item, int) for item in self.prompt)
        prompts = len(self.prompt) if several else 1
        return {
            "n": min(max(1, prompts) * max(self.n or 1, self.best_of or 1), _MOST_ANSWERS),
            "stream": self.stream,
            "stream_options": self.stream_options,
            "max_tokens": self.max_tokens,
        }


class EmbeddingFields(TaskFields, kw_only=True, gc=False):
    """The fields of a request for embeddings that the gateway itself relies on."""

    input: Prompt

    def given(self) -> Prompt:
        return self.input


class RerankFields(TaskFields, kw_only=True, gc=False):
    """The fields of a request to rank documents that the gateway itself relies on."""

    query: str | dict[str, Raw]
    documents: list[str | dict[str, Raw]]

    def given(self) -> Prompt:
        return [*self.documents, self.query]


class ImageFields(TaskFields, kw_only=True, gc=False):
    """The fields of a request for images that the gateway itself relies on."""

    prompt: str
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stream: bool | None = None

    def given(self) -> Prompt:
        return self.prompt

    def known(self) -> dict[str, Any]:
        return {"n": self.n, "stream": self.stream}


FIELDS: dict[Task, type[TaskFields]] = {
    COMPLETIONS: CompletionFields,
    EMBEDDINGS: EmbeddingFields,
    RERANK: RerankFields,
    IMAGES: ImageFields,
}


class EventStream(ChatStream):
    """Passes events on. The upstream's own are the last."""

    def end(self, frames: bytes) -> bytes:
        return frames


class TaskDoor(ChatDoor):
    """Speaks one endpoint of OpenAI's with clients, whose bodies are JSON."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._stream: ChatStream = ChatStream() if task is COMPLETIONS else EventStream()
        self._decode = msgspec.json.Decoder(FIELDS[task]).decode

    def request(self, body: bytes) -> ChatRequest:
        asked, fields = read_fields(body, self._decode)
        messages, token_ids = _read(asked.given())
        known = ChatFields(
            messages,
            model=asked.model,
            x_priority=asked.x_priority,
            x_user_id=asked.x_user_id,
            x_timeout=asked.x_timeout,
            x_cache=asked.x_cache,
            **asked.known(),
        )
        # Tokens that come as such are counted; what stands around them is for nobody's eyes.
        size = len(body) if messages else 0
        return ChatRequest(known, fields, size, task=self._task, token_ids=token_ids)

    def stream(self, request: ChatRequest, record_id: str) -> ChatStream:  # noqa: ARG002 - one serves all
        return self._stream


def _read(given: Prompt) -> tuple[list[Message], int]:
    """The texts, and how many tokens come as such."""
    messages, token_ids = [], 0
    for item in [given] if isinstance(given, str) else given:
        if isinstance(item, str):
            messages.append(Message("user", item))
        elif isinstance(item, dict):
            messages.append(Message("user", _text(item.get("text"))))
        else:
            token_ids += 1 if isinstance(item, int) else len(item)
    return messages, token_ids


def _text(raw: Raw | None) -> str:
    text = msgspec.json.decode(raw) if raw is not None else ""
    return text if isinstance(text, str) else ""
