"""The exact-match cache: an earlier answer to the same request, and one call for many who ask the same at once."""

from __future__ import annotations

import json
import re
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable, Sequence
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lexora.core.chat import ChatRequest
from lexora.core.complaints import Complaints
from lexora.core.ports import CacheStore, KeptAnswer
from lexora.core.record import Record
from lexora.core.replay import KEPT
from lexora.core.usage import Usage

if TYPE_CHECKING:
    from lexora.core.model_map import Deployment
    from lexora.core.routing import Routes

# Part of every key. To be raised whenever what is kept, or what it is kept by, changes.
_VERSION = 2
# Fields that cannot change what is said: how it is sent, on whose behalf, and what the provider notes beside it.
_NOT_ASKED = {
    *("model", "stream", "stream_options", "user", "metadata"),
    *("safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
}
Landed = KeptAnswer | Literal[False] | None
MOST_BYTES = 4_000_000  # of one answer
# Whoever has waited in vain so often asks for itself.
_MOST_WAITS = 3
# For so long a leader's client may keep the others waiting by not reading.
PATIENCE_SECONDS = 5.0
_max_age = re.compile(rb"max-age\s*=\s*(\d{1,9})")


class CacheRules(NamedTuple):
    """How long an answer is good where nothing else is said, whether it is for its user alone, and whether requests may
    ask for the cache where their model does not.
    """

    ttl_seconds: float = 3600.0
    per_user: bool = True
    by_request: bool = True


class Wish(NamedTuple):
    """What one request wants of the cache. An answer may be `most_age` old, and is kept for `ttl`, in seconds."""

    key: str
    ttl: float
    most_age: float
    reads: bool
    keeps: bool


class Flight:
    """An answer that somebody fetches for all who ask the same.

    It lands with the answer, or None where it is not for others, or False where there is none. `held_since` is when
    the leader's client was given a part of a stream that it has not taken yet, in the loop's time.
    """

    __slots__ = ("_flights", "_key", "_loop", "_timer", "_waiting", "held_since")

    def __init__(self, flights: dict[str, Flight], key: str, loop: AbstractEventLoop) -> None:
        self.held_since: float | None = None
        self._flights = flights
        self._key = key
        self._loop = loop
        self._timer: TimerHandle | None = None
        self._waiting: list[Future[Landed]] = []
        flights[key] = self

    def land(self, answer: Landed) -> None:
        """Any number of times; the first one counts."""
        if self._flights.get(self._key) is self:
            del self._flights[self._key]
            self._tell(answer)
            if self._timer is not None:
                self._timer.cancel()

    async def wait(self) -> Landed:
        """As it lands; None if it is not worth waiting for."""
        turn: Future[Landed] = self._loop.create_future()
        self._waiting.append(turn)
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._look)
        return await turn

    def _look(self) -> None:
        if self.held_since is not None and self._loop.time() - self.held_since >= PATIENCE_SECONDS:
            self._tell(None)
        self._timer = self._loop.call_later(PATIENCE_SECONDS, self._look) if self._waiting else None

    def _tell(self, answer: Landed) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():  # of those who have left it is
                turn.set_result(answer)


class Found(NamedTuple):
    """An answer of the cache; `shared` says that another request has just fetched it."""

    answer: KeptAnswer
    age: float
    shared: bool


class Lead(NamedTuple):
    """The right to ask a model: on behalf of all who wait for `flight`, if there is one. Must be ended."""

    wish: Wish
    flight: Flight | None

    def failed(self) -> None:
        """Whoever waits looks for another way, unless the answer is there."""
        if self.flight is not None:
            self.flight.land(False)


