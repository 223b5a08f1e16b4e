"""DynamoDB: the tables' form, what is written and what is not, and a service that fails."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lexora.adapters import dynamodb
from lexora.adapters.dynamodb import DynamoAnswers, DynamoRecords
from lexora.core.record import COLUMNS, Record, RequestIds
from tests.support.emulator import Emulator

DAY = 86_400


class Watched:
    """A client that shows every batch of writes to `before`, which may hold some back, and then to `after`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.batches: list[list[dict[str, Any]]] = []
        self.held_back: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda batch: []
        self.after: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def batch_write_item(self, **asked: Any) -> dict[str, Any]:
        ((table, batch),) = asked["RequestItems"].items()
        held_back = self.held_back(batch)
        taken = [request for request in batch if request not in held_back]
        self.batches.append(taken)
        if taken:
            self._client.batch_write_item(RequestItems={table: taken})
        self.after()
        return {"UnprocessedItems": {table: held_back} if held_back else {}}

    @property
    def writes(self) -> list[dict[str, Any]]:
        return [request for batch in self.batches for request in batch]


@pytest.fixture
def watched(emulator: Emulator) -> Watched:
    return Watched(emulator.client("dynamodb"))


@pytest.fixture
def table(emulator: Emulator) -> str:
    """A table for answers."""
    return emulator.table(prompt="S", variant="N")


@pytest.fixture
def requests(emulator: Emulator) -> str:
    """A table for records."""
    return emulator.table(day="S", request_id="S")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are not made."""
    made: list[float] = []
    monkeypatch.setattr(dynamodb.time, "sleep", made.append)
    return made


def contents(emulator: Emulator, table: str) -> dict[tuple[str, int], str]:
    items = emulator.items(table)
    return {(item["prompt"]["S"], int(item["variant"]["N"])): item["response"]["S"] for item in items}


def get(store: DynamoAnswers, prompt: str, variant: int) -> str | None:
    return asyncio.run(store.get(prompt, variant))


def record(**facts: Any) -> Record:
    return Record(RequestIds(1).new(1), 1_795_260_267.5, "chat.completions", **facts)


def numbered(count: int, text: str = "a") -> dict[tuple[str, int], str]:
    return {("a", variant): text for variant in range(count)}


def test_an_answer_is_an_item_with_prompt_variant_and_response(emulator: Emulator, table: str) -> None:
    DynamoAnswers(emulator.client("dynamodb"), table).replace({("a", 1): "a1"})
    assert emulator.items(table) == [{"prompt": {"S": "a"}, "variant": {"N": "1"}, "response": {"S": "a1"}}]


@pytest.mark.parametrize("count", [24, 25, 26, 51])
def test_any_number_of_answers_is_written_and_deleted(emulator: Emulator, table: str, count: int) -> None:
    store = DynamoAnswers(emulator.client("dynamodb"), table)
    store.replace(numbered(count))
    assert contents(emulator, table) == numbered(count)
    store.replace({})
    assert contents(emulator, table) == {}


def test_a_table_of_many_pages_is_read_to_its_end(emulator: Emulator, watched: Watched, table: str) -> None:
    """A page of a scan has 1 MB."""
    answers = numbered(30, "x" * 100_000)
    store = DynamoAnswers(watched, table)
    store.replace(answers)
    watched.batches.clear()
    store.replace(answers)
    assert watched.batches == []
    store.replace({("b", 0): "b"})
    assert contents(emulator, table) == {("b", 0): "b"}


def test_only_what_has_changed_is_written(watched: Watched, table: str) -> None:
    store = DynamoAnswers(watched, table)
    store.replace({("a", 0): "a0", ("a", 1): "a1", ("b", 0): "b0"})
    watched.batches.clear()
    store.replace({("a", 0): "a0", ("a", 1): "changed", ("c", 0): "c0"})
    written = [request["PutRequest"]["Item"]["response"]["S"] for request in watched.writes if "PutRequest" in request]
    deleted = [request["DeleteRequest"]["Key"] for request in watched.writes if "DeleteRequest" in request]
    assert (sorted(written), deleted) == (["c0", "changed"], [{"prompt": {"S": "b"}, "variant": {"N": "0"}}])


def test_a_prompt_that_stays_always_has_an_answer(emulator: Emulator, watched: Watched, table: str) -> None:
    """Even where none of its answers stays as it is, and the table is larger than a batch."""
    gone = {(f"gone {number}", 0): "gone" for number in range(30)}
    store = DynamoAnswers(watched, table)
    store.replace({**gone, ("kept", 0): "old", ("kept", 1): "old"})
    watched.batches.clear()
    seen: list[bool] = []
    watched.after = lambda: seen.append(any(prompt == "kept" for prompt, _ in contents(emulator, table)))
    store.replace({("new", 0): "new", ("kept", 2): "new"})
    assert contents(emulator, table) == {("new", 0): "new", ("kept", 2): "new"}
    assert len(seen) > 2
    assert all(seen)


@pytest.mark.parametrize("taken", [0, 1, 12])
def test_what_is_not_taken_at_once_is_given_again(
    emulator: Emulator, watched: Watched, table: str, pauses: list[float], taken: int
) -> None:
    """A busy table takes some of a batch and hands the rest back."""
    tries = iter(range(100))
    watched.held_back = lambda batch: batch[taken:] if next(tries) < 2 else []
    DynamoAnswers(watched, table).replace(numbered(50))
    assert contents(emulator, table) == numbered(50)
    assert pauses == [0.05, 0.1]


def test_a_table_that_never_takes_it_all_is_an_error(watched: Watched, requests: str, pauses: list[float]) -> None:
    watched.held_back = lambda batch: batch[-1:]
    with pytest.raises(OSError, match=f"table {requests}: 1 writes were not taken in 7 tries"):
        DynamoRecords(watched, requests, ttl_days=1).write([record()])
    assert 3 < sum(pauses) < 4


def test_every_field_but_the_texts_is_kept(emulator: Emulator, requests: str) -> None:
    facts: dict[str, Any] = {
        "user_id": "takahito", "origin": "paid", "stream": True, "usage_estimated": False, "tokens_in": 12,
        "cost_usd": 0.000123, "saved_usd": 0.5, "ttft_ms": 12.5, "latest_user_message": "my secret",
        "context_tail": "my secret",
        "error_code": "upstream_broken", "error_message": "", "model": "チャット", "key_id": "0a1b", "priority": "low",
        "queue_ms": 1.5, "queue_position": 2, "upstream_ms": 2.5, "trace_parent": "my secret",
    }  # fmt: skip
    sent = record(**facts)
    DynamoRecords(emulator.client("dynamodb"), requests, ttl_days=1).write([sent])
    (item,) = emulator.items(requests)
    assert set(item) == {*COLUMNS, "day", "expires_at"}
    assert "my secret" not in str(item)
    assert item["request_id"] == {"S": sent.request_id}
    assert (item["stream"], item["usage_estimated"]) == ({"BOOL": True}, {"BOOL": False})
    assert (item["tokens_in"], item["cost_usd"], item["ttft_ms"]) == ({"N": "12"}, {"N": "0.000123"}, {"N": "12.5"})
    assert (item["origin"], item["model"], item["error_message"]) == ({"S": "paid"}, {"S": "チャット"}, {"S": ""})
    assert item["created_at"] == {"N": "1795260267.5"}


def test_what_is_not_known_is_left_out(emulator: Emulator, requests: str) -> None:
    DynamoRecords(emulator.client("dynamodb"), requests, ttl_days=1).write([record(cost_usd=None)])
    (item,) = emulator.items(requests)
    assert {"user_id", "origin", "cost_usd", "ttft_ms", "error_code", "error_message"} & set(item) == set()


@pytest.mark.parametrize(("created_at", "day"), [(1_795_219_199.999, "2026-11-20"), (1_795_219_200.0, "2026-11-21")])
def test_a_record_is_kept_with_those_of_its_day(emulator: Emulator, requests: str, created_at: float, day: str) -> None:
    """In UTC, whatever the machine's time zone."""
    sent = record()
    sent.created_at = created_at
    DynamoRecords(emulator.client("dynamodb"), requests, ttl_days=1).write([sent])
    assert emulator.items(requests)[0]["day"] == {"S": day}


