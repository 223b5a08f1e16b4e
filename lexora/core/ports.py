"""What the core needs from the outside, as protocols. `lexora.adapters` implements them."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.keys import Key
from lexora.core.record import Record
from lexora.core.usage import Usage
from lexora.core.versions import Version

if TYPE_CHECKING:  # a prepared answer needs no model map, and so no pydantic
    from lexora.core.model_map import Deployment


# How long a response is kept, and how large it may be: its input and the response object, in bytes.
RESPONSE_SECONDS = 30 * 86_400
MOST_RESPONSE_BYTES = 3_000_000


class Completion(Protocol):
    """A plain answer: `body` is a whole `chat.completion` object, or what else was asked for, ready to send.

    `content_type` says what it is where it is no JSON.
    """

    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> bytes: ...
    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def usage(self) -> Usage | None: ...


class ChunkStream(Protocol):
    """A streamed answer. The facts fill up as it is read.

    `usage` is the upstream's own count, `tokens_seen` the number of chunks that carried part of an answer,
    `malformed` the number of events that were no JSON and were left out; `ended` says that the answer's true end
    has been read. `text` is the answer so far, None if there is more than text in it.
    """

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def tokens_seen(self) -> int: ...
    @property
    def malformed(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def text(self) -> str | None: ...

    async def read(self) -> bytes:
        """The next events, framed for the client; empty at the answer's true end, and never before it.

        Raises UpstreamError when the stream breaks, stalls or reports an error.
        """
        ...

    def close(self) -> None:
        """Frees the upstream. May be called at any time, any number of times."""
        ...


class SoFar(NamedTuple):
    """An answer that broke off: what the client has of it."""

    text: str
    tokens: int


class Upstream(Protocol):
    """Calls deployments."""

    def complete(self, deployment: Deployment, request: ChatRequest, record: Record) -> Awaitable[Completion]:
        """One plain answer. Raises UpstreamError."""
        ...

    async def stream(
        self, deployment: Deployment, request: ChatRequest, record: Record, so_far: SoFar | None = None
    ) -> ChunkStream:
        """A stream, once the upstream has accepted the request; the rest of an answer that broke off, if so.

        Raises UpstreamError, CannotContinue among them.
        """
        ...

    async def count_tokens(self, deployment: Deployment, request: ChatRequest, record: Record) -> int | None:
        """How many tokens the prompt has by the upstream's own count; None if it has none. Raises UpstreamError."""
        ...


class Credentials(Protocol):
    """Where the secrets are."""

    def __call__(self, reference: str, *, fresh: bool = False) -> str:
        """The secret behind `env:NAME`; `fresh` asks for the one that holds now, not one remembered.

        Raises CredentialMissing.
        """
        ...


class AnswerStore(Protocol):
    """The prepared answers: prompt as partition key, variant as sort key."""

    async def get(self, prompt: str, variant: int) -> str | None:
        """One variant of a prompt, None if there is none. Raises OSError if the store does not answer."""
        ...


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True):
    """A whole answer in the cache: `body` is a completion, `usage` what it has used, the rest who gave it.

    Times are seconds since the epoch.
    """

    body: bytes
    usage: Usage
    usage_estimated: bool
    deployment: str
    provider: str
    model: str
    created_at: float
    expires_at: float


class CacheStore(Protocol):
    """Keeps answers by what was asked. It may drop any at any time, and give one whose time is over."""

    async def get(self, key: str) -> KeptAnswer | None:
        """The answer, if it is there. Raises OSError."""
        ...

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keeps an answer in the place of what was there, unless it is too large. Raises OSError."""
        ...


class Ledger(Protocol):
    """Keeps one record per request."""

    def admit(self, record: Record) -> None:
        """Notes a request that is about to be forwarded, or its changed reservation: should the process be killed, its
        record is this one. Raises OSError.
        """
        ...

    def add(self, record: Record) -> None:
        """Takes a finished record. Never raises, and never blocks where other requests would have to wait."""
        ...


class RecordSink(Protocol):
    """Where a ledger's records end up: a table, a log."""

    def write(self, records: list[Record]) -> None:
        """Writes a batch, or raises; the batch may then be written again, and no record counts twice. May block."""
        ...

    def close(self) -> None: ...


class KeyStore(Protocol):
    """The API keys. Its methods may block for as long as a look-up takes."""

    def get(self, key_id: str) -> Key | None:
        """A key by its id. Raises OSError."""
        ...

    def all(self) -> list[Key]:
        """Every key, oldest first, revoked ones included. Raises OSError."""
        ...

    def put(self, key: Key, before: Key | None) -> bool:
        """Stores a key in the place of `before`, the same as it was; None if it is new.

        False, and nothing is done, if the store has another one by now. Raises OSError.
        """
        ...


class Amounts(msgspec.Struct, frozen=True, gc=False):
    """So much is used, or reserved."""

    requests: int = 0
    tokens: int = 0
    nanodollars: int = 0