class Cache:
    """Answers requests by answers that were kept. A reload sets `rules`. A store that fails has nothing.

    `now` gives seconds since the epoch. `say` is told, once a minute at most, that the store fails.
    """

    def __init__(
        self,
        store: CacheStore,
        rules: CacheRules,
        now: Callable[[], float],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.rules = rules
        self._store = store
        self._now = now
        self._complain = Complaints(say, now)
        self._flights: dict[str, Flight] = {}

    def wish(self, routes: Routes, request: ChatRequest, record: Record) -> Wish | None:
        """What a request wants of the cache, None for nothing: its own word counts, then its model's rule."""
        asked, rules = request.known.x_cache, self.rules
        name = request.known.model or routes.default_model or ""
        rule = routes.cache_rules.get(name)
        wanted = asked if rules.by_request and asked is not None else rule is not None and asked not in (False, 0)
        if not wanted or request.task not in KEPT:
            return None
        ttl, per_user = rules.ttl_seconds, rules.per_user
        if rule is not None:
            ttl = rule.ttl_seconds or ttl
            per_user = per_user if rule.per_user is None else rule.per_user
        if asked is not None and not isinstance(asked, bool):
            ttl = asked if rule is None else min(asked, ttl)
        control = request.cache_control.lower()
        said = _max_age.search(control)
        most_age = min(ttl, float(said[1]) if said else inf)
        reads, keeps = b"no-cache" not in control and most_age > 0, b"no-store" not in control
        if not (reads or keeps):
            return None
        owner = [record.user_id] if per_user else None
        key = key_of(routes.own_name(name), routes.find(name) or (), request, owner)
        return Wish(key, ttl, most_age, reads, keeps) if key is not None else None

    async def find(self, wish: Wish, loop: AbstractEventLoop) -> Found | Lead:
        """An answer, after a wait for one that is being fetched; or the right to fetch it."""
        if not wish.keeps:  # who leads, leads for all
            kept = await self._get(wish)
            return kept if kept is not None else Lead(wish, None)
        if not wish.reads:
            return Lead(wish, None)
        for _ in range(_MOST_WAITS):
            flight = self._flights.get(wish.key)
            if flight is None:
                return await self._begin(wish, loop)
            landed = await flight.wait()
            if landed is None:
                break
            if landed is not False and (found := self._fresh(wish, landed, shared=True)) is not None:
                return found
        return Lead(wish, None)

    async def _begin(self, wish: Wish, loop: AbstractEventLoop) -> Found | Lead:
        """Looks in the store, for all who ask meanwhile."""
        lead = Lead(wish, Flight(self._flights, wish.key, loop))
        assert lead.flight is not None
        try:
            found = await self._get(wish)
        except BaseException:
            lead.failed()
            raise
        if found is None:
            return lead
        lead.flight.land(found.answer)
        return found

    async def _get(self, wish: Wish) -> Found | None:
        try:
            answer = await self._store.get(wish.key)
        except OSError as error:
            self._complain("the cache cannot be read", error)
            return None
        return None if answer is None else self._fresh(wish, answer, shared=False)

    def _fresh(self, wish: Wish, answer: KeptAnswer, *, shared: bool) -> Found | None:
        now = self._now()
        age = max(0.0, now - answer.created_at)
        return Found(answer, age, shared) if age <= wish.most_age and now < answer.expires_at else None

    async def keep(self, lead: Lead, body: bytes | None, usage: Usage, record: Record) -> None:
        """Ends a lead with the answer that its record tells of, None if it is not one to give to others."""
        answer = None
        if body is not None and lead.wish.keeps:
            now = self._now()
            who = (record.deployment, record.provider, record.upstream_model)
            answer = KeptAnswer(body, usage, record.usage_estimated, *who, now, now + lead.wish.ttl)
        try:
            if answer is not None and len(answer.body) <= MOST_BYTES:
                await self._store.put(lead.wish.key, answer)
        except OSError as error:
            self._complain("the cache cannot be written", error)
        finally:
            if lead.flight is not None:
                lead.flight.land(answer)


def key_of(
    model: str, deployments: Sequence[Deployment], request: ChatRequest, owner: list[str | None] | None
) -> str | None:
    """What an answer is kept by: SHA-256 of all that matters, whatever the order of fields. None if it cannot be told.

    What matters is what is asked of which model, behind which deployments, in whose API's form (the same fields may say
    another thing in another), and for whom if answers are for their users alone.
    """
    form, sent = ("openai", request.fields) if request.anthropic is None else ("anthropic", request.anthropic)
    try:
        asked = {
            name: json.loads(bytes(raw), object_pairs_hook=_object)
            for name, raw in sent.items()
            if name not in _NOT_ASKED and not name.startswith("x_")
        }
        behind = [(each.provider, each.base_url, each.model) for each in deployments]
        whole = [_VERSION, form, request.task.path, model, behind, owner, request.betas.decode("latin-1"), asked]
        return sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    except (ValueError, RecursionError):
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError where a field is given twice: of the two, an upstream may heed either."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def saved(routes: Routes, model: str, usage: Usage) -> float | None:
    """What an answer would have cost at the first of a model's deployments whose price is known; None if none is."""
    for deployment in routes.find(model) or ():
        if (cost := deployment.cost(usage)) is not None:
            return cost
    return None
