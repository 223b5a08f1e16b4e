"""The way of one chat request: a prepared answer, or the route's deployments in order; noted in its record."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lexora.core.answers import Catalogue
from lexora.core.chat import ChatRequest
from lexora.core.errors import InvalidRequest, UpstreamRefused, UpstreamUnreachable
from lexora.core.ports import AnswerStore, ChunkStream, Completion, Upstream
from lexora.core.record import Record
from lexora.core.routing import Routes
from lexora.core.usage import Usage, estimate_tokens

if TYPE_CHECKING:
    from lexora.core.model_map import Deployment

PREPARED_MODEL = "lexora/fixed"

_Answer = TypeVar("_Answer")


class Setup(NamedTuple):
    """What a reload replaces, all at once."""

    routes: Routes
    catalogue: Catalogue
    answers: AnswerStore


class Prepared(NamedTuple):
    """A prepared answer. No model ran, so its usage is an estimate of what one would have counted."""

    text: str
    usage: Usage


class Relay:
    """A streamed answer on its way through. `read` is the stream's own; `close` settles the record."""

    def __init__(self, stream: ChunkStream, deployment: Deployment, request: ChatRequest, record: Record) -> None:
        self.read = stream.read
        self._stream = stream
        self._deployment = deployment
        self._request = request
        self._record = record

    @property
    def tokens_seen(self) -> int:
        return self._stream.tokens_seen

    @property
    def ended(self) -> bool:
        return self._stream.ended

    def close(self) -> None:
        """Frees the upstream and settles the record with what was used so far."""
        stream, record = self._stream, self._record
        stream.close()
        record.upstream_model = stream.model or self._deployment.model
        record.malformed_events = stream.malformed
        _settle(record, self._deployment, self._request, stream.usage, stream.tokens_seen)


class Gateway:
    """Answers chat requests from the cheapest place that can: first ask `prepared`, then `complete` or `stream`.

    `refresh` is called before routes are looked at: it may put a newer `setup` in place.
    """

    def __init__(self, setup: Setup, upstream: Upstream, refresh: Callable[[], None] | None = None) -> None:
        self.setup = setup
        self._upstream = upstream
        self._refresh = refresh

    def routes(self) -> Routes:
        """The routes as they are now."""
        if self._refresh is not None:
            self._refresh()
        return self.setup.routes

    async def prepared(self, request: ChatRequest, record: Record) -> Prepared | None:
        """A variant of the prepared answer, by chance, if the request is a known prompt, asked plainly."""
        prompt = request.lone_prompt()
        setup = self.setup
        entry = setup.catalogue.match(prompt) if prompt is not None else None
        if prompt is None or entry is None:
            return None
        variant = int(random.random() * entry.variants)
        text = await setup.answers.get(entry.prompt, variant)
        if text is None:
            return None
        usage = Usage(estimate_tokens(prompt), estimate_tokens(text))
        record.model = request.known.model or setup.routes.default_model or ""
        record.origin = "fixed"
        record.deployment = f"fixed/{entry.id}/{variant}"
        record.upstream_model = PREPARED_MODEL
        record.tokens_in, record.tokens_out = usage.prompt_tokens, usage.completion_tokens
        record.usage_estimated = True
        return Prepared(text, usage)

    async def complete(self, request: ChatRequest, record: Record, expire_in: Callable[[float], None]) -> Completion:
        """A plain answer of one of the model's deployments.

        A deployment that cannot be reached is passed over for the next: nothing was sent to it. `expire_in` is told
        the request's deadline in seconds. Raises InvalidRequest, ModelNotFound, NoModelConnected and UpstreamError.
        """
        deployment, completion = await self._first_reachable(self._upstream.complete, request, record, expire_in)
        record.upstream_model = completion.model or deployment.model
        _settle(record, deployment, request, completion.usage, 0)
        return completion

    async def stream(self, request: ChatRequest, record: Record, expire_in: Callable[[float], None]) -> Relay:
        """The same as a stream, once an upstream has accepted the request."""
        deployment, stream = await self._first_reachable(self._upstream.stream, request, record, expire_in)
        return Relay(stream, deployment, request, record)

    async def _first_reachable(
        self,
        call: Callable[[Deployment, ChatRequest, str], Awaitable[_Answer]],
        request: ChatRequest,
        record: Record,
        expire_in: Callable[[float], None],
    ) -> tuple[Deployment, _Answer]:
        routes = self.routes()
        known = request.known
        record.model = known.model or routes.default_model or ""
        deployments = routes.order(known.model)
        for left, deployment in enumerate(deployments, 1 - len(deployments)):
            record.deployment = deployment.label
            record.provider = deployment.provider
            record.origin = deployment.origin
            record.upstream_model = deployment.model
            record.attempts += 1
            record.cost_usd = 0.0 if deployment.is_free else None  # until the answer's tokens are known
            expire_in(known.x_timeout or deployment.timeouts.total)
            try:
                return deployment, await call(deployment, request, record.request_id)
            except UpstreamUnreachable:
                if left == 0:
                    raise
            except (UpstreamRefused, InvalidRequest):
                raise
            except BaseException:
                # It was sent, and is paid for as far as anybody can tell: the client left, time ran out, it broke.
                _settle(record, deployment, request, None, 0)
                raise
        raise AssertionError("a route has at least one deployment")


def _settle(
    record: Record, deployment: Deployment, request: ChatRequest, usage: Usage | None, tokens_seen: int
) -> None:
    """Notes what was used and what it cost; where the upstream did not count, what the gateway saw of it."""
    if usage is None:
        record.usage_estimated = True
        usage = Usage(sum(map(estimate_tokens, request.texts())), tokens_seen)
    record.tokens_in = usage.prompt_tokens
    record.tokens_out = usage.completion_tokens
    record.tokens_cached = usage.cached_tokens
    record.tokens_reasoning = usage.reasoning_tokens
    record.cost_usd = deployment.cost(usage)
