"""DynamoDB's counters: the items, and a table that does not answer."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from lexora.adapters.dynamodb_limits import DynamoLimits
from lexora.core.limits import NotSettled
from lexora.core.ports import Amounts, Claim
from tests.support.emulator import Emulator
from tests.support.recorded import Close, recorded_upstream

CLAIM = Claim("user:a", "minute:1", 60.0, 1, 10, most_tokens=100)


def test_a_counter_is_an_item_that_expires_a_day_after_its_window(emulator: Emulator) -> None:
    table = emulator.table(pk="S", sk="S")
    DynamoLimits(emulator.client("dynamodb"), table).reserve([CLAIM])
    assert emulator.items(table) == [
        {
            "pk": {"S": "limit#user:a"},
            "sk": {"S": "minute:1"},
            "tokens": {"N": "10"},
            "requests": {"N": "1"},
            "expires_at": {"N": "86460"},
        }
    ]


def test_a_table_that_does_not_answer_is_an_oserror_and_what_is_left_can_be_settled_later(
    unreachable: Callable[[str], Any],
) -> None:
    store = DynamoLimits(unreachable("dynamodb"), "limits")
    with pytest.raises(OSError, match="table limits"):
        store.reserve([CLAIM])
    with pytest.raises(NotSettled) as caught:
        store.settle([CLAIM], [Amounts(1, 3)])
    assert caught.value.left == [(CLAIM, Amounts(1, 3))]


def test_where_an_answer_is_lost_only_what_would_be_added_is_left_for_later(emulator: Emulator) -> None:
    """The change may have been made: too much may be counted, never too little."""
    with recorded_upstream([Close()]) as lost:
        client = emulator.client("dynamodb", f"http://127.0.0.1:{lost.port}")
        with contextlib.closing(client), pytest.raises(NotSettled) as caught:
            DynamoLimits(client, "limits").settle([CLAIM], [Amounts(0, 30)])
    assert caught.value.left == [(CLAIM, Amounts(1, 30))]


def test_settling_what_was_reserved_is_no_call(unreachable: Callable[[str], Any]) -> None:
    DynamoLimits(unreachable("dynamodb"), "limits").settle([CLAIM], [Amounts(1, 10)])


def test_what_was_added_is_given_back_when_the_table_fails_midway(emulator: Emulator) -> None:
    table = emulator.table(pk="S", sk="S")
    store = DynamoLimits(emulator.client("dynamodb"), table)
    with pytest.raises(OSError, match=table):
        store.reserve([CLAIM, replace(CLAIM, subject="user:" + "x" * 3000)])  # longer than a key may be
    assert [item["tokens"] for item in emulator.items(table)] == [{"N": "0"}]
