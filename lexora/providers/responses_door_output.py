"""The output of a response, item by item, made of the pieces of a chat completion.

A plain completion is one piece, a stream many; either way the same items come out, and the events on the way to them
(https://platform.openai.com/docs/api-reference/responses-streaming).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

Emit = Callable[[str, dict[str, Any]], None]


class ChatFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ChatCall(msgspec.Struct):
    """A tool call, or in a stream a piece of the one with its `index`; not every server says it."""

    index: int | None = None
    id: str | None = None
    function: ChatFunction | None = None


class ChatPart(msgspec.Struct):
    """A part of Mistral's content: text, or thinking that is made of text."""

    text: str = ""
    thinking: list["ChatPart"] | None = None

    def thought(self) -> str:
        return "".join(part.text for part in self.thinking or ())


class ChatPiece(msgspec.Struct):
    """A completion's message, or a chunk's delta. Servers call reasoning by either name."""

    content: str | list[ChatPart] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ChatCall] | None = None


class ChatToken(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list["ChatToken"] | None = None

    def wire(self) -> dict[str, Any]:
        """As the Responses API has it, where bytes are not left out."""
        own = list(self.token.encode()) if self.bytes is None else self.bytes
        return {"token": self.token, "bytes": own, "logprob": self.logprob}


class ChatLogprobs(msgspec.Struct):
    content: list[ChatToken] | None = None

    def wire(self) -> list[dict[str, Any]]:
        return [
            {**token.wire(), "top_logprobs": [other.wire() for other in token.top_logprobs or ()]}
            for token in self.content or ()
        ]


class _Item:
    """An item that is being written. `item` is what stands in the output, whole once it is closed."""

    def __init__(self, item: dict[str, Any], index: int, emit: Emit) -> None:
        self.item = item
        self._place = {"item_id": item["id"], "output_index": index}
        self._emit = emit
        self._pieces: list[str] = []
        emit("response.output_item.added", {"output_index": index, "item": item})

    def close(self, status: str) -> None:
        if "status" in self.item:
            self.item["status"] = status
        self._emit("response.output_item.done", {"output_index": self._place["output_index"], "item": self.item})


class _Reasoning(_Item):
    """What a model thought, as the one part of a summary."""

    def __init__(self, item_id: str, index: int, emit: Emit) -> None:
        super().__init__({"id": f"rs_{item_id}", "type": "reasoning", "summary": []}, index, emit)
        self._place["summary_index"] = 0
        part = {"type": "summary_text", "text": ""}
        emit("response.reasoning_summary_part.added", {**self._place, "part": part})

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self._emit("response.reasoning_summary_text.delta", {**self._place, "delta": text})

    def close(self, status: str) -> None:
        text = "".join(self._pieces)
        part = {"type": "summary_text", "text": text}
        self._emit("response.reasoning_summary_text.done", {**self._place, "text": text})
        self._emit("response.reasoning_summary_part.done", {**self._place, "part": part})
        self.item["summary"] = [part]
        super().close(status)


class _Message(_Item):
    """What a model said: parts of text, and of refusal."""

    def __init__(self, item_id: str, index: int, emit: Emit) -> None:
        item = {"id": f"msg_{item_id}", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        super().__init__(item, index, emit)
        self._part: dict[str, Any] | None = None

    def add_text(self, text: str, logprobs: Sequence[dict[str, Any]]) -> None:
        part = self._open_part({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        self._pieces.append(text)
        part["logprobs"] += logprobs
        if text:
            self._emit("response.output_text.delta", {**self._place, "delta": text, "logprobs": logprobs})

    def add_refusal(self, text: str) -> None:
        self._open_part({"type": "refusal", "refusal": ""})
        self._pieces.append(text)
        self._emit("response.refusal.delta", {**self._place, "delta": text})

    def close(self, status: str) -> None:
        self._close_part()
        super().close(status)

    def _open_part(self, part: dict[str, Any]) -> dict[str, Any]:
        if self._part is None or self._part["type"] != part["type"]:
            self._close_part()
            self._place["content_index"] = len(self.item["content"])
            self._emit("response.content_part.added", {**self._place, "part": part})
            self._part = part
        return self._part

    def _close_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        text = "".join(self._pieces)
        self._pieces.clear()
        if part["type"] == "refusal":
            part["refusal"] = text
            self._emit("response.refusal.done", {**self._place, "refusal": text})
        else:
            part["text"] = text
            self._emit("response.output_text.done", {**self._place, "text": text, "logprobs": part["logprobs"]})
        self._emit("response.content_part.done", {**self._place, "part": part})
        self.item["content"].append(part)


class _Call(_Item):
    """A function that a model calls."""

    def __init__(self, item_id: str, call_id: str, name: str, index: int, emit: Emit) -> None:
        item = {"id": f"fc_{item_id}", "type": "function_call", "status": "in_progress", "arguments": ""}
        super().__init__({**item, "call_id": call_id, "name": name}, index, emit)

    def add(self, arguments: str) -> None:
        self._pieces.append(arguments)
        self._emit("response.function_call_arguments.delta", {**self._place, "delta": arguments})

    def close(self, status: str) -> None:
        arguments = "".join(self._pieces)
        done = {**self._place, "name": self.item["name"], "arguments": arguments}
        self._emit("response.function_call_arguments.done", done)
        self.item["arguments"] = arguments
        super().close(status)


_Spoken = TypeVar("_Spoken", _Reasoning, _Message)


class Output:
    """The output so far. Ids of items begin with the record's id, so that an item leads to its response."""

    def __init__(self, record_id: str, emit: Emit) -> None:
        self._record_id = record_id
        self._emit = emit
        self._items: list[_Item] = []
        self._spoken: _Reasoning | _Message | None = None
        self._calls: dict[int, _Call] = {}  # by index; open until the end, as the pieces of several may come in turns

    @property
    def items(self) -> list[dict[str, Any]]:
        return [item.item for item in self._items]

    def add(self, piece: ChatPiece, logprobs: ChatLogprobs | None) -> None:
        thought, text = piece.reasoning_content or piece.reasoning or "", piece.content or ""
        if not isinstance(text, str):
            thought += "".join(part.thought() for part in text)
            text = "".join(part.text for part in text)
        if thought:
            self._speaking(_Reasoning).add(thought)
        if text:
            self._speaking(_Message).add_text(text, logprobs.wire() if logprobs else [])
        if piece.refusal:
            self._speaking(_Message).add_refusal(piece.refusal)
        for call in piece.tool_calls or ():
            self._add_call(call)

    def finish(self, status: str) -> None:
        """Closes what is open, as `completed` or `incomplete`. An answer of nothing is an empty message."""
        if not self._items:
            self._speaking(_Message).add_text("", [])
        self._hush(status)
        for item in self._items:
            if isinstance(item, _Call):
                item.close(status)

    def _speaking(self, kind: type[_Spoken]) -> _Spoken:
        if not isinstance(self._spoken, kind):
            self._hush("completed")
            spoken = self._spoken = kind(self._next_id(), len(self._items), self._emit)
            self._items.append(spoken)
            return spoken
        return self._spoken

    def _hush(self, status: str) -> None:
        if self._spoken is not None:
            self._spoken.close(status)
            self._spoken = None

    def _add_call(self, piece: ChatCall) -> None:
        function = piece.function or ChatFunction()
        index = max(self._calls, default=0) if piece.index is None else piece.index
        call = self._calls.get(index)
        # Some servers give whole calls, without an index or all with the same.
        other = call is not None and piece.id not in (None, "", call.item["call_id"])
        if call is None or (function.name and (other or piece.index is None)):
            self._hush("completed")
            item_id = self._next_id()
            call_id = piece.id or f"call_{item_id}"
            call = self._calls[index] = _Call(item_id, call_id, function.name or "", len(self._items), self._emit)
            self._items.append(call)
        if function.arguments:
            call.add(function.arguments)

    def _next_id(self) -> str:
        return f"{self._record_id}{len(self._items):04x}"


def response_id(record_id: str) -> str:
    return f"resp_{record_id}"


def response_of_item(item_id: str) -> str:
    """The id of the response whose output an item of ours stands in."""
    return response_id(item_id.partition("_")[2][:-4])


def items_of(response: bytes) -> list[Raw]:
    """The items of a response object's output, as they stand there."""
    return _decode_response(response).output


def item_of(response: bytes, item_id: str) -> Raw | None:
    """The one of them with an id."""
    return next((item for item in items_of(response) if _decode_item(item).id == item_id), None)


class _Response(msgspec.Struct):
    output: list[Raw]


class _Identified(msgspec.Struct):
    id: str


_decode_response = msgspec.json.Decoder(_Response).decode
_decode_item = msgspec.json.Decoder(_Identified).decode
