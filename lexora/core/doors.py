"""What a door is: an API that clients speak. Pure functions over bytes.

Inside, a request is OpenAI's chat completion and an answer is one of its objects or a stream of its chunks; a door
stands between that and the client, as a dialect does between it and the upstream.
"""

from typing import Protocol

from lexora.core.chat import ChatRequest
from lexora.core.errors import LexoraError


class DoorStream(Protocol):
    """Turns the frames of one stream into the client's. `end` or `error` comes last, and once."""

    def start(self) -> bytes:
        """The frames that go out before there is a chunk; may be empty."""
        ...

    def feed(self, frames: bytes) -> bytes:
        """The client's frames for whole frames of OpenAI's: chunks and comments."""
        ...

    def end(self, frames: bytes) -> bytes:
        """The same for the last frames, with what tells the client that the answer is complete."""
        ...

    def error(self, error: LexoraError) -> bytes:
        """The frames that tell that the answer broke off; no client takes it for complete."""
        ...


class Door(Protocol):
    """One API that clients speak."""

    def request(self, body: bytes) -> ChatRequest:
        """The request that a body asks for. Raises InvalidRequest that names the client's own field."""
        ...

    def completion(self, request: ChatRequest, body: bytes, record_id: str) -> bytes:
        """The client's form of a `chat.completion`. Raises UpstreamBroken for one that has none."""
        ...

    def stream(self, request: ChatRequest, record_id: str) -> DoorStream:
        """What turns the stream that answers `request` into the client's."""
        ...

    def error(self, error: LexoraError, record_id: str | None = None) -> tuple[int, bytes]:
        """Status and body of an error. `record_id` is that of the request, if it has one."""
        ...
