"""The ledger: batches, sinks that fail for a while, and an end at which nothing is lost."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lexora.adapters import ledger as module
from lexora.adapters.journal import Journal, leftovers
from lexora.adapters.ledger import FLUSH_SECONDS, BatchedLedger, DirectLedger
from lexora.core.record import Record, RequestIds


class Sink:
    """Keeps batches; fails, or does not come back, while it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failing = False
        self.attempts = 0
        self.closed = 0
        self.open = threading.Event()
        self.open.set()

    @property
    def written(self) -> list[str]:
        return [request_id for batch in self.batches for request_id in batch]

    def write(self, records: list[Record]) -> None:
        self.attempts += 1
        self.open.wait(10)
        if self.failing:
            raise OSError("database is locked")
        self.batches.append([record.request_id for record in records])

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def sinks() -> tuple[Sink, Sink]:
    return Sink(), Sink()


@pytest.fixture
def ledger(sinks: tuple[Sink, Sink]) -> Iterator[BatchedLedger]:
    ledger = BatchedLedger(sinks)
    yield ledger
    for sink in sinks:
        sink.failing = False
        sink.open.set()
    if not sinks[0].closed:
        ledger.close()


def add(ledger: BatchedLedger | DirectLedger, count: int, *, process: int = 1) -> list[str]:
    ids = RequestIds(process)
    batch = [Record(ids.new(1), 1.0, "chat.completions") for _ in range(count)]
    for record in batch:
        ledger.add(record)
    return [record.request_id for record in batch]


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_every_sink_gets_every_record_in_order_and_in_batches(ledger: BatchedLedger, sinks: tuple[Sink, Sink]) -> None:
    ids = add(ledger, 1000)
    for sink in sinks:
        wait_for(lambda sink=sink: len(sink.written) == 1000)
        assert sink.written == ids
        assert len(sink.batches) <= 3


def test_a_record_is_written_well_within_a_second(ledger: BatchedLedger, sinks: tuple[Sink, Sink]) -> None:
    """So that a process that is killed loses the last second at most."""
    assert FLUSH_SECONDS <= 0.5
    for _ in range(3):
        add(ledger, 1)
        started = time.monotonic()
        count = len(sinks[1].batches)
        wait_for(lambda count=count: len(sinks[1].batches) > count)
        assert time.monotonic() - started < 0.9


def test_a_sink_without_news_is_left_alone(ledger: BatchedLedger, sinks: tuple[Sink, Sink]) -> None:
    time.sleep(3 * FLUSH_SECONDS)
    assert [sink.attempts for sink in sinks] == [0, 0]


def test_a_sink_that_fails_for_a_while_catches_up_and_holds_up_no_other(
    ledger: BatchedLedger, sinks: tuple[Sink, Sink], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lexora")
    failing, well = sinks
    failing.failing = True
    ids = add(ledger, 10)
    wait_for(lambda: failing.attempts >= 2)
    ids += add(ledger, 10, process=2)
    wait_for(lambda: len(well.written) == 20)
    assert failing.written == []
    failing.failing = False
    wait_for(lambda: len(failing.written) == 20)
    assert failing.written == well.written == ids
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "the ledger cannot write to Sink and will try again: database is locked",
        "the ledger writes to Sink again",
    ]


def test_the_end_writes_what_is_left_and_closes_the_sinks_once(ledger: BatchedLedger, sinks: tuple[Sink, Sink]) -> None:
    ids = add(ledger, 5000)
    ledger.close()
    for sink in sinks:
        assert sink.written == ids
        assert sink.closed == 1


def test_the_end_waits_for_a_sink_that_recovers(ledger: BatchedLedger, sinks: tuple[Sink, Sink]) -> None:
    sinks[0].failing = True
    ids = add(ledger, 10)
    threading.Timer(0.6, lambda: setattr(sinks[0], "failing", False)).start()
    ledger.close()
    assert sinks[0].written == sinks[1].written == ids


def test_the_end_does_not_wait_forever_and_says_what_is_lost(
    ledger: BatchedLedger, sinks: tuple[Sink, Sink], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.4)
    sinks[0].failing = True
    ids = add(ledger, 10)
    ledger.close()
    assert sinks[1].written == ids
    assert "the ledger could not write 10 records, and they are lost" in caplog.text


def test_adding_never_waits_for_a_sink(ledger: BatchedLedger, sinks: tuple[Sink, Sink]) -> None:
    sinks[0].open.clear()
    ids = add(ledger, 1)
    wait_for(lambda: sinks[0].attempts == 1)
    started = time.monotonic()
    ids += add(ledger, 10_000, process=2)
    assert time.monotonic() - started < 1
    sinks[0].open.set()
    wait_for(lambda: len(sinks[1].written) == 10_001)
    assert sinks[0].written == sinks[1].written == ids


