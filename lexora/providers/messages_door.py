"""The door for clients of Anthropic's Messages API (https://platform.claude.com/docs/en/api/messages)."""

from lexora.core.chat import ChatRequest
from lexora.core.errors import LexoraError
from lexora.providers.messages_door_errors import error_body
from lexora.providers.messages_door_request import chat_request
from lexora.providers.messages_door_response import message
from lexora.providers.messages_door_stream import MessageStream


class MessagesDoor:
    """Speaks Anthropic's Messages API with clients."""

    def request(self, body: bytes) -> ChatRequest:
        return chat_request(body)

    def completion(self, request: ChatRequest, body: bytes, record_id: str) -> bytes:
        return message(request, body, record_id)

    def stream(self, request: ChatRequest, record_id: str) -> MessageStream:
        return MessageStream(request, record_id)

    def error(self, error: LexoraError, record_id: str | None = None) -> tuple[int, bytes]:
        return error.status, error_body(error, record_id)
