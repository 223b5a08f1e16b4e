"""The log: one JSON object a line, the fields of a chat completion named as operators know them."""

import logging
import os
from datetime import UTC, datetime
from typing import Any

import msgspec

from lexora.core.record import Record

_encode = msgspec.json.encode
SERVICE = "lexora"


class JsonLog:
    """A sink for the ledger: a line a request, `chat_completion` or, for failures, `llm_error`.

    `file_descriptor` is where lines go; without `message_text` they hold lengths and no text of the user's.
    """

    def __init__(self, file_descriptor: int, *, message_text: bool = True) -> None:
        self._file_descriptor = file_descriptor
        self.message_text = message_text

    def write(self, records: list[Record]) -> None:
        lines = b"".join([_encode(self._line(record)) + b"\n" for record in records])
        while lines:
            lines = lines[os.write(self._file_descriptor, lines) :]

    def close(self) -> None:
        pass

    def _line(self, record: Record) -> dict[str, Any]:
        failed = record.outcome == "failed"
        line: dict[str, Any] = {
            "timestamp": _iso(record.created_at),
            "level": "ERROR" if record.status >= 500 else "WARNING" if failed else "INFO",
            "service": SERVICE,
            "message": "llm_error" if failed else _MESSAGES[record.endpoint],
            "requestId": record.request_id,
            "userId": record.user_id,
            "origin": record.origin,
            "model": record.model,
            "upstreamModel": record.upstream_model,
            "deployment": record.deployment,
            "stream": record.stream,
            "attempts": record.attempts,
            "tokensIn": record.tokens_in,
            "tokensOut": record.tokens_out,
            "costUsd": record.cost_usd,
            "ttftMs": _tenths(record.ttft_ms),
            "durationMs": _tenths(record.duration_ms),
            "outcome": record.outcome,
            "status": record.status,
        }
        if failed:
            line["errorCode"] = record.error_code
            line["errorMessage"] = record.error_message
        if record.malformed_events:
            line["malformedEvents"] = record.malformed_events
        line["latestUserMessageLength"] = len(record.latest_user_message)
        if self.message_text:
            line["latestUserMessage"] = record.latest_user_message
            line["contextTailPreview"] = record.context_tail
        return line


_MESSAGES = {"chat.completions": "chat_completion", "responses": "prepared_answer"}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _tenths(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)


class JsonFormatter(logging.Formatter):
    """What is not about one request (start, reload, trouble) in the same form."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": _iso(record.created),
            "level": record.levelname,
            "service": SERVICE,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()