def test_a_sink_that_never_recovers_does_not_eat_the_memory(
    ledger: BatchedLedger, sinks: tuple[Sink, Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 100)
    failing, well = sinks
    failing.failing = True
    ids = add(ledger, 500)
    wait_for(lambda: len(well.written) == 500)
    wait_for(lambda: failing.attempts >= 2)
    failing.failing = False
    wait_for(lambda: bool(failing.batches))
    assert failing.written == ids[-100:]


def test_threads_may_add_at_the_same_time(ledger: BatchedLedger, sinks: tuple[Sink, Sink]) -> None:
    threads = [threading.Thread(target=add, args=(ledger, 1000), kwargs={"process": number}) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert len(set(sinks[0].written)) == len(sinks[0].written) == 4000


# --- with a journal ---


def test_a_record_is_in_the_journal_until_the_first_sink_has_it(sinks: tuple[Sink, Sink], tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ledger = BatchedLedger(sinks, Journal(path))
    sinks[0].failing = True
    admitted = Record(RequestIds(1).new(1), 1.0, "chat.completions")
    ledger.admit(admitted)
    assert [left.error_code for left in leftovers(path)] == ["gateway_killed"]
    ledger.add(admitted)
    prepared = add(ledger, 1, process=2)
    wait_for(lambda: sinks[0].attempts >= 2 and len(sinks[1].written) == 2)
    assert [(left.request_id, left.error_code) for left in leftovers(path)] == [(admitted.request_id, None)]
    sinks[0].failing = False
    ledger.close()
    assert sinks[0].written == [admitted.request_id, *prepared]
    assert leftovers(path) == []


class Free:
    """Free requests that end at once, and what the journal has of them then: None if what they came to."""

    def __init__(self, ledger: BatchedLedger, path: Path) -> None:
        self.ledger, self.path, self.ids = ledger, path, RequestIds(1)

    def end(self, cost: float = 0.0) -> str | None:
        record = Record(self.ids.new(1), time.time(), "chat.completions", origin="own", cost_usd=cost)
        self.ledger.admit(record)
        self.ledger.add(record)
        return next(left.error_code for left in leftovers(self.path) if left.request_id == record.request_id)


@pytest.mark.parametrize("hangs", [False, True])
def test_what_a_free_request_came_to_is_noted_only_while_the_first_sink_is_not_well(
    sinks: tuple[Sink, Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(module, "JUST_SECONDS", 0.6)
    ledger = BatchedLedger(sinks, Journal(tmp_path / "journal"))
    free = Free(ledger, tmp_path / "journal")
    assert [free.end(), free.end(0.1)] == ["gateway_killed", None]
    wait_for(lambda: len(sinks[0].written) == 2)
    sinks[0].failing = not hangs
    if hangs:  # the other one, so that the first is not asked
        sinks[1].open.clear()
    wait_for(lambda: free.end() is None)
    sinks[0].failing = False
    sinks[1].open.set()
    wait_for(lambda: free.end() == "gateway_killed")
    ledger.close()
    assert leftovers(tmp_path / "journal") == []


@pytest.mark.parametrize("hangs", [False, True])
def test_an_end_that_gives_up_knows_what_free_requests_came_to(
    sinks: tuple[Sink, Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.2)
    path = tmp_path / "journal"
    ledger = BatchedLedger(sinks, Journal(path))
    free = Free(ledger, path)
    if hangs:
        sinks[1].open.clear()
        free.end()
        wait_for(lambda: sinks[1].attempts == 1)
    else:
        sinks[0].failing = True
    free.end()
    ledger.close()
    assert [left.outcome for left in leftovers(path)][-1] == "completed"
    sinks[1].open.set()


def test_what_is_given_up_in_the_end_stays_in_the_journal(
    sinks: tuple[Sink, Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.3)
    path = tmp_path / "journal"
    ledger = BatchedLedger(sinks, Journal(path))
    sinks[0].failing = True
    record = Record(RequestIds(1).new(1), 1.0, "chat.completions", status=418)
    ledger.admit(record)
    ledger.add(record)
    ledger.close()
    assert [(left.request_id, left.status) for left in leftovers(path)] == [(record.request_id, 418)]


def test_the_end_does_not_wait_for_a_sink_that_hangs(
    sinks: tuple[Sink, Sink], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.2)
    ledger = BatchedLedger(sinks)
    sinks[0].open.clear()
    add(ledger, 1)
    ledger.close()
    assert "is left alone" in caplog.text
    sinks[0].open.set()


# --- at once ---


def test_a_record_is_in_every_sink_when_add_returns(sinks: tuple[Sink, Sink]) -> None:
    ids: list[str] = []
    direct = DirectLedger(sinks)
    for process in range(3):
        ids += add(direct, 1, process=process)
        for sink in sinks:
            assert sink.batches == [[request_id] for request_id in ids]


def test_a_sink_that_fails_keeps_no_record_from_the_others(
    sinks: tuple[Sink, Sink], caplog: pytest.LogCaptureFixture
) -> None:
    failing, well = sinks
    failing.failing = True
    ids = add(DirectLedger(sinks), 2)
    assert (failing.written, well.written) == ([], ids)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", f"record {request_id} is not in Sink: database is locked") for request_id in ids
    ]
    assert all(record.exc_info is None for record in caplog.records)


def test_a_sink_that_is_well_again_gets_what_comes_from_then_on(sinks: tuple[Sink, Sink]) -> None:
    direct = DirectLedger(sinks)
    sinks[0].failing = True
    add(direct, 1)
    sinks[0].failing = False
    ids = add(direct, 1, process=2)
    assert sinks[0].written == ids
    assert len(sinks[1].written) == 2
