"""An answer that broke off and that another deployment goes on with: one stream to the client, no word twice."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.core.ports import SoFar

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_DATA = b"data: "


def continued(request: ChatRequest, so_far: SoFar, fields: Mapping[str, bool]) -> ChatRequest:
    """The request for the rest of an answer: its beginning is the last message.

    `fields` are what the provider wants to be told besides. The space at the text's end is left to the model: some
    providers refuse it (`Continuation` drops it if it comes again).
    """
    messages = _decode_list(request.fields["messages"])
    messages.append(Raw(_encode({"role": "assistant", "content": so_far.text.rstrip()})))
    changed = {**request.fields, "messages": Raw(_encode(messages))}
    for name in ("max_tokens", "max_completion_tokens"):
        limit = _decode(changed[name]) if name in changed else None
        if isinstance(limit, int):
            changed[name] = Raw(_encode(max(1, limit - so_far.tokens)))
    changed |= {name: Raw(_encode(value)) for name, value in fields.items()}
    return ChatRequest(request.known, changed, request.size)


class Continuation:
    """Makes the chunks of the deployment that goes on look like those of the one that began.

    `head` are the first frames that the client got.
    """

    def __init__(self, head: bytes, so_far: SoFar) -> None:
        text = so_far.text
        first: dict[str, Any] = next(filter(None, map(_chunk, head.split(b"\n\n"))), {})
        self._facts: dict[str, Any] = {name: first[name] for name in ("id", "created") if name in first}
        self._space = text[len(text.rstrip()) :]
        self._tokens = so_far.tokens

    def rewrite(self, frames: bytes) -> bytes:
        """The same frames with the answer's own id, without a second role and with usage that counts both parts.

        What is of no known form is left as it is.
        """
        lines = []
        for frame in frames.split(b"\n\n"):
            chunk = _chunk(frame)
            if chunk is None:
                lines.append(frame)
            elif self._adapt(chunk):
                lines.append(_DATA + _encode(chunk | self._facts))
        return b"".join(line + b"\n\n" for line in lines if line)

    def _adapt(self, chunk: dict[str, Any]) -> bool:
        """Takes out of a chunk what the client has already; False if nothing is left."""
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = (choice.get("delta") or {}) if isinstance(choice, dict) else None
            if not isinstance(delta, dict):
                continue
            delta.pop("role", None)
            if isinstance(delta.get("content"), str):
                delta["content"] = self._without_space(delta["content"])
            if not any(delta.values()) and not choice.get("finish_reason"):
                return False
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._add_first_part(usage)
        return True

    def _add_first_part(self, usage: dict[str, Any]) -> None:
        prompt, completion = (usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens"))
        if isinstance(prompt, int) and isinstance(completion, int):
            prompt, completion = max(0, prompt - self._tokens), max(0, completion + self._tokens)
            usage |= {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _without_space(self, content: str) -> str:
        """The text less the space that the client has already."""
        while self._space and content.startswith(self._space[0]):
            self._space, content = self._space[1:], content[1:]
        if content:
            self._space = ""
        return content


def _chunk(frame: bytes) -> dict[str, Any] | None:
    """The chunk in a frame; None for a comment, and for what only a reader that looks at less of it can read."""
    if not frame.startswith(_DATA):
        return None
    try:
        chunk = _decode(frame[len(_DATA) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return chunk if isinstance(chunk, dict) else None
