"""The items that a stored response was made of, as the Responses API lists them.

https://platform.openai.com/docs/api-reference/responses/input-items
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw

from lexora.core.chat import invalid_field
from lexora.core.errors import InvalidRequest
from lexora.core.ports import StoredResponse
from lexora.core.responses import OwnResponses
from lexora.providers.responses_door_output import items_of, response_id

_PREFIXES = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}  # of ids; others are messages

_decode_items = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_text = msgspec.json.Decoder(str).decode


class Page(msgspec.Struct):
    """What is asked for of a list."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


def page_of(query: Mapping[str, str]) -> Page:
    """Raises InvalidRequest."""
    try:
        page = msgspec.convert(query, Page, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error)) from None
    if not 1 <= page.limit <= 100:
        raise InvalidRequest("Invalid value for 'limit': send 1 to 100.", param="limit", code="invalid_value")
    return page


def input_items(own: OwnResponses, last: str, page: Page) -> dict[str, Any] | None:
    """A part of the items before the output of a response: those of its request, and of what that went on from.

    None if there is no such response. Raises InvalidRequest.
    """
    turns = [turn for turn in own.conversation(last) if turn is not None]
    if not turns:
        return None
    items = [item for turn in reversed(turns) for item in _items(turn, answered=turn is not turns[0])]
    if page.order == "desc":
        items.reverse()
    start = 0
    if page.after is not None:
        found = [number for number, item in enumerate(items, 1) if item["id"] == page.after]
        if not found:
            raise InvalidRequest(f"The list has no item '{page.after}'.", param="after", code="invalid_value")
        start = found[0]
    data = items[start : start + page.limit]
    ends = {"first_id": data[0]["id"] if data else "", "last_id": data[-1]["id"] if data else ""}
    return {"object": "list", "data": data, **ends, "has_more": start + len(data) < len(items)}


def _items(turn: StoredResponse, *, answered: bool) -> Sequence[dict[str, Any]]:
    record_id = turn.id.removeprefix(response_id(""))
    asked = [_item(item, f"{record_id}i{number:03x}") for number, item in enumerate(_decode_items(turn.input))]
    output = items_of(turn.response) if answered else []
    return asked + [msgspec.json.decode(item) for item in output]


def _item(item: dict[str, Raw], number: str) -> dict[str, Any]:
    """An item as it was sent, with what it may have been sent without: id, type, status, a list as the content."""
    kind = _decode_text(item["type"]) if "type" in item else "message"
    whole: dict[str, Any] = {"type": kind, "status": "completed", **item}
    said = msgspec.json.decode(item["id"]) if "id" in item else None
    whole["id"] = said or f"{_PREFIXES.get(kind, 'msg')}_{number}"
    if kind == "message":
        whole["content"] = _content(msgspec.json.decode(item["content"]), _decode_text(item["role"]))
    return whole


def _content(content: str | list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    if role != "assistant":
        return [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
    bare: dict[str, Any] = {"annotations": [], "logprobs": []}
    return [{**bare, **part} if part["type"] == "output_text" else part for part in parts]
