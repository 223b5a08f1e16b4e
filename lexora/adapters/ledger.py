"""The ledger: in batches behind the requests' backs, or at once where a process may be frozen after each."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from lexora.core.ports import RecordSink
from lexora.core.record import Record

FLUSH_SECONDS = 0.25
JUST_SECONDS = 1.0
CLOSE_SECONDS = 10.0
# Beyond this, records that a broken sink does not take are given up, oldest first, rather than eat the memory.
MOST_WAITING = 200_000

log = logging.getLogger("lexora")


class Notes(Protocol):
    """Where requests are written down before they are forwarded, until they are in the first sink."""

    def admit(self, record: Record) -> None:
        """Raises OSError."""
        ...

    def finish(self, record: Record) -> None:
        """Raises OSError. A record that was not admitted is passed over."""
        ...

    def done(self, request_ids: Iterable[str]) -> None: ...

    def close(self) -> None: ...


class BatchedLedger:
    """The port `Ledger`. A record is in every sink within FLUSH_SECONDS and what one batch takes to write.

    `close` writes what is left, so an orderly end loses nothing. Of what is younger, a killed process has what the
    journal says: that a request was forwarded, and what it came to, unless that was free and the first sink was well
    within JUST_SECONDS before. A sink that fails gets its records again with the next batch; in the end it has
    CLOSE_SECONDS to recover. What is given up then, or because too much waits, stays in the journal for the next start,
    as far as it was admitted.
    """

    def __init__(self, sinks: Sequence[RecordSink], journal: Notes | None = None) -> None:
        self._journal = journal
        self.admit: Callable[[Record], None] = journal.admit if journal is not None else _note_nothing
        self._waiting: deque[Record] = deque()
        self._was_well = time.time()  # when the first sink last had all that there was for it
        self._backlogs: list[tuple[RecordSink, list[Record]]] = [(sink, []) for sink in sinks]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        # What a free request came to is worth no note for the moment until the first sink has it.
        if self._journal is not None and (
            record.cost_usd
            or record.origin != "own"
            or record.created_at + record.duration_ms / 1e3 > self._was_well + JUST_SECONDS
        ):
            self._finish(self._journal, record)
        self._waiting.append(record)

    def _finish(self, journal: Notes, record: Record) -> None:
        try:  # noqa: SIM105 - every request comes by here, and `suppress` is three calls
            journal.finish(record)
        except OSError:  # the record is in memory still, and its admission in the journal
            pass

    def close(self) -> None:
        """Writes what is left and closes the sinks. Does not wait for a sink that hangs."""
        self._stop.set()
        self._thread.join(2 * CLOSE_SECONDS)
        if self._journal is not None:
            for record in [*self._backlogs[0][1], *self._waiting]:  # what is given up
                self._finish(self._journal, record)
        if self._thread.is_alive():
            log.error("the ledger is still writing after %g s and is left alone", 2 * CLOSE_SECONDS)
            return
        for sink, _ in self._backlogs:
            sink.close()
        if self._journal is not None:
            self._journal.close()

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self._flush()
        give_up = time.monotonic() + CLOSE_SECONDS
        while lost := self._flush():
            if time.monotonic() > give_up:
                log.error("the ledger could not write %d records, and they are lost", lost)
                break
            time.sleep(FLUSH_SECONDS)

    def _flush(self) -> int:
        """Writes what is waiting. Returns how many records are left because their sink failed."""
        now = time.time()
        fresh = [self._waiting.popleft() for _ in range(len(self._waiting))]
        for sink, backlog in self._backlogs:
            was_failing = bool(backlog)
            backlog += fresh
            if not backlog:
                continue
            try:
                sink.write(backlog)
            except Exception as error:  # noqa: BLE001 - whatever a sink fails with, the records must not be lost
                del backlog[:-MOST_WAITING]
                if not was_failing:
                    log.error("the ledger cannot write to %s and will try again: %s", type(sink).__name__, error)  # noqa: TRY400 - no stack trace: it is not a bug
            else:
                if sink is self._backlogs[0][0] and self._journal is not None:
                    self._journal.done([record.request_id for record in backlog])
                backlog.clear()
                if was_failing:
                    log.info("the ledger writes to %s again", type(sink).__name__)
        left = [len(backlog) for _, backlog in self._backlogs]
        if not any(left[:1]):
            self._was_well = now
        return sum(left)


def _note_nothing(_: Record) -> None:
    pass


class DirectLedger:
    """The port `Ledger` for a process that answers one request at a time and may be frozen after it, as in a Lambda.

    A record is in every sink when `add` returns. What a sink does not take is lost to it, and said in the log.
    """

    def __init__(self, sinks: Sequence[RecordSink]) -> None:
        self._sinks = sinks

    def admit(self, record: Record) -> None:
        pass

    def add(self, record: Record) -> None:
        for sink in self._sinks:
            try:
                sink.write([record])
            except Exception as error:  # noqa: BLE001 - as above
                log.error("record %s is not in %s: %s", record.request_id, type(sink).__name__, error)  # noqa: TRY400 - no bug
