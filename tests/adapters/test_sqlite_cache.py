"""The cache in SQLite: its bounds, and files that are not as they should be."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lexora.adapters.sqlite_cache import SqliteCache
from lexora.core.ports import KeptAnswer
from lexora.core.usage import Usage


class Clock:
    now = 1_795_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "cache.db"


@pytest.fixture
def cache(path: Path, clock: Clock) -> Iterator[SqliteCache]:
    """It holds ten answers, or 10,000 bytes."""
    with closing(SqliteCache(path, clock, 10_000, 10)) as cache:
        yield cache


def answer(size: int = 10, seconds: float = 60, at: float = 1_795_000_000.0) -> KeptAnswer:
    return KeptAnswer(b"x" * size, Usage(), False, "", "", "", at, at + seconds)


async def fill(cache: SqliteCache, keys: str, size: int = 10) -> None:
    for key in keys:
        await cache.put(key, answer(size))


async def kept(cache: SqliteCache, keys: str) -> str:
    return "".join([key for key in keys if await cache.get(key) is not None])


def test_it_makes_no_file_before_there_is_something_to_keep(cache: SqliteCache, path: Path) -> None:
    assert asyncio.run(cache.get("a")) is None
    assert not path.parent.exists()


def test_those_go_that_were_not_used_for_the_longest(cache: SqliteCache) -> None:
    async def use() -> str:
        await fill(cache, "abcdefghij")
        await kept(cache, "ac")
        await fill(cache, "klm")
        return await kept(cache, "abcdefghijklm")

    assert asyncio.run(use()) == "acfghijklm"


def test_bytes_are_bounded_too(cache: SqliteCache) -> None:
    async def use() -> tuple[str, str]:
        await fill(cache, "abc", 3000)
        await fill(cache, "d", 5000)
        before = await kept(cache, "abcd")
        await fill(cache, "e", 20_000)  # does not fit at all, and nothing goes for it
        return before, await kept(cache, "abcde")

    assert asyncio.run(use()) == ("cd", "cd")


def test_an_answer_in_the_place_of_another_counts_once(cache: SqliteCache) -> None:
    async def use() -> str:
        for _ in range(20):
            await fill(cache, "a", 3000)
        await fill(cache, "bc", 3000)
        return await kept(cache, "abc")

    assert asyncio.run(use()) == "abc"


def test_what_has_expired_goes_with_the_next_write(cache: SqliteCache, path: Path, clock: Clock) -> None:
    asyncio.run(fill(cache, "abc"))
    clock.now += 61
    asyncio.run(cache.put("d", answer(at=clock.now)))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key FROM kept").fetchall() == [("d",)]


def test_what_is_there_counts_after_a_restart(cache: SqliteCache, path: Path, clock: Clock) -> None:
    asyncio.run(fill(cache, "abc", 3000))
    with closing(SqliteCache(path, clock, 10_000, 10)) as again:
        asyncio.run(fill(again, "d", 3000))
        assert asyncio.run(kept(again, "abcd")) == "bcd"


def test_after_an_error_it_goes_on(cache: SqliteCache, path: Path) -> None:
    asyncio.run(fill(cache, "ab"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="locked"):
            asyncio.run(fill(cache, "c"))
        assert asyncio.run(kept(cache, "abc")) == "ab"  # who reads does not wait
        other.rollback()
    asyncio.run(fill(cache, "c"))
    assert asyncio.run(kept(cache, "abc")) == "abc"


def test_many_reads_are_noted_without_a_write_each(cache: SqliteCache) -> None:
    async def use() -> str:
        await fill(cache, "abcdefghij")
        for _ in range(300):
            await kept(cache, "abcde")
        await fill(cache, "klmno")
        return await kept(cache, "abcdefghijklmno")

    assert asyncio.run(use()) == "abcdeklmno"
