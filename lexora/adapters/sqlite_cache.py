"""SQLite on one machine: the cache, in a file of its own, which holds users' words and may be deleted at any time."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from lexora.core.ports import KeptAnswer

_PATIENCE_SECONDS = 0.5
_AT_A_TIME = 20  # of answers that must go
_MOST_USED = 1000  # answers whose use is noted in memory only

# NORMAL loses nothing that is committed unless the machine itself loses power. The answer comes last, as what is before
# it can be read without it.
_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS kept (
    key TEXT NOT NULL PRIMARY KEY, used_at REAL NOT NULL, expires_at REAL NOT NULL, size INTEGER NOT NULL,
    answer BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS kept_by_use ON kept (used_at);
CREATE INDEX IF NOT EXISTS kept_by_end ON kept (expires_at);
"""
_OLDEST = "key IN (SELECT key FROM kept ORDER BY used_at LIMIT ?)"

_T = TypeVar("_T")
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(KeptAnswer).decode


class SqliteCache:
    """The port `CacheStore`. When it holds more than it may, those that were not used for the longest go first.

    The file is made with the first answer. All of it is done in a thread of its own. One process uses the file. `now`
    gives seconds since the epoch.
    """

    def __init__(self, path: Path, now: Callable[[], float], most_bytes: int, most_entries: int) -> None:
        self._path = path
        self._now = now
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._thread = ThreadPoolExecutor(1, "cache")
        self._connection: sqlite3.Connection | None = None
        self._size = self._entries = 0
        self._used: dict[str, float] = {}

    async def get(self, key: str) -> KeptAnswer | None:
        return await self._run(lambda: self._get(key))

    async def put(self, key: str, answer: KeptAnswer) -> None:
        await self._run(lambda: self._put(key, answer))

    def close(self) -> None:
        """Blocks until all is done."""
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Raises OSError."""

        def guarded() -> _T:
            try:
                return work()
            except (sqlite3.Error, msgspec.DecodeError) as error:
                self._close()
                raise OSError(f"{self._path}: {error}") from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _get(self, key: str) -> KeptAnswer | None:
        if self._connection is None and not self._path.exists():
            return None
        row = self._open().execute("SELECT answer FROM kept WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self._used[key] = self._now()
        if len(self._used) > _MOST_USED:
            with self._open() as connection:
                self._note_use(connection)
        return _decode(row[0])

    def _put(self, key: str, answer: KeptAnswer) -> None:
        packed = _encode(answer)
        size = len(packed)
        with self._open() as connection:
            self._note_use(connection)
            self._drop(connection, "key = ? OR expires_at <= ?", key, self._now())
            if size > self._most_bytes:
                return
            while self._entries and (self._size + size > self._most_bytes or self._entries >= self._most_entries):
                self._drop(connection, _OLDEST, _AT_A_TIME if self._entries > 10 * _AT_A_TIME else 1)
            row = (key, self._now(), answer.expires_at, size, packed)
            connection.execute("INSERT INTO kept VALUES (?, ?, ?, ?, ?)", row)
        self._size += size
        self._entries += 1

    def _note_use(self, connection: sqlite3.Connection) -> None:
        """An answer's use alone is no reason to write."""
        connection.executemany(
            "UPDATE kept SET used_at = ? WHERE key = ?", [(at, key) for key, at in self._used.items()]
        )
        self._used.clear()

    def _drop(self, connection: sqlite3.Connection, which: str, *values: str | float) -> None:
        """Deletes the rows that a condition of ours holds for."""
        sizes = connection.execute(f"DELETE FROM kept WHERE {which} RETURNING size", values).fetchall()  # noqa: S608
        self._size -= sum(size for (size,) in sizes)
        self._entries -= len(sizes)

    def _open(self) -> sqlite3.Connection:
        """The connection, anew after an error: what was counted may not be so then."""
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, check_same_thread=False, timeout=_PATIENCE_SECONDS)
            self._connection.executescript(_SCHEMA)
            counted = "SELECT ifnull(sum(size), 0), count(*) FROM kept"
            self._size, self._entries = self._connection.execute(counted).fetchone()
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
