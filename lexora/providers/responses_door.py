"""OpenAI's Responses API, for clients that speak it: translated to and from a chat completion, whatever answers it."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest, parse_chat_request
from lexora.core.errors import InvalidRequest, LexoraError
from lexora.core.ports import MOST_RESPONSE_BYTES
from lexora.core.responses import OwnResponses
from lexora.providers.responses_door_answer import Answer
from lexora.providers.responses_door_items import conversation, resolve
from lexora.providers.responses_door_output import Emit, item_of, items_of, response_id, response_of_item
from lexora.providers.responses_door_request import Asked, chat_fields, param_here, parse
from lexora.providers.responses_door_stream import ResponsesStream

# What a conversation may come to that is put together from stored responses: more than any model reads.
_MOST_CONVERSATION_BYTES = 32_000_000

_NOTHING_STORED = "This gateway stores no responses. Send the whole conversation as 'input', and 'store': false."

_encode = msgspec.json.encode
_decode_items = msgspec.json.Decoder(list[Raw]).decode


class ResponsesRequest(ChatRequest, gc=False, kw_only=True):
    """The chat request, what it was asked as, and the items of its input. `own` are the responses of whoever asks."""

    own: OwnResponses | None
    asked: Asked
    items: list[Raw]
    created_at: int


class ResponsesDoor:
    """Speaks the Responses API with one client.

    `own` gives the client's stored responses, told the `x_user_id` that a request names; None where none are stored.
    `clock` gives seconds since the epoch.
    """

    def __init__(
        self, own: Callable[[str | None], OwnResponses] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._own = own
        self._clock = clock

    def request(self, body: bytes) -> ResponsesRequest:
        """Reads a request body. Raises InvalidRequest, and ResponsesUnavailable if the stored ones cannot be read."""
        asked = parse(body)
        known = asked.known
        own = self._own(known.x_user_id) if self._own is not None else None
        if own is not None and known.store is not False and len(body) > MOST_RESPONSE_BYTES:
            message = f"Requests of more than {MOST_RESPONSE_BYTES:,} bytes cannot be stored. Send 'store': false."
            raise InvalidRequest(message, param="store", code="unsupported_value")
        before = _before(own, known.previous_response_id) if known.previous_response_id is not None else []
        items = resolve([_message(known.input)] if isinstance(known.input, str) else known.input, partial(_item, own))
        messages = conversation(known.instructions, before, items)
        if not items:
            raise InvalidRequest("'input' is empty. Send at least one item.", param="input", code="invalid_value")
        if not messages:
            raise InvalidRequest("'input' holds no message.", param="input", code="invalid_value")
        chat = parse_chat_request(_encode(chat_fields(asked, messages)))
        now = int(self._clock())
        return ResponsesRequest(chat.known, chat.fields, chat.size, own=own, asked=asked, items=items, created_at=now)

    def completion(self, request: ChatRequest, body: bytes, record_id: str) -> bytes:
        """The response object of a chat completion, stored if it is to be. Raises UpstreamBroken."""
        answer = self._answer(request, record_id, _ignore)
        answer.add(answer.understood(body))
        return answer.whole()[1]

    def stream(self, request: ChatRequest, record_id: str) -> ResponsesStream:
        """A stream of events, whose response is stored in the end if it is to be."""
        return ResponsesStream(partial(self._answer, request, record_id))

    def error(self, error: LexoraError, record_id: str | None = None) -> tuple[int, bytes]:  # noqa: ARG002 - a header says it
        """Status and body of the answer to a request that failed."""
        facts = error.envelope()["error"]
        return error.status, _encode({"error": {**facts, "param": param_here(facts["param"])}})

    def _answer(self, request: ChatRequest, record_id: str, emit: Emit) -> Answer:
        assert isinstance(request, ResponsesRequest)  # as `request` makes them
        asked, own = request.asked, request.own
        keep: Callable[[bytes], bool] | None = None
        if own is not None and asked.known.store is not False:
            previous, items = asked.known.previous_response_id, _encode(request.items)
            keep = partial(own.put, response_id(record_id), request.created_at, previous, items)
        return Answer(asked, record_id, request.created_at, self._clock, keep, emit)


def _before(own: OwnResponses | None, last: str) -> list[Raw]:
    """Every item of a conversation up to the output of a stored response."""
    if own is None:
        raise _not_found(_NOTHING_STORED)
    turns: list[list[Raw]] = []
    size = 0
    missing = last
    for stored in own.conversation(last):
        if stored is None:
            raise _not_found(f"There is no response '{missing}', or it is not stored any more.")
        turns.append(_decode_items(stored.input) + items_of(stored.response))
        size += len(stored.input) + len(stored.response)
        if size > _MOST_CONVERSATION_BYTES:
            raise _not_found("The conversation has become too long to go on with.")
        missing = stored.previous or ""
    return [item for turn in reversed(turns) for item in turn]


def _item(own: OwnResponses | None, item_id: str, where: str) -> Raw:
    """The item that a reference at `where` means. Raises InvalidRequest if there is none."""
    if own is None:
        raise InvalidRequest(_NOTHING_STORED, param=where, code="item_not_found")
    stored = own.get(response_of_item(item_id))
    item = item_of(stored.response, item_id) if stored is not None else None
    if item is None:
        message = f"There is no item '{item_id}', or it is not stored any more. Send the item itself."
        raise InvalidRequest(message, param=where, code="item_not_found")
    return item


def _not_found(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")


def _message(text: str) -> Raw:
    part = {"type": "input_text", "text": text}
    return Raw(_encode({"type": "message", "role": "user", "content": [part]}))


def _ignore(_kind: str, _fields: dict[str, Any]) -> None:
    """A plain answer has no events."""
