"""Errors in Anthropic's envelope (https://platform.claude.com/docs/en/api/errors)."""

import msgspec

from lexora.core.errors import LexoraError
from lexora.providers.errors import STATUS_OF_TYPE

_TYPES = {status: name for name, status in STATUS_OF_TYPE.items()} | {408: "timeout_error", 503: "overloaded_error"}


def error_body(error: LexoraError, request_id: str | None) -> bytes:
    """The body of an error response, and the data of the event `error` of a stream."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return msgspec.json.encode(
        {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}
    )
