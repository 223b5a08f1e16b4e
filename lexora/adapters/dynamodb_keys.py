"""DynamoDB: the API keys. The calls block, as in `dynamodb`."""

from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lexora.core.keys import Key

_PARTITION = {"S": "keys"}
_decode = msgspec.json.Decoder(Key).decode


class DynamoKeys:
    """The port `KeyStore` over a table with the keys `pk` (S) and `sk` (S): an item each, with the key as JSON."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def get(self, key_id: str) -> Key | None:
        # Consistently, as a key that was revoked a moment ago must not be found alive.
        place = {"pk": _PARTITION, "sk": {"S": key_id}}
        try:
            found = self._client.get_item(TableName=self._table, Key=place, ConsistentRead=True)
        except (BotoCoreError, ClientError) as error:
            raise self._unusable(error) from None
        return _decode(found["Item"]["key"]["S"]) if "Item" in found else None

    def all(self) -> list[Key]:
        try:
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :keys",
                ExpressionAttributeValues={":keys": _PARTITION},
                ConsistentRead=True,
            )
            keys = [_decode(item["key"]["S"]) for page in pages for item in page["Items"]]
        except (BotoCoreError, ClientError) as error:
            raise self._unusable(error) from None
        return sorted(keys, key=lambda key: key.created_at)

    def put(self, key: Key) -> None:
        item = {"pk": _PARTITION, "sk": {"S": key.id}, "key": {"S": msgspec.json.encode(key).decode()}}
        try:
            self._client.put_item(TableName=self._table, Item=item)
        except (BotoCoreError, ClientError) as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> OSError:
        return OSError(f"table {self._table}: {error}")
