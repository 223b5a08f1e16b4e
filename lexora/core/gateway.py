"""The way of one chat request: a prepared or kept answer, or the route's deployments in order; noted in its record."""

from __future__ import annotations

import random
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.cache import Cache, Found, Lead, saved
from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamError
from lexora.core.estimates import estimate_prompt
from lexora.core.keys import Caller
from lexora.core.passage import Passage, Traffic, order
from lexora.core.ports import AnswerStore, Completion, Upstream
from lexora.core.record import Record
from lexora.core.relay import AnswerStream, Given, GivenStream, KeptRelay, Relay, counted
from lexora.core.replay import as_frames, as_plain, kept_of_plain
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


_MISS = ((b"x-lexora-cache", b"miss"),)
_SHARED = ((b"x-lexora-cache", b"shared"), (b"age", b"0"))


def _variant(prompt: str, seed: bytes, catalogue: Catalogue) -> tuple[PreparedPrompt, int] | None:
    if (entry := catalogue.match(prompt)) is None:
        return None
    by_seed = seed.isdigit() and len(seed) < 20  # what fits 64 bits; a model gets to judge the rest
    return entry, int(seed) % entry.variants if by_seed else int(random.random() * entry.variants)


class Gateway:
    """Answers chat requests from the cheapest place that can: first ask `prepared`, then `complete` or `stream`.

    `refresh` is called before routes are looked at, and `renew` before the catalogue is: they may put a newer `setup`
    in place. `renew` is told whether the one that is there has been found wanting, so that it must look now. `cache`
    keeps answers for those who want that.
    """

    def __init__(
        self,
        setup: Setup,
        upstream: Upstream,
        traffic: Traffic,
        refresh: Callable[[], None] | None = None,
        renew: Callable[[bool], None] | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.setup = setup
        self.traffic = traffic
        self.cache = cache
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

    def known_prompt(self, request: ChatRequest, record: Record) -> str | None:
        """The prompt if there may be a prepared answer to it, which `prepared` tells."""
        prompt = request.lone_prompt()
        if prompt is not None and self._renew is None and self.setup.catalogue.match(prompt) is None:
            record.prompt = prompt
            return None
        return prompt

    async def prepared(self, prompt: str, request: ChatRequest, record: Record) -> Prepared | None:
        """A variant of the prepared answer to a prompt that was asked plainly: its seed's, or any."""
        seed = bytes(request.fields.get("seed", b""))
        found = await self.answer_to(partial(_variant, prompt, seed))
        if found is None:
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
        record.saved_usd = saved(self.setup.routes, record.model, usage)
        return Prepared(text, usage)

    def saved(self, prompt: str, text: str) -> float | None:
        """What the default model would have taken for an answer, by a rough count; None if that is not known."""
        routes = self.setup.routes
        return saved(routes, routes.default_model or "", Usage(estimate_tokens(prompt), estimate_tokens(text)))

    def complete(
        self,
        request: ChatRequest,
        caller: Caller,
        record: Record,
        expire_in: Callable[[float], None],
        loop: AbstractEventLoop,
    ) -> Awaitable[Completion]:
        """A plain answer of one of the model's deployments.

        `expire_in` is told the request's deadline in seconds. Raises Forbidden, InvalidRequest, ModelNotFound,
        NoModelConnected, RateLimited, BudgetExceeded, LimitsUnavailable and UpstreamError.
        """
        routes, cache = self.routes(), self.cache
        if cache is not None and (request.known.x_cache or routes.cache_rules):
            return self._complete_from_cache(cache, routes, request, caller, record, expire_in, loop)
        return self._complete(routes, request, caller, record, expire_in, loop)

    async def _complete_from_cache(
        self,
        cache: Cache,
        routes: Routes,
        request: ChatRequest,
        caller: Caller,
        record: Record,
        expire_in: Callable[[float], None],
        loop: AbstractEventLoop,
    ) -> Completion:
        lead = await self._look_up(cache, routes, request, caller, record, expire_in, loop)
        if isinstance(lead, Found):
            body = as_plain(request, lead.answer.body, record.request_id)
            return Given(body, record.response_id, record.upstream_model, lead.answer.usage)
        if lead is None:
            return await self._complete(routes, request, caller, record, expire_in, loop)
        try:
            completion = await self._complete(routes, request, caller, record, expire_in, loop)
            record.response_headers += _MISS
            kept = kept_of_plain(request, completion.body)
            await cache.keep(lead, kept, completion.usage or counted(record), record)
        finally:
            lead.failed()
        return completion

    async def _complete(
        self,
        routes: Routes,
        request: ChatRequest,
        caller: Caller,
        record: Record,
        expire_in: Callable[[float], None],
        loop: AbstractEventLoop,
    ) -> Completion:
        passage = Passage(self.traffic, routes, request, caller, record, expire_in, loop)
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
    ) -> AnswerStream:
        """The same as a stream, once an upstream has accepted the request."""
        routes, cache, lead = self.routes(), self.cache, None
        if cache is not None and (request.known.x_cache or routes.cache_rules):
            found = await self._look_up(cache, routes, request, caller, record, expire_in, loop)
            if isinstance(found, Found):
                frames = as_frames(request, found.answer.body, record.request_id)
                return GivenStream(frames, record.tokens_out)
            lead = found
        try:
            passage = Passage(self.traffic, routes, request, caller, record, expire_in, loop)
            stream = await passage.call(self._upstream.stream)
        except BaseException:
            if lead is not None:
                lead.failed()
            raise
        relay = Relay(passage, self._upstream, stream, record)
        if lead is None or cache is None:
            return relay
        record.response_headers += _MISS
        return KeptRelay(relay, request, record, cache, lead, loop)

    async def _look_up(
        self,
        cache: Cache,
        routes: Routes,
        request: ChatRequest,
        caller: Caller,
        record: Record,
        expire_in: Callable[[float], None],
        loop: AbstractEventLoop,
    ) -> Found | Lead | None:
        """An answer of the cache, noted in the record, or the right to fetch it; None if the request wants neither.

        Raises Forbidden, and what `Routes.order` raises: who may not ask the model gets no answer of it.
        """
        wish = cache.wish(routes, request, record)
        if wish is None:
            return None
        deployment = order(self.traffic.lanes, routes, request, caller, record)[0]
        expire_in(request.known.x_timeout or deployment.timeouts.total)
        found = await cache.find(wish, loop)
        if isinstance(found, Found):
            answer, usage = found.answer, found.answer.usage
            record.origin = "cache"
            record.deployment = f"cache/{answer.deployment}"
            record.provider = answer.provider
            record.upstream_model = answer.model
            record.tokens_in, record.tokens_out = usage.prompt_tokens, usage.completion_tokens
            record.tokens_cached, record.tokens_reasoning = usage.cached_tokens, usage.reasoning_tokens
            record.usage_estimated = answer.usage_estimated
            record.saved_usd = saved(routes, record.model, usage)
            record.response_headers = (
                _SHARED if found.shared else ((b"x-lexora-cache", b"hit"), (b"age", b"%d" % found.age))
            )
        return found

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
