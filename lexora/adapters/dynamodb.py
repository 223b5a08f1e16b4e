"""DynamoDB: the prepared answers and the records of requests.

The calls block: a Lambda serves one request at a time, so there is nobody that could be served meanwhile. Clients are
made by the caller; they have no static types, as boto3 makes them at run time.
"""

import math
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lexora.core.record import COLUMNS, Record

# DynamoDB's own limits.
_BATCH = 25
_MOST_KEY_BYTES = 2048
# A batch that is not taken whole is given again after a pause that doubles: about 3 s in all.
_TRIES = 7
_PAUSE_SECONDS = 0.05

_MOST = 2**63 - 1  # as in a column of SQLite
_DIGITS = 12  # of fractions; DynamoDB refuses numbers below 1e-130
_MOST_CHARACTERS = 10_000  # of one field: an item is refused above 400 KB
_DAY_SECONDS = 86_400

_Item = dict[str, dict[str, Any]]


class DynamoAnswers:
    """The port `AnswerStore` over a table with the keys `prompt` (S) and `variant` (N)."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    async def get(self, prompt: str, variant: int) -> str | None:
        """One variant of a prompt, None if there is none. Raises OSError."""
        if not 0 < len(prompt.encode()) <= _MOST_KEY_BYTES:
            return None  # no key of the table can be like that, and DynamoDB refuses the question
        try:
            found = self._client.get_item(TableName=self._table, Key=_key(prompt, variant))
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {self._table}: {error}") from None
        return found["Item"]["response"]["S"] if "Item" in found else None

    def replace(self, answers: dict[tuple[str, int], str]) -> None:
        """Makes the table hold just these answers, (prompt, variant) to text. Raises OSError.

        What is the same is not written again. What is gone is deleted last, so that a prompt which stays has an answer
        at every moment. After an error the table holds some of both; the same call again completes it.
        """
        there = self._all()
        puts = [
            {"PutRequest": {"Item": {**_key(*key), "response": {"S": text}}}}
            for key, text in answers.items()
            if there.get(key) != text
        ]
        deletes = [{"DeleteRequest": {"Key": _key(*key)}} for key in there.keys() - answers.keys()]
        _write(self._client, self._table, puts)
        _write(self._client, self._table, deletes)

    def _all(self) -> dict[tuple[str, int], str]:
        try:
            pages = self._client.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True)
            items = [item for page in pages for item in page["Items"]]
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {self._table}: {error}") from None
        return {(item["prompt"]["S"], int(item["variant"]["N"])): item["response"]["S"] for item in items}


class DynamoRecords:
    """A sink for the ledger: an item a request, which DynamoDB drops `ttl_days` after the request (`expires_at`).

    The table's keys are `day` (S), the UTC date of the request, and `request_id` (S), which sorts by time. A record
    that is written again, after an error, takes its own place and does not count twice.
    """

    def __init__(self, client: Any, table: str, ttl_days: float) -> None:
        self._client = client
        self._table = table
        self._ttl_seconds = ttl_days * _DAY_SECONDS

    def write(self, records: list[Record]) -> None:
        """Writes a batch. Raises OSError; parts of the batch may be written then."""
        items = {record.request_id: self._item(record) for record in records}
        _write(self._client, self._table, [{"PutRequest": {"Item": item}} for item in items.values()])

    def close(self) -> None:
        pass

    def _item(self, record: Record) -> _Item:
        item = {name: _value(getattr(record, name)) for name in COLUMNS}
        item["day"] = {"S": time.strftime("%Y-%m-%d", time.gmtime(record.created_at))}
        item["expires_at"] = _value(int(record.created_at + self._ttl_seconds))
        return {name: value for name, value in item.items() if value is not None}


def _key(prompt: str, variant: int) -> _Item:
    return {"prompt": {"S": prompt}, "variant": {"N": str(variant)}}


def _value(value: str | float | bool | None) -> dict[str, Any] | None:
    """A field as DynamoDB takes it, whatever an upstream has said; None for what is not known."""
    match value:
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value[:_MOST_CHARACTERS]}
        case int() | float() if math.isfinite(value):
            return {"N": str(round(max(-_MOST, min(value, _MOST)), _DIGITS))}
    return None


def _write(client: Any, table: str, requests: list[dict[str, Any]]) -> None:
    """Puts and deletes, batch after batch. Raises OSError when one is not taken."""
    for start in range(0, len(requests), _BATCH):
        left = requests[start : start + _BATCH]
        for tried in range(_TRIES):
            if tried:
                time.sleep(_PAUSE_SECONDS * 2 ** (tried - 1))
            try:
                left = client.batch_write_item(RequestItems={table: left})["UnprocessedItems"].get(table)
            except (BotoCoreError, ClientError) as error:
                raise OSError(f"table {table}: {error}") from None
            if not left:
                break
        else:
            raise OSError(f"table {table}: {len(left)} writes were not taken in {_TRIES} tries; it is too busy")
