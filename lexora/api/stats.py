"""GET /stats."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from lexora.api.http import send_json
from lexora.core.errors import SOON, InvalidRequest, LexoraError
from lexora.core.stats import ERRORS_SECONDS, StatsSource, report

MOST_HOURS = 744
DEFAULT_HOURS = 24
KEPT_SECONDS = 1.0

Allow = Callable[[Scope], Awaitable[None]]


class StatsUnavailable(LexoraError):
    status = 503
    type = "service_unavailable"
    default_code = "stats_unavailable"
    default_headers = SOON


class StatsEndpoint:
    """What became of the requests of the last 24 hours, or as many as `?hours=` says.

    `allow` raises for whoever must not see it. `live` tells what is so at the moment, under names of its own: queues,
    circuits. A report is kept for a second, and whoever asks while one is made waits for the same.
    """

    def __init__(self, source: StatsSource, allow: Allow, live: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._source = source
        self._allow = allow
        self._live = live
        self._making = asyncio.Lock()
        self._kept: tuple[int, float, dict[str, Any]] = (0, 0.0, {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._allow(scope)
        hours = _hours(scope)
        async with self._making:
            of, made_at, body = self._kept
            if of != hours or time.monotonic() - made_at > KEPT_SECONDS:
                try:
                    body = await asyncio.to_thread(self._report, hours)
                except OSError as error:
                    raise StatsUnavailable(f"The records cannot be read: {error}") from None
                self._kept = (hours, time.monotonic(), body)
        await send_json(scope, send, 200, {**body, **self._live()})

    def _report(self, hours: int) -> dict[str, Any]:
        now = time.time()
        since = now - hours * 3600
        return report(self._source.groups(since), self._source.counts(now - ERRORS_SECONDS), since=since, now=now)


def _hours(scope: Scope) -> int:
    """Raises InvalidRequest unless `hours` is left out or a whole number in range."""
    (text, *more) = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get(
        "hours", [str(DEFAULT_HOURS)]
    )
    if more or not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MOST_HOURS):
        raise InvalidRequest(
            f"hours must be a whole number from 1 to {MOST_HOURS}.", param="hours", code="invalid_value"
        )
    return int(text)
