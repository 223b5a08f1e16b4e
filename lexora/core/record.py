"""The one record of a request. Logs, stats, usage and budgets all derive from it."""

from typing import Literal

import msgspec

Origin = Literal["edge", "fixed", "cache", "own", "paid"]
Outcome = Literal["completed", "failed", "client_left"]


class Record(msgspec.Struct):
    """What became of one request. Times are milliseconds, `created_at` seconds since the epoch.

    `usage_estimated` says that the upstream's count never came (a client that left, a stream that broke).
    `cost_usd` is None where the price is not known; `ttft_ms` where no token was sent. The two texts are for the log alone: no table keeps them.
    """

    request_id: str
    created_at: float
    endpoint: str
    user_id: str | None = None
    model: str = ""
    upstream_model: str = ""
    deployment: str = ""
    origin: Origin | None = None
    stream: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    usage_estimated: bool = False
    cost_usd: float | None = 0.0
    attempts: int = 0
    malformed_events: int = 0
    ttft_ms: float | None = None
    duration_ms: float = 0.0
    outcome: Outcome = "completed"
    status: int = 200
    error_code: str | None = None
    error_message: str | None = None
    latest_user_message: str = ""
    context_tail: str = ""



def new_request_id(now: float, random_bits: int) -> str:
    """32 hex digits: milliseconds since the epoch, then 80 random bits, so that ids sort by time."""
    return f"{int(now * 1e3):012x}{random_bits & (1 << 80) - 1:020x}"
