"""SQLite on one machine: the prepared answers and the ledger, in one file."""

import sqlite3
from functools import cache
from pathlib import Path
from typing import get_type_hints

import msgspec

from lexora.core.record import Record

# The texts of a request go to the log, if anywhere.
_COLUMNS = [name for name in Record.__struct_fields__ if name not in ("latest_user_message", "context_tail")]
_TYPES = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL"}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    prompt TEXT NOT NULL, variant INTEGER NOT NULL, response TEXT NOT NULL, PRIMARY KEY (prompt, variant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (request_id TEXT NOT NULL PRIMARY KEY);
"""
# Rows of one INSERT. sqlite3 gives up the interpreter's lock and takes it again for every statement, which under load
# costs more than the insert; 23 columns times this stay far below SQLite's 32,766 parameters.
_ROWS = 100


@cache
def _insert(rows: int) -> str:
    """The statement for so many rows. A batch that is written again after an error does not count twice."""
    row = f"({', '.join('?' * len(_COLUMNS))})"
    return f"INSERT OR IGNORE INTO requests ({', '.join(_COLUMNS)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - our own names


def _connect(path: Path) -> sqlite3.Connection:
    """Raises OSError if the file cannot be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
        # In WAL mode, NORMAL loses nothing that is committed unless the machine itself loses power.
        connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_SCHEMA}")
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
    return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    """Gives `requests` the columns of Record that it does not have yet: all of them at first, new ones later."""
    known = {row[1] for row in connection.execute("PRAGMA table_info(requests)")}
    kinds = get_type_hints(Record)
    for name in _COLUMNS:
        if name not in known:
            kind = next((sql for python, sql in _TYPES.items() if kinds[name] in (python, python | None)), "TEXT")
            connection.execute(f"ALTER TABLE requests ADD COLUMN {name} {kind}")


class SqliteAnswers:
    """The port `AnswerStore`. The table is small and read on every request, so it is kept in memory as well."""

    def __init__(self, path: Path) -> None:
        self._connection = _connect(path)
        self._load()

    async def get(self, prompt: str, variant: int) -> str | None:
        return self._answers.get((prompt, variant))

    def replace(self, answers: dict[tuple[str, int], str]) -> None:
        """Makes the table hold just these answers, (prompt, variant) to text, all at once."""
        with self._connection:
            self._connection.execute("DELETE FROM answers")
            self._connection.executemany(
                "INSERT INTO answers VALUES (?, ?, ?)", [(*key, text) for key, text in answers.items()]
            )
        self._load()

    def close(self) -> None:
        self._connection.close()

    def _load(self) -> None:
        rows = self._connection.execute("SELECT prompt, variant, response FROM answers")
        self._answers = {(prompt, variant): text for prompt, variant, text in rows}


class SqliteRecords:
    """A sink for the ledger: the table `requests`, a row a request. Written from one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = _connect(path)
        _add_columns(self._connection)

    def write(self, records: list[Record]) -> None:
        count = len(_COLUMNS)
        with self._connection:
            for start in range(0, len(records), _ROWS):
                some = records[start : start + _ROWS]
                values = [value for record in some for value in msgspec.structs.astuple(record)[:count]]
                self._connection.execute(_insert(len(some)), values)

    def close(self) -> None:
        self._connection.close()
