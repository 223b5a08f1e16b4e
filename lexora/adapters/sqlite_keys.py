"""SQLite on one machine: the API keys, in the gateway's own file."""

import sqlite3
from pathlib import Path

import msgspec

from lexora.core.keys import Key

_PATIENCE_SECONDS = 1.0
_decode = msgspec.json.Decoder(Key).decode


class SqliteKeys:
    """The port `KeyStore`. The gateway and the command `lexora keys` may have it open at the same time."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be used."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=_PATIENCE_SECONDS)
            self._connection.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                "CREATE TABLE IF NOT EXISTS keys (id TEXT NOT NULL PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from None

    def get(self, key_id: str) -> Key | None:
        rows = self._run("SELECT key FROM keys WHERE id = ?", key_id)
        return _decode(rows[0][0]) if rows else None

    def all(self) -> list[Key]:
        keys = [_decode(row[0]) for row in self._run("SELECT key FROM keys")]
        return sorted(keys, key=lambda key: key.created_at)

    def put(self, key: Key) -> None:
        self._run("INSERT OR REPLACE INTO keys VALUES (?, ?)", key.id, msgspec.json.encode(key).decode())

    def close(self) -> None:
        self._connection.close()

    def _run(self, statement: str, *values: str) -> list[tuple[str]]:
        """Raises OSError."""
        try:
            with self._connection:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"the keys cannot be read or written: {error}") from None
