"""The log: one JSON object a line, the fields of a chat completion named as operators know them."""

import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import UNSET, UnsetType

from lexora.core.record import Record

SERVICE = "lexora"
_FRAMES = 6
# Of an endpoint's requests; of others, the endpoint's name.
_MESSAGES = {
    **dict.fromkeys(("chat.completions", "messages", "responses.create"), "chat_completion"),
    "responses": "prepared_answer",
}

_LEVELS = {logging.INFO: "INFO", logging.WARNING: "WARNING", logging.ERROR: "ERROR"}

_encode = msgspec.json.encode
_encode_lines = msgspec.json.Encoder().encode_lines


class _Line(msgspec.Struct, rename="camel", omit_defaults=True):
    """The fields of a line, camelCased on the wire. Those with a default are left out where they say nothing."""

    timestamp: str
    level: str
    service: str
    message: str
    request_id: str
    user_id: str | None
    origin: str | None
    model: str
    upstream_model: str
    deployment: str
    stream: bool
    attempts: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    ttft_ms: float | None
    duration_ms: float
    outcome: str
    status: int
    latest_user_message_length: int
    latest_user_message: str | UnsetType = UNSET
    context_tail_preview: str | UnsetType = UNSET
    error_code: str | None = None
    error_message: str | None = None
    malformed_events: int = 0
    key_id: str | None = None
    priority: str | None = None
    queue_wait_ms: float | None = None
    upstream_ms: float | None = None
    saved_usd: float | None = None
    failed_attempts: msgspec.Raw | UnsetType = UNSET
    lone_prompt: bool = False  # the message is all that was asked, plainly, and a prepared answer would do


class JsonLog:
    """A sink for the ledger: a line a request, `chat_completion` or, for failures, `llm_error`.

    `write` puts lines where they go and says how many bytes it took, as os.write does. Without `message_text`, they
    hold lengths and no text of the user's. Lines below `level` are left out.
    """

    def __init__(self, write: Callable[[bytes], int], *, message_text: bool = True, level: int = logging.INFO) -> None:
        self._write = write
        self.message_text = message_text
        self.level = level

    def write(self, records: list[Record]) -> None:
        lines = _encode_lines([self._line(rec, level) for rec in records if (level := _level(rec)) >= self.level])
        while lines:
            lines = lines[self._write(lines) :]

    def close(self) -> None:
        pass

    def _line(self, record: Record, level: int) -> _Line:
        failed = record.outcome == "failed"
        ttft = record.ttft_ms
        return _Line(
            iso(record.created_at),
            _LEVELS[level],
            SERVICE,
            "llm_error" if failed else _MESSAGES.get(record.endpoint, record.endpoint),
            record.request_id,
            record.user_id,
            record.origin,
            record.model,
            record.upstream_model,
            record.deployment,
            record.stream,
            record.attempts,
            record.tokens_in,
            record.tokens_out,
            record.cost_usd,
            None if ttft is None else _to_the_microsecond(ttft),
            _to_the_microsecond(record.duration_ms),
            record.outcome,
            record.status,
            len(record.latest_user_message),
            record.latest_user_message if self.message_text else UNSET,
            record.context_tail if self.message_text else UNSET,
            record.error_code,
            record.error_message,
            record.malformed_events,
            record.key_id,
            record.priority,
            None if record.queue_ms is None else _to_the_microsecond(record.queue_ms),
            None if record.upstream_ms is None else _to_the_microsecond(record.upstream_ms),
            record.saved_usd,
            msgspec.Raw(record.failed_attempts) if record.failed_attempts else UNSET,
            record.prompt is not None,
        )


def _to_the_microsecond(milliseconds: float) -> float:
    return int(milliseconds * 1e3 + 0.5) / 1e3  # `round` takes three times as long


def _level(record: Record) -> int:
    if record.outcome != "failed":
        return logging.INFO
    return logging.ERROR if record.status >= 500 else logging.WARNING


_MILLISECONDS = [f".{number:03d}Z" for number in range(1000)]


@lru_cache(maxsize=2)
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def iso(seconds: float) -> str:
    """Seconds since the epoch as in 2026-01-16T09:30:00.123Z."""
    whole = int(seconds)
    return _iso_second(whole) + _MILLISECONDS[int((seconds - whole) * 1e3)]


class JsonFormatter(logging.Formatter):
    """What is not about one request (start, reload, trouble) in the same form."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": iso(record.created),
            "level": record.levelname,
            "service": SERVICE,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["location"] = location(record.exc_info[2])
        return _encode(line).decode()


def location(trace: TracebackType | None) -> str:
    """Where an exception was raised, as in "app.py:12 > chat.py:40": without what a stack trace shows besides."""
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