@pytest.mark.parametrize(("days", "expires_at"), [(1, 1_795_260_267 + DAY), (90, 1_795_260_267 + 90 * DAY)])
def test_a_record_expires(emulator: Emulator, requests: str, days: int, expires_at: int) -> None:
    """In whole seconds since the epoch: DynamoDB looks at nothing else."""
    DynamoRecords(emulator.client("dynamodb"), requests, ttl_days=days).write([record()])
    assert emulator.items(requests)[0]["expires_at"] == {"N": str(expires_at)}


def test_a_record_that_is_written_twice_counts_once(emulator: Emulator, requests: str) -> None:
    sink = DynamoRecords(emulator.client("dynamodb"), requests, ttl_days=1)
    batch = [record(model="m")]
    sink.write(batch)
    sink.write(batch * 2)
    assert len(emulator.items(requests)) == 1


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        ({"tokens_in": 10**200}, {"tokens_in": {"N": str(2**63 - 1)}}),
        ({"cost_usd": 1e200}, {"cost_usd": {"N": str(2**63 - 1)}}),
        ({"cost_usd": 1e-200}, {"cost_usd": {"N": "0"}}),
        ({"cost_usd": float("inf")}, {}),
        ({"cost_usd": float("nan")}, {}),
        ({"error_message": "首" * 200_000}, {"error_message": {"S": "首" * 10_000}}),
    ],
    ids=["count", "cost", "tiny cost", "infinite", "no number", "text"],
)
def test_what_dynamodb_would_refuse_keeps_no_record_out(
    emulator: Emulator, requests: str, facts: dict[str, Any], kept: dict[str, Any]
) -> None:
    DynamoRecords(emulator.client("dynamodb"), requests, ttl_days=1).write([record(**facts)])
    (item,) = emulator.items(requests)
    assert {name: item[name] for name in facts if name in item} == kept


OPERATIONS: dict[str, Callable[[Any, str], Any]] = {
    "get": lambda client, table: get(DynamoAnswers(client, table), "a", 0),
    "replace": lambda client, table: DynamoAnswers(client, table).replace({("a", 0): "a"}),
    "write": lambda client, table: DynamoRecords(client, table, 1).write([record()]),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_table_that_is_not_there_is_named(emulator: Emulator, operation: str) -> None:
    with pytest.raises(OSError, match=r"^table nowhere: .*ResourceNotFoundException"):
        OPERATIONS[operation](emulator.client("dynamodb"), "nowhere")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_service_that_cannot_be_reached_is_an_error(unreachable: Callable[[str], Any], operation: str) -> None:
    with pytest.raises(OSError, match=r"^table nowhere: Could not connect"):
        OPERATIONS[operation](unreachable("dynamodb"), "nowhere")


def test_answers_that_dynamodb_refuses_are_an_error(emulator: Emulator, table: str) -> None:
    store = DynamoAnswers(emulator.client("dynamodb"), table)
    with pytest.raises(OSError, match=r"Item size has exceeded"):
        store.replace({("a", 0): "x" * 410_000})
