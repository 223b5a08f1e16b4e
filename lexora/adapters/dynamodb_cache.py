"""DynamoDB: the cache. The calls block, as in `dynamodb`."""

import zlib
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lexora.core.ports import KeptAnswer

# DynamoDB refuses items above 400 KB, names of attributes included.
_MOST_BYTES = 400_000

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(KeptAnswer).decode


class DynamoCache:
    """The port `CacheStore` over a table with the key `key` (S), and `expires_at` for its TTL.

    An answer is compressed, and one that is too large for an item all the same is not kept.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    async def get(self, key: str) -> KeptAnswer | None:
        # Not a consistent read, which costs twice as much: what was written a moment ago may be missed.
        item = self._call("get_item", Key={"key": {"S": key}}).get("Item")
        try:
            return _decode(zlib.decompress(item["answer"]["B"])) if item is not None else None
        except (zlib.error, msgspec.DecodeError) as error:
            raise OSError(f"table {self._table}: {error}") from None

    async def put(self, key: str, answer: KeptAnswer) -> None:
        packed = zlib.compress(_encode(answer))
        if len(packed) <= _MOST_BYTES:
            expires_at = {"N": str(int(answer.expires_at) + 1)}
            self._call("put_item", Item={"key": {"S": key}, "answer": {"B": packed}, "expires_at": expires_at})

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Raises OSError."""
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(TableName=self._table, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {self._table}: {error}") from None
        return answer