class Claim(msgspec.Struct, frozen=True, gc=False):
    """So much for one subject in one window, where no more than `most_…` may be used; None only counts.

    `subject` is `user:…`, `key:…` or `all`, `window` such as `minute:29404800` or `day:2026-11-24`; `ends_at` (seconds
    since the epoch) is when the window is over.
    """

    subject: str
    window: str
    ends_at: float
    requests: int = 0
    tokens: int = 0
    most_requests: int | None = None
    most_tokens: int | None = None
    nanodollars: int = 0
    most_nanodollars: int | None = None

    def added_to(self, used: Amounts) -> Amounts | None:
        """What is used together with it, None if that is more than may be."""
        requests = used.requests + self.requests
        tokens = used.tokens + self.tokens
        nanodollars = used.nanodollars + self.nanodollars
        if (
            (self.most_requests is not None and requests > self.most_requests)
            or (self.most_tokens is not None and tokens > self.most_tokens)
            or (self.most_nanodollars is not None and nanodollars > self.most_nanodollars)
        ):
            return None
        return Amounts(requests, tokens, nanodollars)


class NotSettled(OSError):
    """`left` are the claims that a store could not settle, with their amounts, and that may be tried again."""

    def __init__(self, message: str, left: Sequence[tuple[Claim, Amounts]]) -> None:
        super().__init__(message)
        self.left = left


class LimitStore(Protocol):
    """Counts what is used; no two reservations together pass a limit. Its methods may block as a look-up does."""

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[Amounts]]:
        """Adds every claim, or none of them. No two are for the same subject and window.

        Returns the first claim that does not fit, or None, and what is used of each claim's window (after a refusal at
        least that of the refused one, others nothing). Raises OSError, and nothing is reserved then.
        """
        ...

    def settle(self, claims: Sequence[Claim], amounts: Sequence[Amounts]) -> None:
        """Counts these in the place of what the claims reserved, whatever the limits.

        Raises OSError, NotSettled if some of them are counted.
        """
        ...


class StoredResponse(NamedTuple):
    """A response that was given, and what it answered; both are a user's words.

    `owner` is that user, empty for nobody in particular; `created_at` seconds since the epoch; `previous` the id of the
    response that it goes on from; `input` the items of its request's input, as JSON, and `response` the object itself.
    """

    id: str
    owner: str
    created_at: float
    previous: str | None
    input: bytes
    response: bytes


class ResponseStore(Protocol):
    """Keeps responses of the Responses API, each for RESPONSE_SECONDS. Its methods may block as a look-up does.

    To anybody but its owner a response does not exist.
    """

    def put(self, response: StoredResponse) -> None:
        """Stores a response of at most MOST_RESPONSE_BYTES. Raises OSError."""
        ...

    def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """The owner's response with this id, None if there is none (any more). Raises OSError."""
        ...

    def delete(self, owner: str, response_id: str) -> bool:
        """Deletes it for good; False if there was none. Raises OSError."""
        ...


class InForce(NamedTuple):
    """Which version of the prepared answers is in force (None: none yet), and which one somebody is about to put there.

    What was begun at `begun_at`, seconds since the epoch, and is the version in force, is not in force everywhere yet.
    `was` is what was in force when it was begun.
    """

    version: str | None = None
    begun: str | None = None
    begun_at: float = 0.0
    was: str | None = None

    def beginning(self, version_id: str, now: float) -> InForce:
        """The same, with this version begun."""
        is_switched = self.begun is not None and self.begun == self.version
        return InForce(self.version, version_id, float(now), self.was if is_switched else self.version)


class VersionStore(Protocol):
    """Keeps the versions of the prepared answers. Each method raises OSError if the store does not answer."""

    def add(self, version: Version) -> None:
        """Keeps a version for good; again is the same as once."""
        ...

    def get(self, version_id: str) -> Version | None:
        """A version that was kept, None if there is none."""
        ...

    def ids(self) -> list[str]:
        """Of all versions, newest first."""
        ...

    def in_force(self) -> InForce: ...

    def begin(self, version_id: str, now: float, as_seen: InForce) -> InForce | None:
        """Notes that this version is about to be put in force.

        None, and nothing is done, if what is in force is no longer `as_seen`.
        """
        ...

    def switch(self, version: Version, as_seen: InForce) -> InForce:
        """Puts what was begun in force. Again is the same as once.

        Raises Overtaken if somebody else has begun something meanwhile.
        """
        ...

    def finish(self, as_seen: InForce) -> InForce:
        """Notes that what was begun is in force everywhere. Raises Overtaken."""
        ...


class Overtaken(Exception):
    """Somebody else is publishing, or has published."""


class TokenVerifier(Protocol):
    """Checks the tokens of an OIDC issuer."""

    async def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a valid token. Raises Unauthorized, and OSError if the issuer's keys cannot be had."""
        ...
