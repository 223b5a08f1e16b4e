"""What a dialect is: how one kind of upstream API is spoken. Pure functions over bytes.

A provider that speaks OpenAI's API is a row in `lexora.providers.table`; any other is one file that implements
`Dialect`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.task import Task
from lexora.core.usage import Usage

# What msgspec raises for bytes that are not the JSON asked for.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

MOST_TRANSCRIPT = 200_000  # characters


class Completion(msgspec.Struct):
    """A plain answer in OpenAI's form: `body` is a whole `chat.completion` object, or that of another task.

    `content_type` says what it is where it is no JSON.
    """

    body: bytes
    id: str
    model: str
    usage: Usage | None
    content_type: bytes = b""

    def named(self, model: str) -> "Completion":
        """The same with this model in it."""
        fields = msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        body = msgspec.json.encode({**fields, "model": model})
        return Completion(body, self.id, model, self.usage)


class MalformedEvent(Exception):
    """An event of a stream that is not the JSON object it should be."""


class Transcript:
    """The text of an answer so far, as long as there is nothing else in it and it is not too long to be sent again."""

    __slots__ = ("_left", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._left = MOST_TRANSCRIPT

    def add(self, text: str) -> None:
        self._left -= len(text)
        if self._left >= 0:
            self._pieces.append(text)
        else:
            self.spoil()

    def spoil(self) -> None:
        """There is something in the answer that is no text."""
        self._left = -1
        self._pieces.clear()

    @property
    def text(self) -> str | None:
        """None if it cannot be gone on with."""
        return "".join(self._pieces) if self._left >= 0 else None


class Decoder(Protocol):
    """Cuts the body of a stream into events. Raises EventTooLarge, and UpstreamBroken for what cannot be cut."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that `piece` completes."""
        ...

    def finish(self) -> list[bytes]:
        """The data of a last event that the body's end completes."""
        ...


class ChunkReader(Protocol):
    """Turns the events of one upstream stream into OpenAI's chunks, and notes the facts on the way.

    `ended` says that the upstream has given the answer's true end; `tokens_seen` counts the chunks that carried
    part of an answer; `usage` is the upstream's own count, whether or not the client asked to see it. `transcript` is
    what another could go on with.
    """

    id: str
    model: str
    usage: Usage | None
    tokens_seen: int
    ended: bool
    transcript: Transcript

    def read(self, data: bytes) -> bytes:
        """The framed chunks (`data: …` + blank line) that one event's data becomes; empty if none.

        Never frames `[DONE]`: the gateway writes it, at a true end. Raises UpstreamRefused for an error that
        the upstream reports inside the stream, and MalformedEvent.
        """
        ...


JSON_HEADER = b"content-type: application/json\r\n"


class Outgoing(NamedTuple):
    """What to POST: the path below the deployment's base URL, the body, and header lines of this request's own."""

    path: str
    body: bytes
    headers: bytes = JSON_HEADER


class Dialect(Protocol):
    """One kind of upstream API.

    `tasks` are those besides chat that it has, each with what reads a plain answer (its body and content type) as
    `completion` does; no request for another comes here.
    """

    @property
    def tasks(self) -> Mapping[Task, Callable[[ChatRequest, bytes, bytes], Completion]]: ...

    def headers(self, credential: str | None) -> dict[str, str]:
        """The headers of every request: our credential, if there is one, and what else the API wants."""
        ...

    def chat_request(self, request: ChatRequest, upstream_model: str) -> Outgoing:
        """The upstream's form of a request. Raises InvalidRequest for what this upstream cannot do."""
        ...

    def completion(self, body: bytes) -> Completion:
        """A plain answer in OpenAI's form. Raises UpstreamRefused (an error inside a 200) and UpstreamBroken."""
        ...

    def chunk_reader(self, request: ChatRequest) -> ChunkReader:
        """A reader for one stream that answers `request`."""
        ...
