"""SQLite on one machine: the API keys, in the gateway's own file."""

import sqlite3
import threading
from pathlib import Path

import msgspec

from lexora.core.keys import Key

_PATIENCE_SECONDS = 5.0
# The event loop waits for reads; in WAL mode no writer keeps them waiting.
_READ_PATIENCE_SECONDS = 0.2
_decode = msgspec.json.Decoder(Key).decode


class SqliteKeys:
    """The port `KeyStore`. The gateway and the command `lexora keys` may have it open at the same time.

    Any thread may use it: writes have a connection of their own, so that reads do not wait for the disk.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be used."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writing = threading.Lock()
        try:
            self._writer = _connect(path, _PATIENCE_SECONDS)
            self._writer.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                "CREATE TABLE IF NOT EXISTS keys (id TEXT NOT NULL PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID"
            )
            self._reader = _connect(path, _READ_PATIENCE_SECONDS)
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from None

    def get(self, key_id: str) -> Key | None:
        rows = self._read("SELECT key FROM keys WHERE id = ?", key_id)
        return _decode(rows[0][0]) if rows else None

    def all(self) -> list[Key]:
        keys = [_decode(row[0]) for row in self._read("SELECT key FROM keys")]
        return sorted(keys, key=lambda key: key.created_at)

    def put(self, key: Key, before: Key | None) -> bool:
        text = msgspec.json.encode(key).decode()
        if before is None:
            return self._write("INSERT OR IGNORE INTO keys VALUES (?, ?)", key.id, text)
        # By its text as it is stored: an older version may have written it with fewer fields.
        rows = self._read("SELECT key FROM keys WHERE id = ?", key.id)
        if not rows or _decode(rows[0][0]) != before:
            return False
        return self._write("UPDATE keys SET key = ? WHERE id = ? AND key = ?", text, key.id, rows[0][0])

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _read(self, statement: str, *values: str) -> list[tuple[str]]:
        """Raises OSError."""
        try:
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"the keys cannot be read: {error}") from None

    def _write(self, statement: str, *values: str) -> bool:
        """Whether it has changed anything. Raises OSError."""
        try:
            with self._writing:
                return self._writer.execute(statement, values).rowcount > 0
        except sqlite3.Error as error:
            raise OSError(f"the keys cannot be written: {error}") from None


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    """Every statement is a transaction of its own."""
    return sqlite3.connect(path, check_same_thread=False, timeout=patience, isolation_level=None)
