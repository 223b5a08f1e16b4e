"""The door for clients of OpenAI's chat completions: what is inside is what they speak."""

import msgspec

from lexora.core.chat import ChatRequest, parse_chat_request
from lexora.core.errors import LexoraError
from lexora.providers.sse import event

DONE = b"data: [DONE]\n\n"


class ChatStream:
    """Passes frames on. It keeps nothing, so one serves all."""

    def start(self) -> bytes:
        return b""

    def feed(self, frames: bytes) -> bytes:
        return frames

    def end(self, frames: bytes) -> bytes:
        return frames + DONE

    def error(self, error: LexoraError) -> bytes:
        """The SDKs raise it."""
        return event(msgspec.json.encode(error.envelope()))


_STREAM = ChatStream()


class ChatDoor:
    """Speaks OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat) with clients."""

    def request(self, body: bytes) -> ChatRequest:
        return parse_chat_request(body)

    def completion(self, request: ChatRequest, body: bytes, record_id: str) -> bytes:  # noqa: ARG002 - it is one already
        return body

    def stream(self, request: ChatRequest, record_id: str) -> ChatStream:  # noqa: ARG002 - as above
        return _STREAM

    def error(self, error: LexoraError, record_id: str | None = None) -> tuple[int, bytes]:  # noqa: ARG002 - a header says it
        return error.status, msgspec.json.encode(error.envelope())
