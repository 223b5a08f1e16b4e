"""The journal: what a killed process leaves, and files that are not as they should be."""

import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters import journal as module
from lexora.adapters.journal import Journal, leftovers, recover
from lexora.adapters.sqlite import SqliteRecords
from lexora.core.record import Record, RequestIds

IDS = RequestIds(1)


def record(**facts: Any) -> Record:
    return Record(IDS.new(1.0), 1.0, "chat.completions", **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_what_was_admitted_only_has_failed_with_what_was_reserved(path: Path) -> None:
    sent = record(user_id="日本", tokens_in=5, tokens_out=7, cost_usd=0.5, latest_user_message="my secret")
    Journal(path).admit(sent)
    (left,) = leftovers(path)
    assert (left.request_id, left.user_id, left.tokens_in, left.cost_usd) == (sent.request_id, "日本", 5, 0.5)
    assert (left.outcome, left.status, left.error_code) == ("failed", 500, "gateway_killed")
    assert (left.usage_estimated, left.attempts) == (True, 1)
    assert b"my secret" not in path.read_bytes()


def test_what_was_finished_is_as_it_was_and_what_is_done_is_gone(path: Path) -> None:
    journal = Journal(path)
    first, second, never = record(), record(), record()
    journal.admit(first)
    journal.admit(second)
    first.tokens_out, first.outcome, first.cost_usd = 10**30, "client_left", None
    first.deployment, first.provider, first.origin = (
        "next",
        "openai",
        "paid",
    )  # which was not asked, as the money was out
    journal.finish(first)
    journal.finish(never)
    (left, other) = leftovers(path)
    assert (left.request_id, left.tokens_out, left.outcome, left.cost_usd) == (
        first.request_id, 10**30, "client_left", None,
    )  # fmt: skip
    assert (left.deployment, left.provider, left.origin) == ("next", "openai", "paid")
    assert other.error_code == "gateway_killed"
    journal.done([first.request_id, second.request_id, never.request_id])
    journal.close()
    assert leftovers(path) == []


def test_torn_lines_and_those_of_other_versions_are_no_trouble(path: Path) -> None:
    path.write_bytes(
        b'+["z"]\n{"+":["request_id","created_at","endpoint","origin","new_field"],"-":["request_id","status"]}\n'
        b'+["a",1,"x","moon",[1]]\n-["a",201]\n-["never admitted",200]\n-["a",null]\n-["a"]\n'
        b'+["b"]\n+["b",null,"x",null,0]\n\xff\n[]\n+1\n\n{"request_id":"c","created_at":1}\n+["c",1,"endp'
    )
    journal = Journal(path)
    sent = record()
    journal.admit(sent)
    journal.close()
    journal = Journal(path)  # what is open is written anew, as this version writes
    other, left = leftovers(path)
    assert (other.request_id, other.origin, other.status, other.outcome) == ("a", "moon", 201, "completed")
    assert (left.request_id, left.outcome) == (sent.request_id, "failed")


def test_a_full_disk_is_an_oserror_when_the_room_is_used_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROTATE_BYTES", 2000)
    journal = Journal(path)
    admitted = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(OSError, match=r"No space|too large"):
            for _ in range(1000):
                sent = record()
                journal.admit(sent)
                admitted.append(sent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert len(admitted) > 20  # all the room, not only the half after which a new file should have begun
    after = record()
    journal.admit(after)
    assert [left.request_id for left in leftovers(path)] == [each.request_id for each in [*admitted, after]]


def test_an_end_that_could_not_be_written_is_in_the_next_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    ended, other = record(), record()
    journal.admit(ended)
    with monkeypatch.context() as full, pytest.raises(OSError, match="full"):
        full.setattr(journal, "_write", lambda _: (_ for _ in ()).throw(OSError("full")))
        journal.finish(ended)
    monkeypatch.setattr(journal, "_rotate_at", 0)  # the disk has room again
    journal.admit(other)
    assert [left.error_code for left in leftovers(path)] == [None, "gateway_killed"]


def test_a_long_journal_begins_anew_with_what_is_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROTATE_BYTES", 5000)
    journal = Journal(path)
    waiting = [record() for _ in range(3)]
    for each in waiting:
        journal.admit(each)
    for _ in range(500):
        each = record()
        journal.admit(each)
        journal.finish(each)
        journal.done([each.request_id])
        assert path.stat().st_size < 16_000
    assert {each.request_id for each in waiting} <= {left.request_id for left in leftovers(path)}
    journal.close()
    assert list(path.parent.iterdir()) == [path]
    assert b"\0" not in path.read_bytes()


def test_a_line_that_is_longer_than_the_room_gets_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROTATE_BYTES", 1000)
    journal = Journal(path)
    sent = [record(user_id="u" * 9000), record()]
    for each in sent:
        journal.admit(each)
    assert [left.user_id for left in leftovers(path)] == ["u" * 9000, None]


def test_leftovers_are_recovered_once_and_count_no_record_twice(path: Path) -> None:
    journal = Journal(path)
    kept, open_ = record(user_id="kept"), record()
    journal.admit(kept)
    journal.admit(open_)
    database = path.with_name("lexora.db")
    with closing(SqliteRecords(database)) as sink:
        sink.write([kept])
        assert recover(path, sink) == 2
        assert recover(path, sink) == 0
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT error_code FROM requests ORDER BY request_id").fetchall()
    assert rows == [(None,), ("gateway_killed",)]


def test_what_cannot_be_recovered_now_stays_for_the_next_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    left = record()
    journal.admit(left)
    database = path.with_name("lexora.db")
    with closing(SqliteRecords(database)) as sink, closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            recover(path, sink)
        monkeypatch.setattr(module, "ROTATE_BYTES", 0)
        again = Journal(path)
        for _ in range(20):
            each = record()
            again.admit(each)
            again.done([each.request_id])
        again.close()
        other.rollback()
        assert left.request_id in {each.request_id for each in leftovers(path)}
        assert recover(path, sink) >= 1


WRITER = """
import sys
from pathlib import Path
from lexora.adapters import journal
from lexora.core.record import Record, RequestIds
journal.ROTATE_BYTES = 20_000
opened, ids, done = journal.Journal(Path(sys.argv[1])), RequestIds(), []
print("up", flush=True)
for number in range(10**9):
    record = Record(ids.new(1.0), 1.0, "chat.completions")
    opened.admit(record)
    sys.stdout.write(f"{record.request_id}\\n")
    sys.stdout.flush()
    done.append(record.request_id)
    if len(done) > 20:
        opened.finish(record)
        opened.done([done.pop(0)])
"""


def test_a_process_that_is_killed_while_it_writes_loses_no_request(path: Path) -> None:
    for _ in range(4):
        path.unlink(missing_ok=True)
        out = path.with_name("out")
        with out.open("wb") as output:
            child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=output)
            until = time.monotonic() + 20
            while out.stat().st_size < 50_000 + random.randrange(50_000):
                assert time.monotonic() < until
                time.sleep(0.002)
            child.kill()
            child.wait()
        told = [line.strip() for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
        assert set(told[-20:]) <= {each.request_id for each in leftovers(path)}  # none of these was done
