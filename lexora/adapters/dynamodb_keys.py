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
        text = self._text(key_id)
        return None if text is None else _decode(text)

    def _text(self, key_id: str) -> str | None:
        # Consistently, as a key that was revoked a moment ago must not be found alive.
        place = {"pk": _PARTITION, "sk": {"S": key_id}}
        try:
            found = self._client.get_item(TableName=self._table, Key=place, ConsistentRead=True)
        except (BotoCoreError, ClientError) as error:
            raise self._unusable(error) from None
        return found["Item"]["key"]["S"] if "Item" in found else None

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

    def put(self, key: Key, before: Key | None) -> bool:
        text = msgspec.json.encode(key).decode()
        only_if: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if before is not None:
            # By its text as it is stored: an older version may have written it with fewer fields.
            stored = self._text(key.id)
            if stored is None or _decode(stored) != before:
                return False
            only_if = {
                "ConditionExpression": "#key = :stored",
                "ExpressionAttributeNames": {"#key": "key"},
                "ExpressionAttributeValues": {":stored": {"S": stored}},
            }
        item = {"pk": _PARTITION, "sk": {"S": key.id}, "key": {"S": text}}
        try:
            self._client.put_item(TableName=self._table, Item=item, **only_if)
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return self._text(key.id) == text  # written, if the answer to a first try was lost
            raise self._unusable(error) from None
        return True

    def _unusable(self, error: Exception) -> OSError:
        return OSError(f"table {self._table}: {error}")
