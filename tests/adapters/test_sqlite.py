"""SQLite: the tables, and files that are not as they should be."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters.sqlite import SqliteAnswers, SqliteRecords
from lexora.core.limits import day_window, minute_window, month_window
from lexora.core.ports import Amounts
from lexora.core.record import COLUMNS, Record, RequestIds

TEXTS = ("latest_user_message", "context_tail")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lexora.db"


def ask(path: Path, question: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another program holds the database for writing."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


def records(*facts: dict[str, Any]) -> list[Record]:
    ids = RequestIds(1)
    return [Record(ids.new(1), 1.0, "chat.completions", **fields) for fields in facts]


def test_answers_have_the_prompt_as_partition_key_and_the_variant_as_sort_key(path: Path) -> None:
    with closing(SqliteAnswers(path)) as answers:
        answers.replace({("b", 1): "b1", ("a", 1): "a1", ("a", 0): "a0"})
    columns = [(name, kind, key) for _, name, kind, _, _, key in ask(path, "PRAGMA table_info(answers)")]
    assert columns == [("prompt", "TEXT", 1), ("variant", "INTEGER", 2), ("response", "TEXT", 0)]
    assert ask(path, "SELECT * FROM answers") == [("a", 0, "a0"), ("a", 1, "a1"), ("b", 1, "b1")]


def test_answers_that_have_not_changed_are_not_written_again(path: Path) -> None:
    with closing(SqliteAnswers(path)) as answers:
        answers.replace({("a", 0): "a0"})
        with held(path):
            answers.replace({("a", 0): "a0"})


def test_answers_stay_as_they_are_if_they_cannot_be_written(path: Path) -> None:
    with closing(SqliteAnswers(path)) as answers:
        answers.replace({("a", 0): "old"})
        started = time.monotonic()
        with held(path), pytest.raises(OSError, match="the prepared answers cannot be written: database is locked"):
            answers.replace({("a", 0): "new"})
        assert time.monotonic() - started < 3  # the event loop waits meanwhile
        assert ask(path, "SELECT response FROM answers") == [("old",)]
        answers.replace({("a", 0): "new"})
        assert ask(path, "SELECT response FROM answers") == [("new",)]


def test_a_record_is_a_row_with_every_field_but_the_texts(path: Path) -> None:
    with closing(SqliteRecords(path)) as sink:
        sink.write(records({"latest_user_message": "my secret", "context_tail": "my secret"}))
    columns = {name: kind for _, name, kind, *_ in ask(path, "PRAGMA table_info(requests)")}
    assert list(columns) == [*COLUMNS, "prompt"]
    assert not set(columns) & {*TEXTS, "trace_parent"}
    assert columns["tokens_in"] == columns["status"] == columns["stream"] == columns["usage_estimated"] == "INTEGER"
    assert columns["cost_usd"] == columns["ttft_ms"] == columns["created_at"] == "REAL"
    assert columns["origin"] == columns["user_id"] == columns["error_message"] == "TEXT"
    assert b"my secret" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.parametrize(
    ("prompt", "message_text", "kept"),
    [
        ("光とは", True, "光とは"),
        ("光とは", False, None),
        ("光" * 1001, True, None),
        ("", True, None),
        (None, True, None),
    ],
)
def test_a_lone_prompt_is_kept_where_words_may_be(
    path: Path, prompt: str | None, message_text: bool, kept: str | None
) -> None:
    with closing(SqliteRecords(path, message_text=message_text)) as sink:
        sink.write(records({"prompt": prompt}))
    assert ask(path, "SELECT prompt FROM requests") == [(kept,)]


def test_a_record_that_is_written_twice_counts_once(path: Path) -> None:
    with closing(SqliteRecords(path)) as sink:
        batch = records({}, {})
        sink.write(batch)
        sink.write([*batch, *records({}, {}, {})])
    assert ask(path, "SELECT count(*) FROM requests") == [(3,)]


def test_a_table_of_an_older_version_gets_the_new_columns(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE requests (request_id TEXT NOT NULL PRIMARY KEY, model TEXT, retired TEXT)")
        connection.execute("INSERT INTO requests VALUES ('old', 'm', 'x')")
        connection.commit()
    with closing(SqliteRecords(path)) as sink:
        sink.write(records({"model": "new", "tokens_out": 5}))
    rows = ask(path, "SELECT model, tokens_out, retired FROM requests ORDER BY model")
    assert rows == [("m", None, "x"), ("new", 5, None)]


def test_answers_and_records_share_a_file_with_readers(path: Path) -> None:
    with (
        closing(SqliteAnswers(path)) as answers,
        closing(SqliteRecords(path)) as sink,
        closing(sqlite3.connect(path)) as r,
    ):
        assert ask(path, "PRAGMA journal_mode") == [("wal",)]
        reading = r.execute("SELECT * FROM requests")
        answers.replace({("a", 0): "a0"})
        sink.write(records({}))
        assert reading.fetchall() in ([], [1])
        assert len(r.execute("SELECT * FROM requests").fetchall()) == 1


@pytest.mark.parametrize("kind", [SqliteAnswers, SqliteRecords])
@pytest.mark.parametrize("case", ["no database", "a folder", "below a file"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, kind: type, case: str) -> None:
    path = tmp_path / "lexora.db"
    if case == "no database":
        path.write_text("This is a text, and a rather long one at that; no database begins like it." * 100)
    elif case == "a folder":
        path.mkdir()
    else:
        path.write_text("a file")
        path = path / "data" / "lexora.db"
    with pytest.raises(OSError, match=str(tmp_path / "lexora.db")):
        kind(path)


def test_what_is_spent_of_the_windows_is_known_by_user_and_key_and_in_all(path: Path) -> None:
    """What was not forwarded has used nothing."""
    now = 1_795_262_410.0  # 2026-11-21 12:00:10 UTC
    used = {"attempts": 1, "tokens_in": 3, "tokens_out": 4, "cost_usd": 0.5, "user_id": "a"}
    later = {**used, "user_id": "later"}  # in the next minute, of the same month
    nobody = {**used, "user_id": None, "cost_usd": None}
    sent = records(used, {**used, "key_id": "k"}, used, used, used, nobody, later)
    times = (now, now - 9, now - 60, now - 86_400, now - 86_400 * 40, now, now + 50)
    ids = RequestIds(1)
    for record, created_at in zip(sent, times, strict=True):
        record.request_id, record.created_at = ids.new(created_at), created_at
    prepared = Record(ids.new(now), now, "chat.completions", user_id="a", tokens_in=9, cost_usd=0.0)
    with closing(SqliteRecords(path)) as sink:
        sink.write([*sent, prepared])
        minute, day, month = minute_window(now), day_window(now), month_window(now)
        of_minute, of_day, of_month = (sink.spent(each.name, each.ends_at) for each in (minute, day, month))
    assert of_minute["user:a"] == Amounts(2, 14, 1_000_000_000)
    assert of_minute["key:k"].requests == 1
    assert of_minute["user:"].tokens == 7
    assert of_day["user:a"].nanodollars == 1_500_000_000
    assert of_day["key:k"].nanodollars == 500_000_000
    assert of_month["all"].nanodollars == 2_500_000_000
    assert set(of_minute) == {"all", "user:a", "user:", "key:k"}


def test_a_database_that_is_locked_at_the_start_is_an_oserror(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE x (a)")
    with held(path), pytest.raises(OSError, match="locked"):
        SqliteRecords(path)
