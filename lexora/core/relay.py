"""Streamed answers on their way to the client: a deployment's, one that is kept for others as well, a kept one."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import quote

from lexora.core.cache import Cache, Lead
from lexora.core.chat import ChatRequest
from lexora.core.continuation import Continuation
from lexora.core.errors import UpstreamError
from lexora.core.passage import Passage
from lexora.core.ports import ChunkStream, SoFar, Upstream
from lexora.core.record import Record
from lexora.core.replay import Assembled
from lexora.core.usage import Usage

# Providers that sign their models' reasoning.
_SIGNING = ("anthropic", "bedrock")


def deployment_comment(label: str) -> bytes:
    """The comment in a stream that says which deployment answers from here on."""
    return b": x-lexora-deployment: %b\n\n" % quote(label, safe="/: ").encode()


class Given(NamedTuple):
    """A plain answer of the cache: the port `Completion`."""

    body: bytes
    id: str
    model: str
    usage: Usage | None
    content_type: bytes = b""


class AnswerStream(Protocol):
    """A streamed answer on its way to the client. `close` comes last."""

    @property
    def tokens_seen(self) -> int: ...
    @property
    def ended(self) -> bool: ...

    async def read(self) -> bytes:
        """As of a ChunkStream."""
        ...

    def close(self) -> None: ...


class GivenStream:
    """An answer of the cache, streamed: all of it at once."""

    def __init__(self, frames: bytes, tokens: int) -> None:
        self._frames = frames
        self.tokens_seen = tokens
        self.ended = False

    async def read(self) -> bytes:
        self.ended = True
        return self._frames

    def close(self) -> None:
        pass


class Relay:
    """A streamed answer on its way through. `close` settles the record.

    When a deployment's stream breaks, the next one begins anew as long as the client has nothing of it, and else goes
    on with the answer where that can be done right.
    """

    def __init__(self, passage: Passage, upstream: Upstream, stream: ChunkStream, record: Record) -> None:
        self._passage = passage
        self._upstream = upstream
        self._stream = stream
        self._record = record
        self._head = b""  # the first frames that the client got
        self._text = ""  # of the streams that broke
        self._continuation: Continuation | None = None

    @property
    def tokens_seen(self) -> int:
        return self._passage.tokens_before + self._stream.tokens_seen

    @property
    def ended(self) -> bool:
        return self._stream.ended

    @property
    def usage(self) -> Usage | None:
        return self._stream.usage

    @property
    def one_piece(self) -> bool:
        """Whether one deployment has given all of it."""
        return self._continuation is None

    async def read(self) -> bytes:
        """As of a ChunkStream."""
        while True:
            try:
                frames = await self._stream.read()
            except UpstreamError as error:
                await self._go_on(error)
                # The headers may be out, and they name the one that broke.
                return deployment_comment(self._record.deployment)
            if self._continuation is not None:
                frames = self._continuation.rewrite(frames)
            elif not self._head:
                self._head = frames
            if frames or self._stream.ended:
                return frames

    async def _go_on(self, error: UpstreamError) -> None:
        """Puts the next deployment's stream in place. Raises what the client is told if there is none."""
        passage, broken, so_far = self._passage, self._stream, None
        broken.close()
        self._record.malformed_events += broken.malformed
        self._record.upstream_model = broken.model or self._record.upstream_model
        if self._head:  # whoever goes on does so under this id
            self._record.response_id = self._record.response_id or broken.id
        said = broken.text
        can = not self._head or (said is not None and passage.request.can_be_continued())
        await passage.failed(error, stream=broken, final=not can)
        if self._head:
            self._text += said or ""
            so_far = SoFar(self._text, passage.tokens_before)
            self._continuation = Continuation(self._head, so_far)
            passage.continuing = bool(self._text.strip())
        beginning = so_far if passage.continuing else None
        self._stream = await passage.call(partial(self._upstream.stream, so_far=beginning))

    def close(self) -> None:
        """Frees the upstream and settles the record with what was used so far, unless that is done."""
        stream, record = self._stream, self._record
        stream.close()
        if not self._passage.settled:
            record.upstream_model = stream.model or record.upstream_model
            record.response_id = record.response_id or stream.id
            record.malformed_events += stream.malformed
            self._passage.settle(stream.usage, stream.tokens_seen, failed=not stream.ended)


class KeptRelay:
    """A relayed stream that is kept for others once it is whole."""

    def __init__(
        self,
        relay: Relay,
        request: ChatRequest,
        record: Record,
        cache: Cache,
        lead: Lead,
        loop: AbstractEventLoop,
    ) -> None:
        self._relay = relay
        self._answer = Assembled(request)
        self._record = record
        self._cache = cache
        self._lead = lead
        self._loop = loop

    @property
    def tokens_seen(self) -> int:
        return self._relay.tokens_seen

    @property
    def ended(self) -> bool:
        return self._relay.ended

    async def read(self) -> bytes:
        flight = self._lead.flight
        if flight is not None:
            flight.held_since = None
        frames = await self._relay.read()
        self._answer.feed(frames)
        if self._relay.ended:
            await self._keep()
        elif flight is not None:
            flight.held_since = self._loop.time()
        return frames

    async def _keep(self) -> None:
        relay, record = self._relay, self._record
        relay.close()  # with which it is counted
        body = None
        if relay.one_piece and not record.malformed_events:
            body = self._answer.kept(relay.usage, signed=record.provider in _SIGNING)
        await self._cache.keep(self._lead, body, relay.usage or counted(record), record)

    def close(self) -> None:
        self._relay.close()
        self._lead.failed()


def counted(record: Record) -> Usage:
    """What a settled record has used."""
    return Usage(record.tokens_in, record.tokens_out, record.tokens_cached, record.tokens_reasoning)
