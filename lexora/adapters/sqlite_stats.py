"""The records in SQLite, summed up by SQLite."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from lexora.core.record import first_id
from lexora.core.stats import Counts, Group

_PATIENCE_SECONDS = 5.0

# A request's id begins with its time in milliseconds and is the table's key: what is older is not even read.
_SINCE = "FROM requests WHERE request_id >= ? AND created_at >= ?"
# total(): a sum of counts that are too large for an integer is an error, but one of floats is not.
_GROUPS = f"""
SELECT model, user_id, origin, deployment, count(*), total(outcome = 'failed'), total(tokens_in), total(tokens_out),
    total(cost_usd), count(*) - count(cost_usd), total(duration_ms), total(ttft_ms), count(ttft_ms),
    total(saved_usd)
{_SINCE} GROUP BY model, user_id, origin, deployment
"""
_COUNTS = f"SELECT count(*), total(outcome = 'failed') {_SINCE}"


class SqliteStats:
    """The port `StatsSource` over the table that SqliteRecords writes, by connections of its own that only read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def groups(self, since: float) -> list[Group]:
        return [
            Group(
                model or "",
                user_id,
                origin,
                deployment or "",
                requests,
                int(errors),
                int(tokens_in),
                int(tokens_out),
                *sums,
            )
            for model, user_id, origin, deployment, requests, errors, tokens_in, tokens_out, *sums in self._ask(
                _GROUPS, since
            )
        ]

    def counts(self, since: float) -> Counts:
        ((requests, errors),) = self._ask(_COUNTS, since)
        return Counts(requests, int(errors))

    def _ask(self, question: str, since: float) -> list[Any]:
        try:
            # Opened for each question: it takes less than a millisecond, and a connection belongs to one thread.
            with closing(
                sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_SECONDS)
            ) as connection:
                return connection.execute(question, (first_id(since), since)).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from None
