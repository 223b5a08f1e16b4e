"""The calls that one request makes: which deployment comes next, what is reserved for it, what became of it."""

from __future__ import annotations

import random
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.errors import (
    BudgetExceeded,
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
from lexora.core.limits import Estimates, Limiter, Reservation, cost_bound, nanodollars
from lexora.core.ports import ChunkStream
from lexora.core.queue import Place, Queue, QueueRules
from lexora.core.record import Record
from lexora.core.retry import GIVE_UP, Decision, RetryRules, decide
from lexora.core.usage import Usage, estimate_tokens

if TYPE_CHECKING:
    from lexora.core.model_map import Deployment
    from lexora.core.routing import Routes

_MOST_REST_SECONDS = 60.0
# What says least about why there is no answer: an error before it says more.
_BYSTANDERS = (Busy, BudgetExceeded, CannotContinue, CredentialMissing, InvalidRequest, LimitsUnavailable)

_UNPAID = (UpstreamRefused, UpstreamUnreachable, InvalidRequest)

_Answer = TypeVar("_Answer")


class Traffic(msgspec.Struct, frozen=True):
    """What all requests share. `now` gives seconds that never go back, `admit` notes a request in the journal."""

    limiter: Limiter
    estimates: Estimates
    lanes: Lanes
    retry: RetryRules
    admit: Callable[[Record], None]
    sleep: Callable[[float], Awaitable[None]]
    now: Callable[[], float]


def order(lanes: Lanes, routes: Routes, request: ChatRequest, caller: Caller, record: Record) -> list[Deployment]:
    """The deployments to try, best first. Raises Forbidden, and what `Routes.order` raises."""
    model = request.known.model
    name = record.model = model or routes.default_model or ""
    if caller.models is not None and not caller.may_use(name):
        raise Forbidden(f"This key does not allow the model '{name}'.", param="model")
    deployments = routes.order(model, lambda: _share(record.user_id, name))
    if len(deployments) > 1:  # those whose server is known to be down, or sleeps, come last
        return sorted(deployments, key=lambda each: lanes.of(each).up is False or lanes.of(each).asleep)
    return deployments


class Passage:
    """One request on its way through deployments. `settle` ends it.

    `tokens_before` are the tokens that the client has of streams that broke, `continuing` says that calls are to go on
    with them.
    """

    __slots__ = (
        "_began", "_bounds", "_called_at", "_deployments", "_error", "_expire_in", "_failed_attempts", "_free", "_lane",
        "_loop", "_place", "_probe", "_record", "_reservation", "_seconds", "_sent", "_spent", "_traffic", "_untried",
        "continuing", "deployment", "request", "settled", "tokens_before",
    )  # fmt: skip

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
        deployments = order(traffic.lanes, routes, request, caller, record)
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
        self._seconds = request.known.x_timeout or 0.0  # 0: as long as the first deployment may take
        self._began = traffic.now()
        self._called_at: float | None = None
        self._sent = 0
        self._lane: Lane | None = None
        self._free = False  # whether the deployment that was entered costs nothing
        self._probe = 0
        self._place: Place | None = None
        self._error: LexoraError | None = None
        self._failed_attempts: tuple[dict[str, Any], ...] = ()
        self._spent = 0  # nanodollars, for what the client has of streams that broke
        self._bounds: dict[str, tuple[int, int]]  # the most tokens of the prompt and of the answer, if reserved
        self._reservation: Reservation | None = None
        if traffic.limiter.concerns(caller, record.user_id):
            lane = traffic.lanes.of(self.deployment)
            bounds = most = traffic.estimates.bounds(lane.label, request, lane.provider)
            self._bounds = {lane.label: bounds}
            for other in map(traffic.lanes.of, self._untried):
                bounds = self._bounds[other.label] = traffic.estimates.bounds(other.label, request, other.provider)
                most = max(most, bounds, key=sum)
            # Whichever of them will answer, it is reserved for.
            self._reservation = traffic.limiter.admit(caller, record.user_id, *most)
            record.response_headers = self._reservation.headers

    async def call(self, call: Callable[[Deployment, ChatRequest, Record], Awaitable[_Answer]]) -> _Answer:
        """The first answer that `call` gets from a deployment. Raises what went wrong where nobody is left to ask."""
        while True:
            try:
                lane = self._enter()
                orders = lane.orders  # by the time that a place is free, it may serve another
                if self._place is None and lane.queue is not None:
                    await self._wait(lane.queue)
                self._sent += 1
                self._record.attempts += 1
                self._called_at = self._traffic.now()
                request = self._prioritised() if orders else self.request
                return await call(self.deployment, request, self._record)
            except BaseException as error:  # noqa: BLE001 - the client left, its time is up: all of it must be settled
                await self.failed(error)

    def _enter(self) -> Lane:
        """Takes what a call needs: a circuit that lets it through, money, a free place. Raises LexoraError."""
        record = self._record
        lane = self._traffic.lanes.of(self.deployment)
        record.deployment = lane.label
        record.provider = lane.provider
        record.origin = lane.origin
        record.upstream_model = lane.model
        if not self._seconds:
            self._seconds = lane.seconds
        self._expire_in(self._seconds)
        if lane.asleep:  # what is sent to it hangs until it is woken, and breaks older servers
            raise Busy("The model's server sleeps. An admin can wake it.", code="model_asleep")
        self._probe = lane.circuit.enter()
        self._lane = lane
        self._free = lane.is_free
        bound = 0
        tokens = self._most_tokens(lane.label)
        if self._reservation is not None and not self._free:
            price = self.deployment.price
            bound = cost_bound(price, *tokens) if price else 0
            self._reservation.pay(bound if price else None)
        self._admit(tokens, bound)
        record.cost_usd = 0.0 if self._free else None  # until the answer's tokens are known
        if lane.queue is not None:
            self._place = lane.queue.try_enter()
        return lane

    async def _wait(self, queue: Queue) -> None:
        """Waits for a place. Raises Busy."""
        record = self._record
        place = self._place = await queue.enter(
            self._loop, record.user_id or "", record.priority or "normal", self.request.known.x_timeout
        )
        record.queue_ms = (record.queue_ms or 0.0) + place.waited * 1e3
        record.queue_position = place.position

    def _most_tokens(self, label: str) -> tuple[int, int]:
        """Of the prompt and of the answer; of one that came in place of others, nothing is known."""
        return (0, 0) if self._reservation is None else self._bounds.get(label, (0, 0))

    def _admit(self, tokens: tuple[int, int], bound: int) -> None:
        """Writes the request down: should the process be killed, it has used what is reserved for it."""
        record = self._record
        if self._reservation is not None:
            record.tokens_in, record.tokens_out = tokens
        record.cost_usd = bound / 1e9
        try:
            self._traffic.admit(record)
        except OSError:
            rules = self._traffic.limiter.rules
            if not (rules.own_open if self.deployment.is_free else rules.paid_open):
                raise LimitsUnavailable("The gateway cannot keep its books at the moment. Try again soon.") from None
        finally:
            if self._reservation is not None:
                record.tokens_in = record.tokens_out = 0
            record.cost_usd = 0.0

    async def failed(self, error: BaseException, *, stream: ChunkStream | None = None, final: bool = False) -> None:
        """Prepares the next call after one has failed, or raises what the client is told; always if it is `final`.

        `stream` is what broke.
        """
        usage, tokens_seen = (stream.usage, stream.tokens_seen) if stream is not None else (None, 0)
        if not isinstance(error, LexoraError):
            if not self.request.stream and not self.deployment.is_free:
                # How far it got nobody can say, and its provider may bill all that is reserved for it.
                tokens_seen = self._most_tokens(self.deployment.label)[1]
            self.settle(usage, tokens_seen, failed=True)
            raise error
        decision = self._decide(error)
        if final:
            decision = decision._replace(action="give_up")
        lane, self._lane = self._lane, None
        if lane is not None:
            _tell(lane, self._probe, error, decision)
        bystander = isinstance(error, _BYSTANDERS) or (self.continuing and isinstance(error, UpstreamRefused))
        if self._error is None or not bystander:
            self._error = error
        if decision.action == "give_up":
            if isinstance(error, _UNPAID):
                self._leave()
            if self.tokens_before + tokens_seen or self._called_at is not None:
                self.settle(usage, tokens_seen, failed=True)
            else:
                self._release()
            raise self._error
        self._note_failed(error, tokens_seen)
        self.tokens_before += tokens_seen
        self._leave()
        spent = 0
        if tokens_seen:  # its provider bills for what the client has
            cost = self.deployment.cost(self._counted(usage, tokens_seen))
            spent = nanodollars(cost or 0.0)
            self._spent += spent
        if self._reservation is not None:
            self._reservation.refund(spent)
        if decision.action == "again":
            try:
                await self._traffic.sleep(decision.delay)
            except BaseException:
                if self.tokens_before:
                    self.settle(None, 0, failed=True)
                else:
                    self._release()
                raise
            self._untried = list(self._deployments)
        larger = self._larger() if decision.action == "larger" else None
        self.deployment = larger or self._untried[0]
        self._untried.remove(self.deployment)

    def _release(self) -> None:
        self.settled = True
        self._leave()
        if self._reservation is not None:
            self._reservation.release(1 if self._sent else 0)  # one that an upstream refused is a request as well

    def _decide(self, error: LexoraError) -> Decision:
        if self._error is not None and isinstance(error, InvalidRequest):  # the next one cannot do what is asked
            return Decision("next") if self._untried else GIVE_UP
        return decide(
            error,
            self._traffic.retry,
            sent=self._sent,
            more=bool(self._untried),
            larger=self._larger() is not None,
            seconds_left=self._began + self._seconds - self._traffic.now(),
            continuing=self.continuing,
        )

    def _prioritised(self) -> ChatRequest:
        """The request for a server that orders what it is sent: it is told the priority."""
        queue = self._lane.queue if self._lane is not None else None
        rules = QueueRules() if queue is None else queue.rules
        return self.request.setting("priority", getattr(rules, self._record.priority or "normal"))

    def _counted(self, usage: Usage | None, tokens_seen: int) -> Usage:
        """What the upstream counted of an answer that was cut off, which is not all of it, if any."""
        if usage is not None and usage.completion_tokens >= tokens_seen:
            return usage
        self._record.usage_estimated = True
        if usage is not None:
            return msgspec.structs.replace(usage, completion_tokens=tokens_seen)
        return Usage(self.request.token_ids + sum(map(estimate_tokens, self.request.texts())), tokens_seen)

    def _larger(self) -> Deployment | None:
        window = self.deployment.context_window or 0
        return next((other for other in self._untried if (other.context_window or 0) > window), None)

    def _note_failed(self, error: LexoraError, tokens: int) -> None:
        if self._called_at is None and not isinstance(error, UpstreamError):
            return
        elapsed = 0.0 if self._called_at is None else (self._traffic.now() - self._called_at) * 1e3
        note = {"deployment": self.deployment.label, "error": error.code, "ms": round(elapsed, 1), "tokens": tokens}
        self._failed_attempts += (note,)
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
        """Notes what was used and what it cost; where the upstream did not count, what the gateway saw of it.

        Of an answer that was cut off (`failed`) it has not counted all, if any.
        """
        self.settled = True
        record, deployment = self._record, self.deployment
        billed = self._called_at is not None
        lane, self._lane = self._lane, None
        if lane is not None:
            if failed:
                lane.circuit.left(self._probe)
            else:
                lane.circuit.succeeded()
        self._leave()
        if usage is None or failed:
            usage = self._counted(usage, tokens_seen)
        elif self._reservation is not None:
            self._traffic.estimates.learn(record.deployment, self.request, usage)
        record.tokens_in = usage.prompt_tokens
        record.tokens_out = self.tokens_before + usage.completion_tokens
        if usage.cached_tokens or usage.reasoning_tokens:
            record.tokens_cached = usage.cached_tokens
            record.tokens_reasoning = usage.reasoning_tokens
        cost = deployment.cost(usage) if billed and not self._free else 0.0
        record.cost_usd = cost if cost is None or not self._spent else cost + self._spent / 1e9
        if self._reservation is not None:
            self._reservation.settle(record.tokens_in + record.tokens_out, nanodollars(cost) if cost else 0)


def _tell(lane: Lane, probe: int, error: LexoraError, decision: Decision) -> None:
    """What a failure says about its deployment."""
    if decision.at_fault:
        lane.circuit.failed(probe)
    else:
        lane.circuit.left(probe)
    if isinstance(error, UpstreamError) and error.retry_after and decision.action == "next":
        lane.circuit.rest(min(error.retry_after, _MOST_REST_SECONDS))


def _share(user_id: str | None, model: str) -> float:
    """Where in [0, 1) a user stands among the weights of a model's deployments: always at the same point."""
    return random.random() if user_id is None else random.Random(f"{user_id}\n{model}").random()
