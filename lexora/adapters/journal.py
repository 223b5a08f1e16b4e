"""The journal: what is being forwarded, on disk before it is sent, so that a killed process leaves no request out."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from lexora.core.ports import RecordSink
from lexora.core.record import COLUMNS, Record

ROTATE_BYTES = 8 * 1024 * 1024
_RETRY_BYTES = 1024 * 1024
_MOST_FILES = 10  # of gateways that share a folder, each has its own

log = logging.getLogger("lexora")

_COUNT = len(COLUMNS)
_encode = msgspec.json.encode


class Journal:
    """Lines of JSON in a file that only grows, until what is still open is written to a new one in its place.

    `admit` and `finish` are called from one thread, `done` may be from another. While another gateway holds the file,
    `path` with a number is used. What an earlier process has left there stays open.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path, self._file = _open_first(path)
        try:
            self._open: dict[str, bytes] = _last_lines(self._path)
            self._size = os.fstat(self._file).st_size
        except OSError:
            os.close(self._file)
            raise
        self._rotate_at = max(ROTATE_BYTES, 2 * self._size)
        self._torn = self._size > 0  # for all we know

    def admit(self, record: Record) -> None:
        """Notes a request that is about to be forwarded. Raises OSError, and then it is as if nothing was noted."""
        before = self._open.get(record.request_id)
        line = self._open[record.request_id] = _line(record, finished=False)
        try:
            self._write(line)
        except OSError:
            if before is None:
                self._open.pop(record.request_id, None)
            else:
                self._open[record.request_id] = before
            raise

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
        if self._file < 0:
            return
        if not self._open:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
        os.close(self._file)
        self._file = -1

    def _write(self, line: bytes) -> None:
        if self._size > self._rotate_at:
            self._rotate()
        if self._torn:  # whatever stands there, this is a line of its own
            line = b"\n" + line
        self._torn = True
        written = os.write(self._file, line)
        self._size += written
        if written < len(line):
            raise OSError(f"{self._path}: only {written} of {len(line)} bytes were written; is the disk full?")
        self._torn = False

    def _rotate(self) -> None:
        """Begins a new file with what is open, which includes the line that is about to be written."""
        new = self._path.with_name(f"{self._path.name}.new")
        # One call of C, so whoever is `done` meanwhile is in it or is not.
        lines = b"".join(list(self._open.values()))
        try:
            file = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.write(file, lines) < len(lines):
                    raise OSError("a short write")
                new.replace(self._path)
            except OSError:
                os.close(file)
                new.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._rotate_at = self._size + _RETRY_BYTES
            log.warning("the journal stays as long as it is for now: %s", error)
            return
        os.close(self._file)
        self._file, self._size, self._torn = file, len(lines), False
        self._rotate_at = max(ROTATE_BYTES, 2 * self._size)


def recover(path: Path, records: RecordSink) -> int:
    """Writes what earlier processes have left in the journal to a sink that passes over what it has. Returns how many.

    What another gateway is writing to at the moment is left alone. Raises what the sink raises, and OSError; nothing is
    lost then.
    """
    count = 0
    for name in _names(path):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            file = os.open(name, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left = leftovers(name)
                if left:
                    records.write(left)
                    count += len(left)
                os.ftruncate(file, 0)
            finally:
                os.close(file)
    return count


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
        lines = path.read_bytes().split(b"\n")
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


def _names(path: Path) -> list[Path]:
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, _MOST_FILES))]


def _open_first(path: Path) -> tuple[Path, int]:
    """The first file that no other gateway holds. Raises OSError."""
    for name in _names(path):
        for _ in range(3):
            file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if name.stat().st_ino == os.fstat(file).st_ino:
                    return name, file
            except BlockingIOError:
                os.close(file)
                break
            except OSError:
                os.close(file)
                raise
            os.close(file)  # its holder has put a new one in its place meanwhile
    raise OSError(f"{path}: {_MOST_FILES} gateways share this folder; choose another for the next")
