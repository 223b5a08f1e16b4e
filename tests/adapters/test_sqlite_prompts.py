"""The prompts in the records."""

from contextlib import closing
from pathlib import Path

import pytest

from lexora.adapters.sqlite import SqliteRecords
from lexora.adapters.sqlite_prompts import asked_prompts
from lexora.core.promotion import Asked
from lexora.core.record import Record, RequestIds


def test_what_was_asked_since_and_answered(tmp_path: Path) -> None:
    ids = RequestIds()
    facts = {"prompt": "光とは", "tokens_in": 7, "tokens_out": 3, "user_id": "ann", "cost_usd": None}
    with closing(SqliteRecords(tmp_path / "lexora.db")) as records:
        records.write(
            [
                Record(ids.new(999.0), 999.0, "chat", **{**facts, "prompt": "before"}),
                # What was noted later than it came, say by a gateway whose clock was wrong.
                Record(ids.new(5000.0), 999.0, "chat", **{**facts, "prompt": "before as well"}),
                Record(ids.new(1000.0), 1000.0, "chat", **facts),
                Record(ids.new(1001.0), 1001.0, "chat", **{**facts, "outcome": "failed"}),
                Record(ids.new(1002.0), 1002.0, "chat", **{**facts, "prompt": None}),
            ]
        )
    assert list(asked_prompts(tmp_path / "lexora.db", 1000.0)) == [Asked("光とは", "ann", 10, None)]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "lexora.db").write_text("no database, and longer than a header of one would be" * 20)
    with pytest.raises(OSError, match=r"lexora\.db: file is not a database"):
        list(asked_prompts(tmp_path / "lexora.db", 0))
