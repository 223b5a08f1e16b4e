"""The log groups of both doors as one, in the lines of `aws logs tail`."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from scripts.aws.account import Account, Problem

_LOOK_AGAIN_SECONDS = 2.0
# CloudWatch Logs takes its time to show what was written: what comes late is looked for this far back.
_LATE_MS = 30_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def tail(account: Account, since: str, *, follow: bool) -> None:
    """Prints what was logged in the time that `since` says (`10m`), then what comes, until it is interrupted."""
    groups = [value for key, value in sorted(account.outputs("Api").items()) if key.endswith("LogGroupName")]
    client = account.client("logs")
    start = int((time.time() - _seconds(since)) * 1000)
    seen: set[tuple[Any, ...]] = set()
    while True:
        events = [event for group in groups for event in _events(client, group, start)]
        for event in sorted(events, key=lambda event: int(event["timestamp"])):
            if _identity(event) not in seen:
                print(_line(event), flush=True)
        if not follow:
            return
        seen = {_identity(event) for event in events}
        start = max([start, *(event["timestamp"] - _LATE_MS for event in events)])
        time.sleep(_LOOK_AGAIN_SECONDS)


def _events(client: Any, group: str, start: int) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=start):
        yield from page["events"]


def _identity(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["logStreamName"], event["timestamp"], event["message"]


def _line(event: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).isoformat()
    return f"{when} {event['logStreamName']} {event['message'].rstrip()}"


def _seconds(since: str) -> int:
    if not (match := re.fullmatch(r"(\d{1,6})([smhd])", since)):
        raise Problem(f"SINCE={since}: write a number and a unit: 30s, 10m, 2h, 1d")
    return int(match[1]) * _UNITS[match[2]]
