"""The queue in front of a deployment, on a real event loop; only its clock is the test's."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from lexora.core.errors import Busy
from lexora.core.queue import TURNS_PASSED_OVER, Place, Queue, QueueRules
from lexora.core.record import Priority


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Line:
    """A queue, and those who came to it: `called` are their names in the order in which they got a place."""

    def __init__(self, concurrency: int | None = 1, **rules: Any) -> None:
        self.clock = Clock()
        self.queue = Queue(QueueRules(**rules), self.clock, concurrency)
        self.called: list[str] = []
        self.places: dict[str, Place] = {}
        self._loop = asyncio.get_running_loop()

    async def come(self, name: str, user: str | None = None, priority: Priority = "normal") -> asyncio.Task[Place]:
        """Lets somebody come, up to the moment where it waits; whoever names no user is one of its own."""

        async def enter() -> Place:
            place = self.places[name] = await self.queue.enter(self._loop, user or name, priority)
            self.called.append(name)
            return place

        task = self._loop.create_task(enter())
        await asyncio.sleep(0)
        return task

    async def serve_all(self, seconds_each: float = 0.0) -> list[str]:
        """Releases the places of whoever has one until nobody waits; says who was called meanwhile."""
        before = len(self.called)
        while self.queue.running:
            self.clock.seconds += seconds_each
            for name in list(self.places):
                self.places.pop(name).release()
            await turns()
        return self.called[before:]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def on_a_loop(work: Callable[[], Awaitable[None]]) -> None:
    """Runs the test on the loop of production, and checks that no task is left."""

    async def main() -> None:
        await work()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    uvloop.run(main())


def header(error: Busy, name: bytes) -> int:
    return int(dict(error.headers)[name])


def test_a_free_place_is_had_at_once_and_released_once() -> None:
    async def work() -> None:
        line = Line(concurrency=2)
        place = line.queue.try_enter()
        assert place is not None
        assert (place.waited, place.position) == (0.0, 0)
        second = await line.queue.enter(asyncio.get_running_loop(), "u", "low")
        assert second.position == 0
        assert line.queue.running == 2
        assert line.queue.try_enter() is None
        place.release()
        place.release()
        assert line.queue.running == 1
        assert line.queue.try_enter() is not None

    on_a_loop(work)


def test_without_a_bound_nobody_waits() -> None:
    async def work() -> None:
        line = Line(concurrency=None, max_size=0)
        places = [line.queue.try_enter() for _ in range(1000)]
        assert None not in places
        assert (line.queue.running, line.queue.waiting, line.queue.concurrency) == (1000, 0, None)

    on_a_loop(work)


def test_a_place_goes_to_whoever_waits_and_says_for_how_long() -> None:
    async def work() -> None:
        line = Line()
        await line.come("first")
        task = await line.come("second")
        line.clock.seconds += 2.5
        assert line.queue.oldest_wait() == 2.5
        line.places["first"].release()
        assert line.queue.try_enter() is None, "the place belongs to the one who waited"
        place = await task
        assert (place.waited, place.position) == (2.5, 1)
        assert line.queue.oldest_wait() == 0.0
        assert (line.queue.running, line.queue.waiting) == (1, 0)

    on_a_loop(work)


def test_the_higher_priority_goes_first_and_within_one_the_first_that_came() -> None:
    async def work() -> None:
        line = Line()
        await line.come("running")
        arrivals: list[tuple[str, Priority]] = [
            *(("low1", "low"), ("normal1", "normal"), ("low2", "low"), ("high1", "high")),
            *(("normal2", "normal"), ("high2", "high")),
        ]
        for name, priority in arrivals:
            await line.come(name, priority=priority)
        assert line.queue.waiting_by_priority() == {"high": 2, "normal": 2, "low": 2}
        assert await line.serve_all() == ["high1", "high2", "normal1", "normal2", "low1", "low2"]

    on_a_loop(work)


def test_positions_count_those_of_the_same_and_of_higher_priority() -> None:
    async def work() -> None:
        line = Line()
        await line.come("running")
        order: list[Priority] = ["low", "normal", "high", "high", "normal", "low"]
        tasks = [await line.come(f"{number}", priority=priority) for number, priority in enumerate(order)]
        await line.serve_all()
        assert [(await task).position for task in tasks] == [1, 1, 1, 2, 4, 6]

    on_a_loop(work)


def test_whoever_waits_gains_a_point_every_few_seconds() -> None:
    async def work() -> None:
        for waited, first in ((44.9, "high"), (45.1, "low")):
            line = Line(high=1, low=10, ageing_seconds=5)
            await line.come("running")
            await line.come("low", priority="low")
            line.clock.seconds += waited
            await line.come("high", priority="high")
            assert (await line.serve_all())[0] == first

    on_a_loop(work)


def test_users_of_one_priority_take_turns() -> None:
    async def work() -> None:
        line = Line()
        await line.come("running")
        for number in range(5):
            await line.come(f"a{number}", user="a")
        for number in range(2):
            await line.come(f"b{number}", user="b")
        late = await line.come("c0", user="c")
        assert await line.serve_all() == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]
        assert (await late).position == 3

    on_a_loop(work)


@pytest.mark.parametrize("priority", ["normal", "low"])
def test_a_lower_priority_is_served_under_a_flood_of_higher_ones_however_long_these_wait(priority: Priority) -> None:
    async def work() -> None:
        line = Line()
        await line.come("running")
        for number in range(60):
            await line.come(f"high{number}", priority="high")
        task = await line.come("lower", priority=priority)
        served = 0
        while not task.done():
            served += 1
            line.clock.seconds += 1
            for name in list(line.places):
                line.places.pop(name).release()
            await line.come(f"more{served}", priority="high")  # as many come as go: the line never gets shorter
            await turns()
        assert served == TURNS_PASSED_OVER + 1
        assert line.queue.waiting == 61, "nobody was turned away"
        await line.serve_all()

    on_a_loop(work)


def test_a_full_queue_says_when_to_come_again() -> None:
    async def work() -> None:
        line = Line(max_size=2)
        tasks = [await line.come("running"), await line.come("waiting1"), await line.come("waiting2")]
        with pytest.raises(Busy) as caught:
            await line.queue.enter(asyncio.get_running_loop(), "late", "normal")
        assert (caught.value.status, caught.value.code) == (503, "queue_full")
        assert caught.value.headers == ((b"retry-after", b"1"), (b"x-lexora-queue-position", b"3"))
        assert line.queue.waiting == 2
        await line.serve_all()
        assert all(task.done() for task in tasks)

    on_a_loop(work)


def test_the_time_to_come_again_follows_from_how_fast_places_become_free() -> None:
    async def work() -> None:
        line = Line(max_size=2)
        await line.come("running")
        for name in ("1", "2"):
            await line.come(name)
        for number in range(3, 8):  # one every 4 s, and another comes
            line.clock.seconds += 4
            line.places.popitem()[1].release()
            await turns()
            await line.come(f"{number}")
        with pytest.raises(Busy) as caught:
            await line.queue.enter(asyncio.get_running_loop(), "late", "normal")
        assert header(caught.value, b"retry-after") == 12
        line.clock.seconds += 10_000  # nothing moves any more
        with pytest.raises(Busy) as caught:
            await line.queue.enter(asyncio.get_running_loop(), "late", "high")
        assert header(caught.value, b"retry-after") == 60
        assert header(caught.value, b"x-lexora-queue-position") == 1
        await line.serve_all()
        line.clock.seconds += 10_000
        for name in ("running", "1", "2"):
            await line.come(name)
        with pytest.raises(Busy) as caught:  # how it was then says nothing of now
            await line.queue.enter(asyncio.get_running_loop(), "late", "normal")
        assert header(caught.value, b"retry-after") == 1
        await line.serve_all()

    on_a_loop(work)


def test_whoever_waits_for_too_long_is_told_so_and_forgotten() -> None:
    async def work() -> None:
        line = Line(timeout=0.02)
        await line.come("running")
        task = await line.come("waiting")
        line.queue.rules = line.queue.rules._replace(timeout=60)
        patient = await line.come("patient")
        with pytest.raises(Busy) as caught:
            await task
        assert (caught.value.status, caught.value.code) == (503, "queue_timeout")
        assert header(caught.value, b"retry-after") >= 1
        assert header(caught.value, b"x-lexora-queue-position") == 2
        assert (line.queue.running, line.queue.waiting) == (1, 1)
        await line.serve_all()
        assert (await patient).position == 2
        assert line.called == ["running", "patient"]

    on_a_loop(work)


def test_a_client_that_leaves_is_removed_and_the_others_move_up() -> None:
    async def work() -> None:
        line = Line()
        await line.come("running")
        leaving = await line.come("leaving")
        await line.come("staying")
        leaving.cancel()
        await turns()
        assert leaving.cancelled()
        assert line.queue.waiting_by_priority() == {"high": 0, "normal": 1, "low": 0}
        last = await line.come("last")
        assert await line.serve_all() == ["staying", "last"]
        assert (await last).position == 2
        assert (line.queue.running, line.queue.waiting) == (0, 0)

    on_a_loop(work)


@pytest.mark.parametrize("called_first", [True, False])
def test_a_place_for_somebody_who_leaves_at_that_moment_goes_to_the_next(called_first: bool) -> None:
    async def work() -> None:
        line = Line()
        await line.come("running")
        leaving, staying = await line.come("leaving"), await line.come("staying")
        steps = [line.places["running"].release, leaving.cancel]
        for step in steps if called_first else reversed(steps):
            step()
        await turns()
        assert leaving.cancelled()
        assert staying.done()
        assert (line.queue.running, line.queue.waiting) == (1, 0)
        (await staying).release()
        assert line.queue.running == 0

    on_a_loop(work)


def test_a_place_for_the_last_one_is_free_again_if_it_leaves_at_that_moment() -> None:
    async def work() -> None:
        line = Line()
        await line.come("running")
        leaving = await line.come("leaving")
        line.places["running"].release()
        leaving.cancel()
        await turns()
        assert (line.queue.running, line.queue.waiting) == (0, 0)
        assert line.queue.try_enter() is not None

    on_a_loop(work)


def test_more_places_let_waiters_in_and_fewer_send_nobody_away() -> None:
    async def work() -> None:
        line = Line()
        for number in range(6):
            await line.come(f"{number}")
        line.queue.concurrency = 3
        await turns()
        assert line.called == ["0", "1", "2"]
        line.queue.concurrency = 1
        assert (line.queue.running, line.queue.waiting) == (3, 3)
        line.places.pop("0").release()
        line.places.pop("1").release()
        await turns()
        assert (line.queue.running, line.queue.waiting) == (1, 3)
        line.places.pop("2").release()
        await turns()
        assert line.called[3:] == ["3"]
        line.queue.concurrency = None
        await turns()
        assert (line.queue.running, line.queue.waiting) == (3, 0)
        await line.serve_all()

    on_a_loop(work)


class Crowd:
    """Arrivals, departures, releases and changes of concurrency by chance; every step is checked."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.queue = Queue(QueueRules(max_size=30, timeout=60), self.clock, 3)
        self.loop = asyncio.get_running_loop()
        self.fates: Counter[str] = Counter()
        self.held: list[Place] = []
        self.came = 0
        self.tasks: dict[asyncio.Task[None], None] = {}  # in order, so that a seed leads to the same again

    async def one(self) -> None:
        user, priority = self.chance.choice("abcd"), self.chance.choice(("high", "normal", "low"))
        try:
            place = await self.queue.enter(self.loop, user, priority)
        except Busy as error:
            self.fates[error.code or ""] += 1
            assert header(error, b"x-lexora-queue-position") >= 1
        else:
            self.fates["served"] += 1
            self.held.append(place)

    async def settle(self) -> None:
        """Lets those go on who were called, and those whose time is up; more of these may come meanwhile."""
        for _ in range(50):
            await turns()
            if (len(self.held), len(self.tasks)) == (self.queue.running, self.queue.waiting):
                return

    def _gone(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]
        self.fates["left"] += task.cancelled()

    def step(self) -> None:
        match self.chance.randrange(10):
            case 0 | 1 | 2 | 3:
                self.came += 1
                task = self.loop.create_task(self.one())
                self.tasks[task] = None
                task.add_done_callback(self._gone)
            case 4 | 5 | 6 if self.held:
                self.held.pop(self.chance.randrange(len(self.held))).release()
            case 7 if self.tasks:
                self.chance.choice(list(self.tasks)).cancel()
            case 8 if self.chance.random() < 0.2:
                self.queue.concurrency = self.chance.choice((1, 2, 3, 8))
            case 9 if self.chance.random() < 0.05:
                self.queue.rules = self.queue.rules._replace(timeout=self.chance.choice((0.001, 60)))
        self.clock.seconds += self.chance.random() * 3


@pytest.mark.parametrize("seed", range(6))
def test_by_chance_nobody_is_lost_and_no_place_given_twice_or_forgotten(seed: int) -> None:
    async def work() -> None:
        crowd = Crowd(seed)
        queue = crowd.queue
        for _ in range(4000):
            running = queue.running
            crowd.step()
            assert queue.running <= max(running, queue.concurrency or 0), "more than there are places for"
            assert not queue.waiting or queue.running >= (queue.concurrency or 0), "a place was free, and one waited"
            if crowd.chance.random() < 0.5:
                await crowd.settle()
                assert len(crowd.held) == queue.running, "a place was lost or given twice"
                assert len(crowd.tasks) == queue.waiting == sum(queue.waiting_by_priority().values())
        await crowd.settle()
        while crowd.held:
            crowd.held.pop().release()
            await crowd.settle()
        assert (queue.running, queue.waiting, crowd.tasks) == (0, 0, {})
        assert not any(line._by_user or line._by_arrival for line in queue._lines.values())
        assert sum(crowd.fates.values()) == crowd.came
        assert {"served", "left"} <= set(crowd.fates)

    on_a_loop(work)
