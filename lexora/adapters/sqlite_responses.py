"""SQLite on one machine: the stored responses, in a file of their own, which holds users' words and nothing else."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from lexora.core.ports import RESPONSE_SECONDS, StoredResponse

# How long the event loop may wait should another program hold the file.
_PATIENCE_SECONDS = 0.2

# The words come last, as what is before them can be read without them. NORMAL loses nothing that is committed unless
# the machine itself loses power.
_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS responses (
    id TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, created_at REAL NOT NULL, size INTEGER NOT NULL, previous TEXT,
    input BLOB NOT NULL, response BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_age ON responses (created_at, size);
"""
_OWN = "owner = ? AND id = ? AND created_at > ?"
_OLDEST = "rowid = (SELECT rowid FROM responses ORDER BY created_at LIMIT 1)"


class SqliteResponses:
    """The port `ResponseStore`. When it holds more than `most_bytes`, the oldest responses go first.

    One process uses the file, and one thread of it. `now` gives seconds since the epoch.
    """

    def __init__(self, path: Path, now: Callable[[], float], most_bytes: int = 1_000_000_000) -> None:
        """Raises OSError if the file cannot be used."""
        self._now = now
        self._most_bytes = most_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(
                path, check_same_thread=False, timeout=_PATIENCE_SECONDS, isolation_level=None
            )
            self._connection.executescript(_SCHEMA)
            self._size: int = self._connection.execute("SELECT ifnull(sum(size), 0) FROM responses").fetchone()[0]
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from None

    def put(self, response: StoredResponse) -> None:
        size = len(response.input) + len(response.response)
        try:
            self._drop("id = ? OR created_at <= ?", response.id, self._since())
            while self._size and self._size + size > self._most_bytes:
                self._drop(_OLDEST)
            row = (*response[:3], size, *response[3:])
            self._connection.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._size += size
        except sqlite3.Error as error:
            raise OSError(f"the responses cannot be written: {error}") from None

    def get(self, owner: str, response_id: str) -> StoredResponse | None:
        columns = ", ".join(StoredResponse._fields)
        statement = f"SELECT {columns} FROM responses WHERE {_OWN}"  # noqa: S608 - our own column names
        try:
            row = self._connection.execute(statement, (owner, response_id, self._since())).fetchone()
        except sqlite3.Error as error:
            raise OSError(f"the responses cannot be read: {error}") from None
        return StoredResponse(*row) if row else None

    def delete(self, owner: str, response_id: str) -> bool:
        try:
            found = self._drop(_OWN, owner, response_id, self._since())
            if found:  # nor shall the words stay behind in the log of writes
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise OSError(f"the responses cannot be written: {error}") from None
        return found

    def close(self) -> None:
        self._connection.close()

    def _since(self) -> float:
        return self._now() - RESPONSE_SECONDS

    def _drop(self, which: str, *values: str | float) -> bool:
        """Deletes the rows that a condition of ours holds for; whether there was any."""
        sizes = self._connection.execute(f"SELECT size FROM responses WHERE {which}", values).fetchall()  # noqa: S608
        if sizes:
            self._connection.execute(f"DELETE FROM responses WHERE {which}", values)  # noqa: S608
            self._size -= sum(size for (size,) in sizes)
        return bool(sizes)
