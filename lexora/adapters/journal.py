"""The journal: what is being forwarded, on disk before it is sent, so that a killed process leaves no request out."""

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

_COUNT = len(COLUMNS)
_encode = msgspec.json.encode


class Journal:
    """Lines of JSON in a file whose room is taken beforehand, until what is still open is written to a new one.

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
        self._open = _last_lines(path)
        self._begin()

    def admit(self, record: Record) -> None:
        """Notes a request that is about to be forwarded. Raises OSError, and then it is as if nothing was noted."""
        line = _line(record, finished=False)
        self._write(line)
        self._open[record.request_id] = line

    def finish(self, record: Record) -> None:
        """Notes what became of an admitted request. Raises OSError; a later line may still say it."""
        if record.request_id in self._open:
            line = self._open[record.request_id] = _line(record, finished=True)
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
        if self._end + len(line) > self._rotate_at:
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
        lines = b"".join(list(self._open.values()))
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

    Lines that are torn, or that no version of ours has written, are passed over. Raises OSError.
    """
    return [_record(line) for line in _last_lines(path).values()]


def _record(line: bytes) -> Record:
    fields: dict[str, Any] = msgspec.json.decode(line)
    finished = fields.get("finished", False)
    record = Record(**{name: value for name, value in fields.items() if name in COLUMNS})
    if not finished:
        record.outcome = "failed"
        record.status = 500
        record.error_code = "gateway_killed"
        record.error_message = "The gateway was killed while it forwarded the request."
        record.usage_estimated = True
        record.attempts = max(record.attempts, 1)
    return record


def _last_lines(path: Path) -> dict[str, bytes]:
    """The last line of each request, as it stands there."""
    try:
        lines = path.read_bytes().rstrip(b"\0").split(b"\n")  # of the room that is not used yet, there are zeros
    except FileNotFoundError:
        return {}
    found: dict[str, bytes] = {}
    for line in lines:
        try:
            request_id = _check(line).request_id
        except msgspec.DecodeError:
            continue
        found[request_id] = line + b"\n"
    return found


# A line: the columns that are not at their default, and whether the request has finished. Literals are read as any
# text, as another version may know more of them.
_TEXTS = {"origin": str | None, "outcome": str, "priority": str | None}
_Line: Any = msgspec.defstruct(
    "_Line",
    [
        (field.name, _TEXTS.get(field.name, field.type))
        if field.default is msgspec.NODEFAULT
        else (field.name, _TEXTS.get(field.name, field.type), field.default)
        for field in msgspec.structs.fields(Record)[:_COUNT]
    ]
    + [("finished", bool, False)],
    omit_defaults=True,
    gc=False,
)
_check = msgspec.json.Decoder(_Line).decode


def _line(record: Record, *, finished: bool) -> bytes:
    """Raises OSError for a record that JSON cannot hold."""
    try:
        return _encode(_Line(*msgspec.structs.astuple(record)[:_COUNT], finished)) + b"\n"
    except ValueError as error:
        raise OSError(f"the journal cannot hold request {record.request_id}: {error}") from None
