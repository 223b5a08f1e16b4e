"""The journal: what is being forwarded, on disk before it is sent, so that a killed process leaves no request out.

Lines of JSON: first an object with the names of columns, then for each request an array of what it was admitted with,
and another of what has become of it, if that was worth a note (see `ledger`).
"""

import contextlib
import logging
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from lexora.core.ports import RecordSink
from lexora.core.record import COLUMNS, Record

ROTATE_BYTES = 1024 * 1024
_RETRY_BYTES = 128 * 1024

log = logging.getLogger("lexora")

# When a request is admitted, which it is at every attempt, the first columns are known; those from the second number on
# may change until its end.
_KNOWN, _CHANGING = COLUMNS.index("failed_attempts") + 1, COLUMNS.index("deployment")
_COUNT = len(COLUMNS)

_encode = msgspec.json.encode
_astuple = msgspec.structs.astuple
_HEAD = _encode({"+": COLUMNS[:_KNOWN], "-": ["request_id", *COLUMNS[_CHANGING:]]}) + b"\n"


class Journal:
    """Lines in a file whose room is taken beforehand, until what is still open is written to a new one.

    The file is mapped: what is written to memory is the kernel's at once, and its even if the process is killed, for
    none of the price of a system call. `admit` and `finish` are called from one thread, `done` may be from another.
    What an earlier process has left in the file stays open.
    """

    _room: mmap.mmap
    _end: int  # of what is written
    _rotate_at: int

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._open: dict[str, bytes] = {}
        for request_id, (record, finished) in _read(path).items():
            values = _astuple(record)
            self._open[request_id] = _line(b"+", values[:_KNOWN])
            if finished:
                self._open[request_id] += _line(b"-", values[:1] + values[_CHANGING:_COUNT])
        self._begin()

    def admit(self, record: Record) -> None:
        """Notes a request that is about to be forwarded. Raises OSError, and then it is as if nothing was noted."""
        line = _line(b"+", _astuple(record)[:_KNOWN])
        self._write(line)
        self._open[record.request_id] = line

    def finish(self, record: Record) -> None:
        """Notes what became of an admitted request. Raises OSError; a later line may still say it."""
        if (admitted := self._open.get(record.request_id)) is not None:
            values = _astuple(record)
            line = _line(b"-", values[:1] + values[_CHANGING:_COUNT])
            # Before it is written: should that fail, a later file has it.
            self._open[record.request_id] = admitted + line
            self._write(line)

    def done(self, request_ids: Iterable[str]) -> None:
        """These are kept elsewhere now."""
        for request_id in request_ids:
            self._open.pop(request_id, None)

    def close(self) -> None:
        if self._room.closed:
            return
        self._room.close()
        with contextlib.suppress(OSError):
            os.truncate(self._path, self._end if self._open else 0)

    def _write(self, line: bytes) -> None:
        end = self._end + len(line)
        if end > self._rotate_at:
            self._rotate(len(line))
            end = self._end + len(line)
        self._room[self._end : end] = line
        self._end = end

    def _rotate(self, wanted: int) -> None:
        """Begins a new file. Raises OSError if that fails and there is no room for so many bytes in the old one."""
        old = self._room
        try:
            self._begin(wanted)
            old.close()
        except OSError as error:
            if self._end + wanted > len(old):
                raise
            self._rotate_at = min(len(old), max(self._end + wanted, self._rotate_at + _RETRY_BYTES))
            log.warning("the journal stays as long as it is for now: %s", error)

    def _begin(self, wanted: int = 0) -> None:
        """Puts a file in place that has what is open and room for as much again and more. Raises OSError."""
        new = self._path.with_name(f"{self._path.name}.new")
        # One call of C, so whoever is `done` meanwhile is in it or is not.
        lines = _HEAD + b"".join(list(self._open.values()))
        rotate_at = ROTATE_BYTES + 2 * len(lines) + wanted
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Half of it is for the time when a full disk lets no new file begin.
            os.posix_fallocate(file, 0, 2 * rotate_at)
            room = mmap.mmap(file, 2 * rotate_at)
            room[: len(lines)] = lines
            new.replace(self._path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        self._room, self._end, self._rotate_at = room, len(lines), rotate_at


def recover(path: Path, records: RecordSink) -> int:
    """Writes what earlier processes have left in the journal to a sink that passes over what it has. Returns how many.

    Raises what the sink raises, and OSError; nothing is lost then.
    """
    left = leftovers(path)
    if left:
        records.write(left)
        os.truncate(path, 0)
    return len(left)


def leftovers(path: Path) -> list[Record]:
    """The records in a journal. A request that never finished has failed, with what was reserved for it as its use.

    Lines that are torn, or of another form, are passed over. Raises OSError.
    """
    records = []
    for record, finished in _read(path).values():
        if not finished:
            record.outcome = "failed"
            record.status = 500
            record.error_code = "gateway_killed"
            record.error_message = "The gateway was killed before it had noted what became of the request."
            record.usage_estimated = True
            record.attempts = max(record.attempts, 1)
        records.append(record)
    return records


def _read(path: Path) -> dict[str, tuple[Record, bool]]:
    """What stands of each request, and whether it has finished."""
    try:
        lines = path.read_bytes().rstrip(b"\0").split(b"\n")  # of the room that is not used yet, there are zeros
    except FileNotFoundError:
        return {}
    names: dict[str, list[str]] = {}
    found: dict[str, tuple[Record, bool]] = {}
    for line in lines:
        try:
            if line.startswith(b"{"):
                names = msgspec.json.decode(line, type=dict[str, list[str]])
                continue
            values = msgspec.json.decode(line[1:], type=list[Any])
            facts = dict(zip(names[chr(line[0])], values, strict=True))
            before = found.get(facts["request_id"])
            finished = line.startswith(b"-")
            if finished and before is not None:
                facts = {**msgspec.structs.asdict(before[0]), **facts}
            found[facts["request_id"]] = Record(**msgspec.structs.asdict(msgspec.convert(facts, _Facts))), finished
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, ValueError, TypeError):
            continue
    return found


# The columns of a record. Literals are read as any text, as another version may know more of them.
_TEXTS = {"origin": str | None, "outcome": str, "priority": str | None}
_Facts: Any = msgspec.defstruct(
    "_Facts",
    [
        (field.name, _TEXTS.get(field.name, field.type))
        if field.default is msgspec.NODEFAULT
        else (field.name, _TEXTS.get(field.name, field.type), field.default)
        for field in msgspec.structs.fields(Record)[:_COUNT]
    ],
)


def _line(kind: bytes, values: tuple[Any, ...]) -> bytes:
    """Raises OSError for what JSON cannot hold."""
    try:
        return kind + _encode(values) + b"\n"
    except ValueError as error:
        raise OSError(f"the journal cannot hold request {values[0]}: {error}") from None
