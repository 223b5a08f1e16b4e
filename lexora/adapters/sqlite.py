"""SQLite on one machine: the prepared answers and the ledger, in one file."""

import sqlite3
from collections import defaultdict
from contextlib import closing
from math import nan
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from lexora.core.limits import day_window, minute_window, month_window, nanodollars
from lexora.core.ports import Amounts
from lexora.core.promotion import LONGEST_PROMPT
from lexora.core.record import COLUMNS, Record, first_id

_COLUMNS = [*COLUMNS, "prompt"]  # in the record, it stands behind them
_COUNT = len(_COLUMNS)
_KINDS = get_type_hints(Record)
_BOOLS = [place for place, name in enumerate(_COLUMNS) if _KINDS[name] is bool]
_TYPES = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL"}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    prompt TEXT NOT NULL, variant INTEGER NOT NULL, response TEXT NOT NULL, PRIMARY KEY (prompt, variant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS catalogue (content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS requests (request_id TEXT NOT NULL PRIMARY KEY);
"""
# A batch that is written again after an error does not count twice.
_INSERT = f"INSERT OR IGNORE INTO requests ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - our own column names
_ROW = f"({', '.join('?' * len(_COLUMNS))})"
# sqlite3 gives up the interpreter's lock and takes it again for every statement, which under load costs more than the
# insert; so there is a statement for many rows, within SQLite's 32,766 parameters.
_MANY = 100
_INSERT_MANY = _INSERT + ", ".join([_ROW] * _MANY)

# What has been forwarded in a window, by whoever asked. A request's id begins with its time in milliseconds and is the
# table's key: what is outside is not even read. TOTAL adds as floats do and so never overflows.
_SPENT = """
SELECT user_id, key_id, count(*), total(tokens_in) + total(tokens_out), total(cost_usd) FROM requests
WHERE request_id >= ? AND request_id < ? AND attempts > 0 GROUP BY user_id, key_id
"""

# How long a write waits while another program holds the file. Answers are written by the event loop, and while records
# wait, so does the log behind them.
_PATIENCE_SECONDS = 1.0
_MOST = 2**63 - 1
_WINDOWS = {"minute": minute_window, "day": day_window, "month": month_window}


def _connect(path: Path) -> sqlite3.Connection:
    """Raises OSError if the file cannot be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, check_same_thread=False, timeout=_PATIENCE_SECONDS)
        # In WAL mode, NORMAL loses nothing that is committed unless the machine itself loses power.
        connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_SCHEMA}")
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
    return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    """Gives `requests` the columns that it does not have yet: all of them at first, new ones later."""
    known = {row[1] for row in connection.execute("PRAGMA table_info(requests)")}
    for name in _COLUMNS:
        if name not in known:
            kind = next((sql for python, sql in _TYPES.items() if _KINDS[name] in (python, python | None)), "TEXT")
            connection.execute(f"ALTER TABLE requests ADD COLUMN {name} {kind}")
    connection.execute("DROP INDEX IF EXISTS requests_created_at")  # the key is one by time


class SqliteAnswers:
    """The port `AnswerStore`. The table is small and read on every request, so it is kept in memory as well."""

    def __init__(self, path: Path) -> None:
        self._connection = _connect(path)
        rows = self._connection.execute("SELECT prompt, variant, response FROM answers")
        self._answers = {(prompt, variant): text for prompt, variant, text in rows}
        row = self._connection.execute("SELECT content FROM catalogue").fetchone()
        self._catalogue: bytes = row[0] if row else b""

    async def get(self, prompt: str, variant: int) -> str | None:
        return self._answers.get((prompt, variant))

    def replace(self, answers: dict[tuple[str, int], str], catalogue: bytes = b"") -> None:
        """Makes the file hold just these answers, (prompt, variant) to text, all at once. Raises OSError.

        `catalogue` is what they belong to, for those who look at the file; nothing here reads it.
        """
        if (answers, catalogue) == (self._answers, self._catalogue):
            return
        try:
            with self._connection:
                self._connection.execute("DELETE FROM catalogue")
                self._connection.execute("INSERT INTO catalogue VALUES (?)", (catalogue,))
                self._connection.execute("DELETE FROM answers")
                self._connection.executemany(
                    "INSERT INTO answers VALUES (?, ?, ?)", [(*key, text) for key, text in answers.items()]
                )
        except sqlite3.Error as error:
            raise OSError(f"the prepared answers cannot be written: {error}") from None
        self._answers, self._catalogue = answers, catalogue

    def close(self) -> None:
        self._connection.close()


class SqliteRecords:
    """A sink for the ledger: the table `requests`, a row a request. Written from one thread.

    Without `message_text`, it holds no word of the users'.
    """

    def __init__(self, path: Path, *, message_text: bool = True) -> None:
        self._path = path
        self.message_text = message_text
        self._connection = _connect(path)
        try:
            _add_columns(self._connection)
        except sqlite3.Error as error:
            self._connection.close()
            raise OSError(f"{path}: {error}") from None

    def spent(self, window: str, ends_at: float) -> dict[str, Amounts]:
        """What is used of a window, by user, by key and by all, for counters that begin anew. For any thread.

        Raises OSError.
        """
        begins_at = _WINDOWS[window.partition(":")[0]](ends_at - 1).begins_at
        try:
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE_SECONDS)) as connection:
                rows = connection.execute(_SPENT, (first_id(begins_at), first_id(ends_at))).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from None
        sums: defaultdict[str, Amounts] = defaultdict(Amounts)
        for user, key, requests, tokens, usd in rows:
            for subject in ("all", f"user:{user or ''}", *([f"key:{key}"] if key is not None else [])):
                used = sums[subject]
                sums[subject] = Amounts(
                    used.requests + requests, used.tokens + int(tokens), used.nanodollars + nanodollars(usd)
                )
        return sums

    def write(self, records: list[Record]) -> None:
        values: list[Any] = []
        for record in records:
            values += msgspec.structs.astuple(record)[:_COUNT]
            prompt = values[-1]
            if not (prompt and self.message_text and len(prompt) <= LONGEST_PROMPT):
                values[-1] = None
        # sqlite3 looks for an adapter for each bool and None, and words an error that it then drops, which takes longer
        # than the insert. For SQLite, NaN is NULL.
        for place in _BOOLS:
            values[place::_COUNT] = map(int, values[place::_COUNT])
        values = [nan if value is None else value for value in values]
        try:
            self._insert(values)
        except OverflowError:  # an upstream has counted more than a column holds; no other record shall wait for it
            self._insert([max(-_MOST, min(v, _MOST)) if isinstance(v, int) else v for v in values])

    def _insert(self, values: list[Any]) -> None:
        """Rows, one behind the other."""
        size = _COUNT * _MANY
        whole = len(values) - len(values) % size
        with self._connection:
            for start in range(0, whole, size):
                self._connection.execute(_INSERT_MANY, values[start : start + size])
            for start in range(whole, len(values), _COUNT):
                self._connection.execute(_INSERT + _ROW, values[start : start + _COUNT])

    def close(self) -> None:
        self._connection.close()
