"""The prompts in SQLite that a prepared answer may be worth its while for."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from lexora.core.promotion import Asked
from lexora.core.record import first_id

_PATIENCE_SECONDS = 5.0
# A request's id begins with its time in milliseconds and is the table's key: what is older is not even read.
_ASKED = """
SELECT prompt, user_id, tokens_in + tokens_out, cost_usd FROM requests
WHERE request_id >= ? AND created_at >= ? AND prompt IS NOT NULL AND outcome = 'completed'
"""


def asked_prompts(path: Path, since: float) -> Iterator[Asked]:
    """The completed requests for a lone prompt that came at `since` (seconds since the epoch) or later.

    `path` is of a file that SqliteRecords writes; it is only read. Raises OSError.
    """
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_SECONDS)
        ) as connection:
            if not any(row[1] == "prompt" for row in connection.execute("PRAGMA table_info(requests)")):
                raise OSError(f"{path}: an earlier version has written it, and kept no prompts; start this one once")
            for row in connection.execute(_ASKED, (first_id(since), since)):
                yield Asked(*row)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
