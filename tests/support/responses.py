"""What every response object and every stream of events of the Responses API must be, whatever is in it."""

from collections.abc import Iterator
from typing import Any

import msgspec
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.published import check

# Required by OpenAI's schema, nullable or not; its SDK would not miss those that may be null.
REQUIRED = {
    *("id", "object", "created_at", "error", "incomplete_details", "instructions", "metadata", "model", "output"),
    *("parallel_tool_calls", "temperature", "tool_choice", "tools", "top_p"),
}
_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
_ENDS = {"response.completed", "response.incomplete", "response.failed"}


def checked_response(data: Any) -> dict[str, Any]:
    """A response object that OpenAI's SDK takes in every part."""
    body: dict[str, Any] = msgspec.json.decode(data) if isinstance(data, bytes) else data
    assert body.keys() >= REQUIRED
    check("openai", "Response", body)
    Response.model_validate(body)
    assert len({item["id"] for item in body["output"]}) == len(body["output"])
    return body


def events_of(frames: bytes) -> list[dict[str, Any]]:
    """The events of framed bytes, each of which says its type twice; comments are left out."""
    events = []
    for frame in frames.split(b"\n\n"):
        if frame and not frame.startswith(b":"):
            name, _, data = frame.partition(b"\n")
            event = msgspec.json.decode(data.removeprefix(b"data: "))
            assert name == b"event: " + event["type"].encode()
            events.append(event)
    return events


def checked_events(frames: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream: valid, numbered, in order, and of one mind about what was said."""
    events = events_of(frames)
    for event in events:
        check("openai", "ResponseStreamEvent", event)
        _EVENT.validate_python(event)
        if "response" in event:
            checked_response(event["response"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["type"] in _ENDS for event in events] == [False] * (len(events) - 1) + [True]
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    final = events[-1]["response"]
    assert events[-1]["type"] == f"response.{final['status']}"
    items = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.added"}
    assert list(items) == list(range(len(final["output"])))
    for index, item in items.items():
        assert item["id"] == final["output"][index]["id"]
        own = [event for event in events if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added"
        assert {event.get("item_id", item["id"]) for event in own} == {item["id"]}
        if final["status"] != "failed":
            assert own[-1]["type"] == "response.output_item.done"
            assert own[-1]["item"] == final["output"][index]
            assert list(_said(own[1:-1])) == list(_texts(final["output"][index]))
    return events


def _said(events: list[dict[str, Any]]) -> Iterator[str]:
    """What the deltas of each part come to; they agree with what is said to be done."""
    said = ""
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind.endswith(".delta"):
            said += event["delta"]
        elif kind.endswith("part.added"):
            assert said == "" == event["part"].get("text", event["part"].get("refusal"))
        elif kind.endswith(("text.done", "refusal.done", "arguments.done")):
            assert said == event.get("text", event.get("refusal", event.get("arguments")))
            yield said
            said = ""


def _texts(item: dict[str, Any]) -> Iterator[str]:
    if item["type"] == "function_call":
        yield item["arguments"]
    for part in item.get("content", item.get("summary", ())):
        yield part.get("text", part.get("refusal"))
