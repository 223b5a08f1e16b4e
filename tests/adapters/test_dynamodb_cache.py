"""The cache in DynamoDB: what an item holds."""

import asyncio
import random

import msgspec

from lexora.adapters.dynamodb_cache import DynamoCache
from lexora.core.ports import KeptAnswer
from lexora.core.usage import Usage
from tests.support.emulator import Emulator

ANSWER = KeptAnswer(b"{}", Usage(), False, "", "", "", 1_795_000_000.0, 1_795_000_060.5)


def test_an_item_is_dropped_after_its_time_and_not_before(emulator: Emulator) -> None:
    table = emulator.table(key="S")
    asyncio.run(DynamoCache(emulator.client("dynamodb"), table).put("a", ANSWER))
    (item,) = emulator.items(table)
    assert item.keys() == {"key", "answer", "expires_at"}
    assert item["expires_at"] == {"N": "1795000061"}


def test_what_no_item_holds_is_not_kept(emulator: Emulator) -> None:
    """Bytes of chance cannot be made smaller."""
    cache = DynamoCache(emulator.client("dynamodb"), emulator.table(key="S"))
    noise = random.Random(1).randbytes(420_000)
    largest, larger = (msgspec.structs.replace(ANSWER, body=noise[:size]) for size in (399_000, 420_000))
    asyncio.run(cache.put("a", larger))
    assert asyncio.run(cache.get("a")) is None
    asyncio.run(cache.put("a", largest))
    assert asyncio.run(cache.get("a")) == largest
