"""The way of one chat request: a prepared answer, or the route's deployments in order; noted in its record."""

from __future__ import annotations

import random
from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.chat import ChatRequest
from lexora.core.continuation import Continuation
from lexora.core.errors import UpstreamError
from lexora.core.estimates import estimate_prompt
from lexora.core.keys import Caller
from lexora.core.passage import Passage, Traffic, order
from lexora.core.ports import AnswerStore, ChunkStream, Completion, SoFar, Upstream
from lexora.core.record import Record
from lexora.core.routing import Routes
from lexora.core.usage import Usage, estimate_tokens

PREPARED_MODEL = "lexora/fixed"


class Setup(NamedTuple):
    """What a reload replaces, all at once."""

    routes: Routes
    catalogue: Catalogue
    answers: AnswerStore


class Prepared(NamedTuple):
    """A prepared answer. No model ran, so its usage is an estimate of what one would have counted."""

    text: str
    usage: Usage


def _variant(prompt: str, seed: bytes, catalogue: Catalogue) -> tuple[PreparedPrompt, int] | None:
    if (entry := catalogue.match(prompt)) is None:
        return None
    by_seed = seed.isdigit() and len(seed) < 20  # what fits 64 bits; a model gets to judge the rest
    return entry, int(seed) % entry.variants if by_seed else int(random.random() * entry.variants)


def deployment_comment(label: str) -> bytes:
    """The comment in a stream that says which deployment answers from here on."""
    return b": x-lexora-deployment: %b\n\n" % quote(label, safe="/: ").encode()


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


class Gateway:
    """Answers chat requests from the cheapest place that can: first ask `prepared`, then `complete` or `stream`.

    `refresh` is called before routes are looked at, and `renew` before the catalogue is: they may put a newer `setup`
    in place. `renew` is told whether the one that is there has been found wanting, so that it must look now.
    """

    def __init__(
        self,
        setup: Setup,
        upstream: Upstream,
        traffic: Traffic,
        refresh: Callable[[], None] | None = None,
        renew: Callable[[bool], None] | None = None,
    ) -> None:
        self.setup = setup
        self.traffic = traffic
        self._upstream = upstream
        self._refresh = refresh
        self._renew = renew

    def routes(self) -> Routes:
        """The routes as they are now."""
        if self._refresh is not None:
            self._refresh()
        return self.setup.routes

    def catalogue(self) -> Catalogue:
        """The catalogue as it is now."""
        if self._renew is not None:
            self._renew(False)
        return self.setup.catalogue

    async def answer_to(
        self, find: Callable[[Catalogue], tuple[PreparedPrompt, int] | None]
    ) -> tuple[PreparedPrompt, int, str] | None:
        """The variant of a prompt that `find` chooses in the catalogue, and its text. Raises OSError."""
        for must in (False, True):
            if self._renew is not None:
                self._renew(must)
            setup = self.setup
            if (found := find(setup.catalogue)) is None:
                return None
            entry, variant = found
            if (text := await setup.answers.get(entry.prompt, variant)) is not None:
                return entry, variant, text
            if self._renew is None:
                break
            # Other answers have been published since the catalogue was read.
        return None

    async def prepared(self, request: ChatRequest, record: Record) -> Prepared | None:
        """A variant of the prepared answer if the request is a known prompt, asked plainly: its seed's, or any."""
        prompt = request.lone_prompt()
        seed = bytes(request.fields.get("seed", b""))
        found = await self.answer_to(partial(_variant, prompt, seed)) if prompt is not None else None
        if prompt is None or found is None:
            record.prompt = prompt
            return None
        entry, variant, text = found
        usage = Usage(estimate_tokens(prompt), estimate_tokens(text))
        record.model = request.known.model or self.setup.routes.default_model or ""
        record.origin = "fixed"
        record.deployment = f"fixed/{entry.id}/{variant}"
        record.upstream_model = PREPARED_MODEL
        record.tokens_in, record.tokens_out = usage.prompt_tokens, usage.completion_tokens
        record.usage_estimated = True
        return Prepared(text, usage)

    async def complete(
        self,
        request: ChatRequest,
        caller: Caller,
        record: Record,
        expire_in: Callable[[float], None],
        loop: AbstractEventLoop,
    ) -> Completion:
        """A plain answer of one of the model's deployments.

        `expire_in` is told the request's deadline in seconds. Raises Forbidden, InvalidRequest, ModelNotFound,
        NoModelConnected, RateLimited, BudgetExceeded, LimitsUnavailable and UpstreamError.
        """
        passage = Passage(self.traffic, self.routes(), request, caller, record, expire_in, loop)
        completion = await passage.call(self._upstream.complete)
        record.upstream_model = completion.model or record.upstream_model
        record.response_id = completion.id
        passage.settle(completion.usage, 0)
        return completion

    async def stream(
        self,
        request: ChatRequest,
        caller: Caller,
        record: Record,
        expire_in: Callable[[float], None],
        loop: AbstractEventLoop,
    ) -> Relay:
        """The same as a stream, once an upstream has accepted the request."""
        passage = Passage(self.traffic, self.routes(), request, caller, record, expire_in, loop)
        stream = await passage.call(self._upstream.stream)
        return Relay(passage, self._upstream, stream, record)

    async def count_tokens(self, request: ChatRequest, caller: Caller, record: Record) -> tuple[int, bool]:
        """How many tokens the prompt has, and whether that is counted by who would answer first, or estimated.

        It costs nothing, waits in no queue and counts towards no limit. Raises Forbidden, InvalidRequest, ModelNotFound
        and NoModelConnected.
        """
        deployment = order(self.traffic.lanes, self.routes(), request, caller, record)[0]
        if self.traffic.lanes.of(deployment).up is not False:
            try:
                counted = await self._upstream.count_tokens(deployment, request, record)
            except UpstreamError:  # an answer may come all the same: a count is only ever a preview
                counted = None
            if counted is not None:
                return counted, True
        return estimate_prompt(request), False
