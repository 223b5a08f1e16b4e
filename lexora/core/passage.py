"""The calls that one request makes: which deployment comes next, what is reserved for it, what became of it."""

from __future__ import annotations

import random
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.errors import (
    Busy,
    CannotContinue,
    CredentialMissing,
    Forbidden,
    InvalidRequest,
    LexoraError,
    LimitsUnavailable,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from lexora.core.keys import Caller
from lexora.core.lanes import Lane, Lanes
from lexora.core.limits import Estimates, Limiter, cost_bound, nanodollars
from lexora.core.ports import ChunkStream
from lexora.core.queue import Place
from lexora.core.record import Record
from lexora.core.retry import GIVE_UP, Decision, RetryRules, decide
from lexora.core.usage import Usage, estimate_tokens

if TYPE_CHECKING:
    from lexora.core.model_map import Deployment
    from lexora.core.routing import Routes

# What says least about why there is no answer: an error before it says more.
_MOST_REST_SECONDS = 60.0
_BYSTANDERS = (Busy, CannotContinue, CredentialMissing, LimitsUnavailable)

_UNPAID = (UpstreamRefused, UpstreamUnreachable, InvalidRequest)

_Answer = TypeVar("_Answer")


class Traffic(NamedTuple):
    """What all requests share. `now` gives seconds that never go back, `admit` notes a request in the journal."""

    limiter: Limiter
    estimates: Estimates
    lanes: Lanes
    retry: RetryRules
    admit: Callable[[Record], None]
    sleep: Callable[[float], Awaitable[None]]
    now: Callable[[], float]


class Passage:
    """One request on its way through deployments. `settle` ends it.

    `tokens_before` are the tokens that the client has of streams that broke, `continuing` says that calls are to go on
    with them.
    """

    def __init__(
        self,
        traffic: Traffic,
        routes: Routes,
        request: ChatRequest,
        caller: Caller,
        record: Record,
        expire_in: Callable[[float], None],
        loop: AbstractEventLoop,
    ) -> None:
        """Raises Forbidden, RateLimited, and what `Routes.order` raises."""
        known = request.known
        name = record.model = known.model or routes.default_model or ""
        if not caller.may_use(name):
            raise Forbidden(f"This key does not allow the model '{name}'.", param="model")
        deployments = routes.order(known.model, lambda: _share(record.user_id, name))
        if len(deployments) > 1:  # those whose server is known to be down come last
            deployments = sorted(deployments, key=lambda deployment: traffic.lanes.of(deployment).up is False)
        self.request = request
        self.tokens_before = 0
        self.continuing = False
        self.settled = False
        self.deployment = deployments[0]
        self._deployments = deployments
        self._untried = deployments[1:]
        self._traffic = traffic
        self._record = record
        self._expire_in = expire_in
        self._loop = loop
        self._seconds = known.x_timeout or self.deployment.timeouts.total
        self._began = traffic.now()
        self._called_at: float | None = None
        self._sent = 0
        self._lane: Lane | None = None
        self._place: Place | None = None
        self._error: LexoraError | None = None
        self._failed_attempts: list[dict[str, Any]] = []
        label = self.deployment.label
        self._prompt_tokens = traffic.estimates.prompt(label, request)
        self._completion_tokens = traffic.estimates.completion(label, request)
        self._reservation = traffic.limiter.admit(caller, record.user_id, self._prompt_tokens, self._completion_tokens)
        record.response_headers = tuple(self._reservation.headers)

    async def call(self, call: Callable[[Deployment, ChatRequest], Awaitable[_Answer]]) -> _Answer:
        """The first answer that `call` gets from a deployment. Raises what went wrong where nobody is left to ask."""
        while True:
            try:
                await self._enter()
                return await call(self.deployment, self._for(self.deployment))
            except BaseException as error:  # noqa: BLE001 - the client left, its time is up: all of it must be settled
                await self.failed(error)

    async def _enter(self) -> None:
        """Takes what a call needs: a circuit that lets it through, money, a place. Raises LexoraError."""
        deployment, record, traffic = self.deployment, self._record, self._traffic
        record.deployment = deployment.label
        record.provider = deployment.provider
        record.origin = deployment.origin
        record.upstream_model = deployment.model
        self._expire_in(self._seconds)
        lane = traffic.lanes.of(deployment)
        lane.circuit.enter()
        self._lane = lane
        bound = 0
        if not deployment.is_free:
            price = deployment.price
            bound = cost_bound(price, self._prompt_tokens, self._completion_tokens) if price else 0
            self._reservation.pay(bound if price else None)
        self._admit(bound)
        if lane.queue is not None:
            self._place = lane.queue.try_enter()
            if self._place is None:
                place = self._place = await lane.queue.enter(
                    self._loop, record.user_id or "", record.priority or "normal"
                )
                record.queue_ms = (record.queue_ms or 0.0) + place.waited * 1e3
                record.queue_position = place.position
        self._sent += 1
        record.attempts += 1
        record.cost_usd = 0.0 if deployment.is_free else None  # until the answer's tokens are known
        self._called_at = traffic.now()

    def _admit(self, bound: int) -> None:
        """Writes the request down: should the process be killed, it has used what is reserved for it."""
        record = self._record
        record.tokens_in, record.tokens_out = self._prompt_tokens, self._completion_tokens
        record.cost_usd = bound / 1e9
        try:
            self._traffic.admit(record)
        except OSError:
            rules = self._traffic.limiter.rules
            if not (rules.own_open if self.deployment.is_free else rules.paid_open):
                raise LimitsUnavailable("The gateway cannot keep its books at the moment. Try again soon.") from None
        finally:
            record.tokens_in = record.tokens_out = 0
            record.cost_usd = 0.0

    async def failed(self, error: BaseException, *, stream: ChunkStream | None = None, final: bool = False) -> None:
        """Prepares the next call after one has failed, or raises what the client is told; always if it is `final`.

        `stream` is what broke.
        """
        usage, tokens_seen = (stream.usage, stream.tokens_seen) if stream is not None else (None, 0)
        if not isinstance(error, LexoraError):
            self.settle(usage, tokens_seen, failed=True)
            raise error
        decision = GIVE_UP if final else self._decide(error)
        lane, self._lane = self._lane, None
        if lane is not None:
            _tell(lane, error, decision)
        bystander = isinstance(error, _BYSTANDERS) or (self.continuing and isinstance(error, UpstreamRefused))
        if self._error is None or not bystander:
            self._error = error
        if decision.action == "give_up":
            if self.tokens_before + tokens_seen or (self._called_at is not None and not isinstance(error, _UNPAID)):
                self.settle(usage, tokens_seen, failed=True)
            else:
                self._release()
            raise self._error
        self._note_failed(error, tokens_seen)
        self.tokens_before += tokens_seen
        self._leave()
        self._reservation.refund()
        if decision.action == "again":
            try:
                await self._traffic.sleep(decision.delay)
            except BaseException:
                self._release()
                raise
            self._untried = list(self._deployments)
        larger = self._larger() if decision.action == "larger" else None
        self.deployment = larger or self._untried[0]
        self._untried.remove(self.deployment)

    def _release(self) -> None:
        self.settled = True
        self._leave()
        self._reservation.release()

    def _decide(self, error: LexoraError) -> Decision:
        return decide(
            error,
            self._traffic.retry,
            sent=self._sent,
            more=bool(self._untried),
            larger=self._larger() is not None,
            seconds_left=self._began + self._seconds - self._traffic.now(),
            continuing=self.continuing,
        )

    def _for(self, deployment: Deployment) -> ChatRequest:
        """The request as the deployment gets it: a server that orders what it is sent is told the priority."""
        if not deployment.priority_scheduling or self._lane is None or self._lane.queue is None:
            return self.request
        return self.request.adding("priority", getattr(self._lane.queue.rules, self._record.priority or "normal"))

    def _larger(self) -> Deployment | None:
        window = self.deployment.context_window or 0
        return next((other for other in self._untried if (other.context_window or 0) > window), None)

    def _note_failed(self, error: LexoraError, tokens: int) -> None:
        if self._called_at is None and not isinstance(error, UpstreamError):
            return
        elapsed = 0.0 if self._called_at is None else (self._traffic.now() - self._called_at) * 1e3
        note = {"deployment": self.deployment.label, "error": error.code, "ms": round(elapsed, 1), "tokens": tokens}
        self._failed_attempts.append(note)
        self._record.failed_attempts = msgspec.json.encode(self._failed_attempts).decode()

    def _leave(self) -> None:
        """Makes room for the next one, and notes how long the call has taken."""
        place, self._place = self._place, None
        if place is not None:
            place.release()
        if self._called_at is not None:
            record = self._record
            record.upstream_ms = (record.upstream_ms or 0.0) + (self._traffic.now() - self._called_at) * 1e3
            self._called_at = None

    def settle(self, usage: Usage | None, tokens_seen: int, *, failed: bool = False) -> None:
        """Notes what was used and what it cost; where the upstream did not count, what the gateway saw of it."""
        self.settled = True
        record, deployment = self._record, self.deployment
        lane, self._lane = self._lane, None
        if lane is not None:
            if failed:
                lane.circuit.left()
            else:
                lane.circuit.succeeded()
        self._leave()
        if usage is None:
            record.usage_estimated = True
            usage = Usage(sum(map(estimate_tokens, self.request.texts())), tokens_seen)
        else:
            self._traffic.estimates.learn(deployment.label, self.request, usage)
        record.tokens_in = usage.prompt_tokens
        record.tokens_out = self.tokens_before + usage.completion_tokens
        record.tokens_cached = usage.cached_tokens
        record.tokens_reasoning = usage.reasoning_tokens
        record.cost_usd = deployment.cost(usage)
        self._reservation.settle(record.tokens_in + record.tokens_out, nanodollars(record.cost_usd or 0.0))


def _tell(lane: Lane, error: LexoraError, decision: Decision) -> None:
    """What a failure says about its deployment."""
    if decision.at_fault:
        lane.circuit.failed()
    else:
        lane.circuit.left()
    if isinstance(error, UpstreamError) and error.retry_after and decision.action == "next":
        lane.circuit.rest(min(error.retry_after, _MOST_REST_SECONDS))


def _share(user_id: str | None, model: str) -> float:
    """Where in [0, 1) a user stands among the weights of a model's deployments: always at the same point."""
    return random.random() if user_id is None else random.Random(f"{user_id}\n{model}").random()
