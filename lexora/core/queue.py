"""The queue in front of one deployment: who goes next when all places are taken."""

from asyncio import AbstractEventLoop
from collections import OrderedDict, deque
from collections.abc import Callable
from math import ceil, inf
from typing import NamedTuple

from lexora.core.errors import Busy
from lexora.core.record import Priority

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
# A class that has been passed over this often goes next, whatever its priority: under a flood that lasts, ageing alone
# lets the lower ones wait for longer than anybody may.
TURNS_PASSED_OVER = 20
_RECENT = 32
_MOST_RETRY_SECONDS = 60


class QueueRules(NamedTuple):
    """At most `max_size` wait, each for at most `timeout` seconds unless it says otherwise.

    `high`, `normal` and `low` are the classes' numbers: the lower goes first, and whoever waits gains one point every
    `ageing_seconds`.
    """

    max_size: int = 100
    timeout: float = 60.0
    high: int = 1
    normal: int = 5
    low: int = 10
    ageing_seconds: float = 5.0


class Place:
    """The right to send one request. `waited` is in seconds, `position` was the turn in line, 0 for no wait."""

    __slots__ = ("_queue", "position", "waited")

    def __init__(self, queue: "Queue", waited: float = 0.0, position: int = 0) -> None:
        self._queue: Queue | None = queue
        self.waited = waited
        self.position = position

    def release(self) -> None:
        """Hands the place on. Any number of times."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue._leave()  # noqa: SLF001 - a place is part of its queue


class _Waiter:
    """`turn` is done when the waiter is called: True for a place, False when its time is up."""

    __slots__ = ("arrived", "turn", "user")

    def __init__(self, user: str, arrived: float, loop: AbstractEventLoop) -> None:
        self.user = user
        self.arrived = arrived
        self.turn = loop.create_future()


class _Line:
    """The waiters of one priority: first come, first served for each user, and users take turns."""

    def __init__(self) -> None:
        self.passed_over = 0
        self._by_arrival: OrderedDict[_Waiter, None] = OrderedDict()
        self._by_user: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_arrival)

    @property
    def oldest(self) -> _Waiter:
        return next(iter(self._by_arrival))

    def add(self, waiter: _Waiter) -> None:
        if not self._by_arrival:
            self.passed_over = 0
        self._by_arrival[waiter] = None
        self._by_user.setdefault(waiter.user, OrderedDict())[waiter] = None

    def remove(self, waiter: _Waiter) -> bool:
        """False if it is there no more."""
        if waiter not in self._by_arrival:
            return False
        del self._by_arrival[waiter]
        own = self._by_user[waiter.user]
        del own[waiter]
        if not own:
            del self._by_user[waiter.user]
        return True

    def pop(self) -> _Waiter:
        """The first waiter of the user whose turn it is; that user's next turn comes after all others'."""
        user, own = next(iter(self._by_user.items()))
        waiter = next(iter(own))
        self.remove(waiter)
        if own:
            self._by_user.move_to_end(user)
        return waiter

    def turns_before(self, user: str) -> int:
        """How many of this line go before another request of `user`, at most."""
        own = self._by_user.get(user)
        users = len(self._by_user) + (own is None)
        return min(len(self), (len(own or ()) + 1) * users - 1)


class Queue:
    """The places at one deployment, and who waits for one. Belongs to one event loop.

    `concurrency` is the number of places, None for no bound. It and `rules` may be set at any time; nobody who has a
    place loses it.
    """

    def __init__(self, rules: QueueRules, now: Callable[[], float], concurrency: int | None) -> None:
        self.rules = rules
        self.running = 0
        self.waiting = 0
        self._now = now
        self._places: float = inf if concurrency is None else concurrency
        self._lines = {priority: _Line() for priority in PRIORITIES}
        # When the line last began to form, or, of so many places handed on since, when the first was; then the others.
        self._moved: deque[float] = deque(maxlen=_RECENT)

    @property
    def concurrency(self) -> int | None:
        return None if self._places == inf else int(self._places)

    @concurrency.setter
    def concurrency(self, concurrency: int | None) -> None:
        self._places = inf if concurrency is None else concurrency
        self._hand_on()

    def try_enter(self) -> Place | None:
        """A place if there is one without waiting. Nobody is passed by: while somebody waits, all are taken."""
        if self.running >= self._places:
            return None
        self.running += 1
        return Place(self)

    async def enter(
        self, loop: AbstractEventLoop, user: str, priority: Priority, seconds: float | None = None
    ) -> Place:
        """A place, as soon as there is one; waits for at most `seconds`, or the rules' timeout if None.

        Raises Busy: `queue_full`, or `queue_timeout` after waiting in vain.
        """
        if place := self.try_enter():
            return place
        rules = self.rules
        seconds = seconds or rules.timeout
        line = self._lines[priority]
        position = self._position(user, priority)
        if self.waiting >= rules.max_size:
            raise self._busy("queue_full", f"{self.waiting} requests wait for this model, and no more may.", position)
        waiter = _Waiter(user, self._now(), loop)
        if not self.waiting:
            self._moved.clear()
            self._moved.append(waiter.arrived)
        line.add(waiter)
        self.waiting += 1
        timer = loop.call_later(seconds, self._time_out, line, waiter)
        try:
            called = await waiter.turn
        except BaseException:  # cancelled: the client has left, or its deadline is over
            turn = waiter.turn
            if turn.done() and not turn.cancelled() and turn.result():
                self._leave()  # it was called in the same turn of the loop, and the next one has the place
            else:
                self._remove(line, waiter)
            raise
        finally:
            timer.cancel()
        if not called:
            problem = f"No place at this model became free within {seconds:g} s."
            raise self._busy("queue_timeout", problem, self._position(user, priority))
        return Place(self, self._now() - waiter.arrived, position)

    def waiting_by_priority(self) -> dict[Priority, int]:
        return {priority: len(line) for priority, line in self._lines.items()}

    def oldest_wait(self) -> float:
        """For how many seconds the one that came first has waited; 0 if nobody waits."""
        arrived = [line.oldest.arrived for line in self._lines.values() if line]
        return self._now() - min(arrived) if arrived else 0.0

    def _leave(self) -> None:
        self.running -= 1
        if self.waiting:
            self._hand_on()

    def _hand_on(self) -> None:
        """Calls those who are next, as long as there are places."""
        while self.waiting and self.running < self._places:
            now = self._now()
            waiter = self._next_line(now).pop()
            self.waiting -= 1
            if not waiter.turn.done():  # else it was cancelled in this turn of the loop
                self.running += 1
                self._moved.append(now)
                waiter.turn.set_result(True)

    def _next_line(self, now: float) -> _Line:
        """The line whose turn it is; at least one has waiters."""
        rules = self.rules
        lines = [line for line in self._lines.values() if line]
        chosen = max(lines, key=lambda line: line.passed_over)
        if chosen.passed_over < TURNS_PASSED_OVER:
            numbers = zip((rules.high, rules.normal, rules.low), self._lines.values(), strict=True)
            ranks = [number - (now - line.oldest.arrived) / rules.ageing_seconds for number, line in numbers if line]
            chosen = lines[ranks.index(min(ranks))]
        for line in lines:
            line.passed_over += 1
        chosen.passed_over = 0
        return chosen

    def _time_out(self, line: _Line, waiter: _Waiter) -> None:
        if not waiter.turn.done():
            self._remove(line, waiter)
            waiter.turn.set_result(False)

    def _remove(self, line: _Line, waiter: _Waiter) -> None:
        if line.remove(waiter):
            self.waiting -= 1

    def _position(self, user: str, priority: Priority) -> int:
        """The turn that a request has if nobody comes in between, as far as priorities and users tell."""
        number = getattr(self.rules, priority)
        before = sum(
            len(line)
            for other, line in self._lines.items()
            if other != priority and getattr(self.rules, other) <= number
        )
        return before + self._lines[priority].turns_before(user) + 1

    def _busy(self, code: str, message: str, position: int) -> Busy:
        seconds = 0.0
        if self._moved:
            per_turn = (self._now() - self._moved[0]) / max(1, len(self._moved) - 1)
            seconds = per_turn * position
        retry_after = max(1, min(_MOST_RETRY_SECONDS, ceil(seconds)))
        headers = ((b"retry-after", b"%d" % retry_after), (b"x-lexora-queue-position", b"%d" % position))
        return Busy(f"{message} Try again in {retry_after} s.", code=code, headers=headers)
