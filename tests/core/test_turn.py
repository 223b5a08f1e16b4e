"""Work put off within a turn of the event loop."""

import asyncio
from collections.abc import Callable
from functools import partial

from lexora.core import turn as module
from lexora.core.turn import Turn


def in_a_loop(work: Callable[[Callable[[int], None], list[int]], None]) -> list[list[int]]:
    """What had been done at the end of `work`, which is given a way to add numbers, and after the turn."""

    async def run() -> list[list[int]]:
        loop, turn = asyncio.get_running_loop(), Turn()
        done: list[int] = []
        work(lambda number: turn.add(partial(done.append, number), loop), done)
        at_once = list(done)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [at_once, done]

    return asyncio.run(run())


def test_the_first_is_done_at_once_and_the_others_at_the_end_in_their_order() -> None:
    def work(add: Callable[[int], None], done: list[int]) -> None:
        for number in range(4):
            add(number)

    assert in_a_loop(work) == [[0], [0, 1, 2, 3]]


def test_many_do_not_wait_for_the_end() -> None:
    def work(add: Callable[[int], None], done: list[int]) -> None:
        for number in range(40):
            add(number)

    at_once, in_the_end = in_a_loop(work)
    assert len(at_once) >= 40 - module._MOST
    assert at_once == list(range(len(at_once)))
    assert in_the_end == list(range(40))


def test_what_is_added_meanwhile_is_done_as_well() -> None:
    async def run() -> list[str]:
        loop, turn = asyncio.get_running_loop(), Turn()
        done: list[str] = []
        turn.add(lambda: done.append("first"), loop)
        turn.add(lambda: turn.add(lambda: done.append("third"), loop), loop)
        turn.add(lambda: done.append("second"), loop)
        for _ in range(4):
            await asyncio.sleep(0)
        return done

    assert sorted(asyncio.run(run())) == ["first", "second", "third"]


def test_every_turn_begins_anew() -> None:
    async def run() -> list[int]:
        loop, turn = asyncio.get_running_loop(), Turn()
        done: list[int] = []
        for number in range(3):
            turn.add(partial(done.append, number), loop)
            assert done[-1] == number
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return done

    assert asyncio.run(run()) == [0, 1, 2]
