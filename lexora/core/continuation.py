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
        first: dict[str, Any] = next(_chunks(head), {})
        self._facts: dict[str, Any] = {name: first[name] for name in ("id", "created") if name in first}
        self._space = text[len(text.rstrip()) :]
        self._tokens = so_far.tokens

    def rewrite(self, frames: bytes) -> bytes:
        """The same frames with the answer's own id, without a second role and with usage that counts both parts."""
        lines = []
        for frame in frames.split(b"\n\n"):
            if frame.startswith(_DATA):
                chunk = self._rewritten(_decode(frame[len(_DATA) :]))
                lines.append(_DATA + _encode(chunk) if chunk else b"")
            else:
                lines.append(frame)
        return b"".join(line + b"\n\n" for line in lines if line)

    def _rewritten(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        chunk |= self._facts
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            delta.pop("role", None)
            if delta.get("content"):
                delta["content"] = self._without_space(delta["content"])
            if not any(delta.values()) and not choice.get("finish_reason"):
                return None  # all that it said is said
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            for name, more in (("prompt_tokens", -self._tokens), ("completion_tokens", self._tokens)):
                usage[name] = max(0, (usage.get(name) or 0) + more)
            usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        return chunk

    def _without_space(self, content: str) -> str:
        """The text less the space that the client has already."""
        while self._space and content.startswith(self._space[0]):
            self._space, content = self._space[1:], content[1:]
        if content:
            self._space = ""
        return content


def _chunks(frames: bytes) -> Any:
    return (_decode(frame[len(_DATA) :]) for frame in frames.split(b"\n\n") if frame.startswith(_DATA))
