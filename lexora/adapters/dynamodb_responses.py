"""DynamoDB: the stored responses. The calls block, as in `dynamodb`."""

import zlib
from collections.abc import Callable
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lexora.core.ports import RESPONSE_SECONDS, StoredResponse

# DynamoDB refuses items above 400 KB, names of attributes included, and keys above 2,048 bytes.
_PIECE_BYTES = 390_000
_MOST_ID_BYTES = 2000

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, float, str | None, bytes, bytes]).decode


class DynamoResponses:
    """The port `ResponseStore` over a table with the keys `pk` (S) and `sk` (S), and `expires_at` for its TTL.

    A response is compressed and cut into pieces, an item each. The first one is written last and deleted first: without
    it there is no response. `now` gives seconds since the epoch.
    """

    def __init__(self, client: Any, table: str, now: Callable[[], float]) -> None:
        self._client = client
        self._table = table
        self._now = now

    def put(self, response: StoredResponse) -> None:
        packed = zlib.compress(_encode(tuple(response)), 1)
        cuts = range(0, len(packed), _PIECE_BYTES)
        facts = {
            "owner": {"S": response.owner},
            "pieces": {"N": str(len(cuts))},
            "expires_at": {"N": str(int(response.created_at) + RESPONSE_SECONDS)},
        }
        for number, start in reversed(list(enumerate(cuts))):
            piece = {"piece": {"B": packed[start : start + _PIECE_BYTES]}}
            self._call("put_item", Item={**_key(response.id, number), **facts, **piece})

    def get(self, owner: str, response_id: str) -> StoredResponse | None:
        items = self._own(owner, response_id)
        if not items:
            return None
        packed = b"".join(item["piece"]["B"] for item in items)
        return StoredResponse(*_decode(zlib.decompress(packed)))

    def delete(self, owner: str, response_id: str) -> bool:
        items = self._own(owner, response_id)
        for number in range(len(items)):
            self._call("delete_item", Key=_key(response_id, number))
        return bool(items)

    def _own(self, owner: str, response_id: str) -> list[dict[str, Any]]:
        """The items of the owner's response, in order; none if it is not whole, or its time is over."""
        if len(response_id.encode()) > _MOST_ID_BYTES:
            return []  # DynamoDB refuses to look for it
        asked = {
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": _key(response_id, 0)["pk"]},
            "ConsistentRead": True,  # a conversation may go on at once, and what was deleted must not be found
        }
        items: list[dict[str, Any]] = []
        while True:
            page = self._call("query", **asked)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        # An older response of the same id may have had more pieces, and DynamoDB drops what has expired when it likes.
        count = int(items[0]["pieces"]["N"]) if items and items[0]["sk"] == _key(response_id, 0)["sk"] else 0
        if not 0 < count <= len(items) or items[0]["owner"]["S"] != owner:
            return []
        return items[:count] if int(items[0]["expires_at"]["N"]) > self._now() else []

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Raises OSError."""
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(TableName=self._table, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {self._table}: {error}") from None
        return answer


def _key(response_id: str, number: int) -> dict[str, dict[str, str]]:
    return {"pk": {"S": f"response#{response_id}"}, "sk": {"S": f"{number:03}"}}
