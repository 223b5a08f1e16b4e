"""Conversations whose earlier turns are stored: `previous_response_id` and references to items."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters.sqlite_responses import SqliteResponses
from lexora.core.errors import InvalidRequest, ResponsesUnavailable, UpstreamBroken
from lexora.core.ports import MOST_RESPONSE_BYTES
from lexora.core.responses import OwnResponses
from lexora.providers.responses_door import ResponsesDoor
from tests.support.responses import checked_events, checked_response

NOW = 1_795_000_000.0
HELLO = {"role": "user", "content": "Hello"}


class Conversation:
    """A client of a gateway that stores: what it asks is answered with what the test says."""

    def __init__(self, store: SqliteResponses, owner: str = "ann") -> None:
        self.reports: list[str] = []
        self.own = OwnResponses(store, owner, self.reports.append)
        self.door = ResponsesDoor(lambda _named: self.own, lambda: NOW)
        self._turns = 0

    def request(self, **fields: Any) -> Any:
        return self.door.request(json.dumps({"input": "Hello", **fields}).encode())

    def messages(self, **fields: Any) -> Any:
        return json.loads(bytes(self.request(**fields).fields["messages"]))

    def say(self, answer: str, **fields: Any) -> dict[str, Any]:
        """One turn."""
        self._turns += 1
        message = {"role": "assistant", "content": answer}
        chat = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        said = self.door.completion(self.request(**fields), json.dumps(chat).encode(), f"{self._turns:032x}")
        return checked_response(said)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteResponses]:
    with closing(SqliteResponses(tmp_path / "responses.db", lambda: NOW)) as opened:
        yield opened


@pytest.fixture
def client(store: SqliteResponses) -> Conversation:
    return Conversation(store)


def refused(client: Conversation, **fields: Any) -> tuple[str | None, str | None]:
    with pytest.raises(InvalidRequest) as error:
        client.request(**fields)
    assert error.value.status == 400
    return error.value.param, error.value.code


def test_a_conversation_goes_on_without_being_sent_again(client: Conversation) -> None:
    one = client.say("Hi.", instructions="Be brief.")
    two = client.say("Fine.", input=[{"role": "user", "content": "How are you?"}], previous_response_id=one["id"])
    assert two["previous_response_id"] == one["id"]
    assert client.messages(input="Good.", previous_response_id=two["id"]) == [
        HELLO,
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": "Good."},
    ]


def test_it_may_go_on_twice_from_one_place(client: Conversation) -> None:
    one = client.say("Hi.")
    for text in ("a", "b"):
        client.say("?", input=text, previous_response_id=one["id"])
    assert len(client.messages(input="c", previous_response_id=one["id"])) == 3


def test_what_is_stored_is_what_was_answered(client: Conversation) -> None:
    response = client.say("Hi.", metadata={"a": "b"})
    assert response["store"] is True
    kept = client.own.get(response["id"])
    assert kept is not None
    assert json.loads(kept.response) == response
    assert (kept.owner, kept.created_at, kept.previous) == ("ann", NOW, None)


def test_a_stream_is_stored_at_its_end(client: Conversation) -> None:
    request = client.request(stream=True)
    stream = client.door.stream(request, "f" * 32)
    chunk = {"model": "m", "choices": [{"index": 0, "delta": {"content": "Hi."}, "finish_reason": "stop"}]}
    frames = stream.feed(b"data: %b\n\n" % json.dumps(chunk).encode())
    assert client.own.get(f"resp_{'f' * 32}") is None
    events = checked_events(frames + stream.end(b"data: [DONE]\n\n"))
    kept = client.own.get(f"resp_{'f' * 32}")
    assert kept is not None
    assert json.loads(kept.response) == events[-1]["response"]
    assert events[-1]["response"]["store"] is True


def test_a_stream_that_breaks_is_not_stored(client: Conversation) -> None:
    stream = client.door.stream(client.request(stream=True), "f" * 32)
    checked_events(stream.error(UpstreamBroken("a")))
    assert client.own.get(f"resp_{'f' * 32}") is None


def test_a_call_is_answered_by_its_output_alone(client: Conversation) -> None:
    tool = {"type": "function", "name": "f", "parameters": {}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    request = client.request(tools=[tool])
    message = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]}
    chat = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    response = checked_response(client.door.completion(request, json.dumps(chat).encode(), "f" * 32))
    output = [{"type": "function_call_output", "call_id": "c1", "output": "42"}]
    assert client.messages(input=output, previous_response_id=response["id"]) == [
        HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]


def test_a_reference_stands_for_its_item(client: Conversation) -> None:
    one = client.say("Hi.")
    reference = {"type": "item_reference", "id": one["output"][0]["id"]}
    items = [HELLO, reference, {"role": "user", "content": "So?"}]
    said = [HELLO, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "So?"}]
    assert client.messages(input=items) == said
    two = client.say("So.", input=items)
    assert client.own.delete(one["id"]) is True
    assert client.messages(input="x", previous_response_id=two["id"])[:3] == said
    assert refused(client, input=items) == ("input[1].id", "item_not_found")


@pytest.mark.parametrize("item_id", ["", "msg_1", "msg_" + "0" * 36, "x" * 5000, "resp_" + "0" * 31 + "1"])
def test_a_reference_to_nothing_is_refused(client: Conversation, item_id: str) -> None:
    client.say("Hi.")
    assert refused(client, input=[{"type": "item_reference", "id": item_id}]) == ("input[0].id", "item_not_found")


def test_nobody_goes_on_with_anothers_conversation(store: SqliteResponses, client: Conversation) -> None:
    mine = client.say("Hi.")
    bob = Conversation(store, "bob")
    assert refused(bob, previous_response_id=mine["id"]) == ("previous_response_id", "previous_response_not_found")
    reference = {"type": "item_reference", "id": mine["output"][0]["id"]}
    assert refused(bob, input=[reference]) == ("input[0].id", "item_not_found")
    assert bob.own.get(mine["id"]) is None
    assert bob.own.delete(mine["id"]) is False
    assert client.own.get(mine["id"]) is not None


def test_a_conversation_whose_beginning_was_deleted_is_over(client: Conversation) -> None:
    one = client.say("Hi.")
    two = client.say("Fine.", previous_response_id=one["id"])
    assert client.own.delete(one["id"]) is True
    assert refused(client, previous_response_id=two["id"]) == ("previous_response_id", "previous_response_not_found")


def test_store_false_stores_nothing(client: Conversation) -> None:
    response = client.say("Hi.", store=False)
    assert response["store"] is False
    assert client.own.get(response["id"]) is None


def test_a_request_too_large_to_store_is_refused_before_it_costs_anything(client: Conversation) -> None:
    long = "a" * MOST_RESPONSE_BYTES
    assert refused(client, input=long) == ("store", "unsupported_value")
    assert len(client.messages(input=long, store=False)) == 1


def test_an_answer_that_cannot_be_stored_says_so(store: SqliteResponses, client: Conversation) -> None:
    large = client.say("a" * MOST_RESPONSE_BYTES)
    assert (large["store"], client.own.get(large["id"])) == (False, None)
    store.close()
    assert client.say("Hi.")["store"] is False
    assert "is not stored" in client.reports[-1]


def test_a_store_that_fails_is_a_503(store: SqliteResponses, client: Conversation) -> None:
    one = client.say("Hi.")
    store.close()
    for act in (lambda: client.request(previous_response_id=one["id"]), lambda: client.own.delete(one["id"])):
        with pytest.raises(ResponsesUnavailable) as error:
            act()
        assert error.value.status == 503


def test_a_conversation_does_not_grow_without_end(client: Conversation) -> None:
    answer = "a" * (MOST_RESPONSE_BYTES - 10_000)
    turn = client.say(answer)
    for _ in range(10):
        turn = client.say(answer, previous_response_id=turn["id"])
    assert refused(client, previous_response_id=turn["id"]) == ("previous_response_id", "previous_response_not_found")
