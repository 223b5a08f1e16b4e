"""The one record of a request. Logs, stats, usage and budgets all derive from it."""

from random import SystemRandom
from typing import Literal

import msgspec

Origin = Literal["edge", "fixed", "cache", "own", "paid"]
Outcome = Literal["completed", "failed", "client_left"]
Priority = Literal["high", "normal", "low"]


class Record(msgspec.Struct, gc=False):
    """What became of one request. Times are milliseconds, `created_at` seconds since the epoch.

    `usage_estimated` says that the upstream's count never came (a client that left, a stream that broke).
    `cost_usd` is None where the price is not known; `saved_usd` is what an answer that no model gave would have cost,
    None for others and where no price is known; `ttft_ms` where no token was sent. `queue_ms` is what it waited for
    a place, `upstream_ms` what its calls of upstreams took. `failed_attempts` are those that another followed, as JSON:
    `[{"deployment": …, "error": …, "ms": …, "tokens": …}]`, empty if there is none. Until it is settled, a request that
    was admitted counts what is reserved for it. The fields from `prompt` on are in no table, but for that itself in
    SQLite's: the text of a lone prompt to which there is no prepared answer yet. `response_id` is the answer's `id`,
    where an upstream gave one.
    """

    request_id: str
    created_at: float
    endpoint: str
    user_id: str | None = None
    key_id: str | None = None
    model: str = ""
    stream: bool = False
    priority: Priority | None = None
    deployment: str = ""
    provider: str = ""
    origin: Origin | None = None
    upstream_model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    attempts: int = 0
    failed_attempts: str = ""
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    usage_estimated: bool = False
    saved_usd: float | None = None
    malformed_events: int = 0
    queue_ms: float | None = None
    queue_position: int | None = None
    upstream_ms: float | None = None
    ttft_ms: float | None = None
    duration_ms: float = 0.0
    outcome: Outcome = "completed"
    status: int = 200
    error_code: str | None = None
    error_message: str | None = None
    prompt: str | None = None
    response_headers: tuple[tuple[bytes, bytes], ...] = ()
    trace_parent: str = ""
    response_id: str = ""
    latest_user_message: str = ""
    context_tail: str = ""


# What tables keep of a record.
COLUMNS = list(Record.__struct_fields__[: Record.__struct_fields__.index("prompt")])

_system_random = SystemRandom()


def _digits(process: int) -> str:
    return f"{process & (1 << 48) - 1:012x}"


def first_id(since: float) -> str:
    """Ids of requests since then, in seconds since the epoch, do not sort before it."""
    return f"{max(0, int(since * 1e3)):012x}"


class RequestIds:
    """Makes request ids: 32 hex digits that sort by time and are unique across processes.

    Milliseconds since the epoch (12 digits), `process` (48 bits, 12 digits), a count (8 digits).
    """

    def __init__(self, process: int | None = None) -> None:
        self._process = "" if process is None else _digits(process)
        self._count = 0
        self._milliseconds = -1
        self._begins = ""

    def new(self, now: float) -> str:
        if not self._process:
            # Not sooner, and not from `random`: a process may have been copied after its start (Lambda's SnapStart).
            self._process = _digits(_system_random.getrandbits(48))
        self._count = (self._count + 1) & 0xFFFFFFFF
        milliseconds = int(now * 1e3)
        if milliseconds != self._milliseconds:
            self._milliseconds, self._begins = milliseconds, f"{milliseconds:012x}{self._process}"
        return self._begins + "%08x" % self._count  # noqa: UP031 - twice as fast
