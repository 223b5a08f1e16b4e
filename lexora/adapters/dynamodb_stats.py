"""The records in DynamoDB, read by day and summed up here."""

import time
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lexora.core.record import first_id
from lexora.core.stats import Counts, Group

_DAY_SECONDS = 86_400

_READ = (
    *("model", "user_id", "origin", "deployment", "outcome", "tokens_in", "tokens_out", "cost_usd", "duration_ms"),
    *("ttft_ms", "saved_usd"),
)
_Item = dict[str, dict[str, Any]]


class DynamoStats:
    """The port `StatsSource` over the table that DynamoRecords writes: a query a day, each for what it needs."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def groups(self, since: float) -> list[Group]:
        found: dict[tuple[str, str | None, str | None, str], Group] = {}
        for item in self._items(since, _READ):
            key = (_text(item, "model") or "", _text(item, "user_id"), _text(item, "origin"))
            deployment = _text(item, "deployment") or ""
            group = found.setdefault((*key, deployment), Group(*key, deployment))
            group.add(_counted(item))
        return list(found.values())

    def counts(self, since: float) -> Counts:
        outcomes = [_text(item, "outcome") for item in self._items(since, ("outcome",))]
        return Counts(len(outcomes), outcomes.count("failed"))

    def _items(self, since: float, names: tuple[str, ...]) -> Iterator[_Item]:
        """What of each record is named, from the days since then. Raises OSError."""
        since = max(since, 0.0)
        today = int(time.time() // _DAY_SECONDS)
        # One more day: the clocks of those who write may be ahead.
        for day in range(int(since // _DAY_SECONDS), today + 2):
            yield from self._day(day, since, names)

    def _day(self, day: int, since: float, names: tuple[str, ...]) -> Iterator[_Item]:
        placeholders = {f"#{number}": name for number, name in enumerate(names)}
        asked: dict[str, Any] = {
            "TableName": self._table,
            # A request's id begins with its time in milliseconds; created_at is exact.
            "KeyConditionExpression": "#day = :day AND request_id >= :first",
            "FilterExpression": "created_at >= :since",
            "ProjectionExpression": ", ".join(placeholders),
            "ExpressionAttributeNames": {"#day": "day", **placeholders},
            "ExpressionAttributeValues": {
                ":day": {"S": time.strftime("%Y-%m-%d", time.gmtime(day * _DAY_SECONDS))},
                ":first": {"S": first_id(since)},
                ":since": {"N": repr(since)},
            },
        }
        try:
            for page in self._client.get_paginator("query").paginate(**asked):
                yield from page["Items"]
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {self._table}: {error}") from None


def _counted(item: _Item) -> Group:
    """One record as a group of its own."""
    return Group(
        requests=1,
        errors=int(_text(item, "outcome") == "failed"),
        tokens_in=int(_number(item, "tokens_in")),
        tokens_out=int(_number(item, "tokens_out")),
        cost_usd=_number(item, "cost_usd"),
        unpriced=int("cost_usd" not in item),
        duration_ms=_number(item, "duration_ms"),
        ttft_ms=_number(item, "ttft_ms"),
        ttft_count=int("ttft_ms" in item),
        saved_usd=_number(item, "saved_usd"),
    )


def _text(item: _Item, name: str) -> str | None:
    value: str | None = item.get(name, {}).get("S")
    return value


def _number(item: _Item, name: str) -> float:
    return float(item.get(name, {}).get("N", 0))
