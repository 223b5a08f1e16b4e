"""ConverseStream's answers as OpenAI's.

(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.) They have neither an id nor a
model. Kinds of events and blocks that are not known here are passed over: AWS may add some at any time.
"""

from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamRefused
from lexora.core.usage import Usage
from lexora.providers.bedrock_response import (
    Camel,
    Counts,
    Reasoning,
    ReasoningText,
    ToolUse,
    finish_reason,
    new_id,
    no_image,
)
from lexora.providers.dialect import NOT_JSON, MalformedEvent, Transcript
from lexora.providers.errors import refused_as
from lexora.providers.sse import event

# The exceptions that a stream may end with, as statuses.
_STATUS = {
    "validationException": 400,
    "modelTimeoutException": 408,
    "modelStreamErrorException": 424,
    "throttlingException": 429,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
}


class _Start(Camel):
    tool_use: ToolUse | None = None
    image: Any = None


class _BlockStart(Camel):
    content_block_index: int
    start: _Start


class _Input(Camel):
    input: str = ""


class _ReasoningDelta(Camel):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(Camel):
    text: str | None = None
    tool_use: _Input | None = None
    reasoning_content: _ReasoningDelta | None = None


class _BlockDelta(Camel):
    content_block_index: int
    delta: _Delta


class _BlockStop(Camel):
    content_block_index: int


class _MessageStop(Camel):
    stop_reason: str


class _Metadata(Camel):
    usage: Counts | None = None


_encode = msgspec.json.encode
_decode_message = msgspec.json.Decoder(dict[str, Raw]).decode


class _OpenCall(msgspec.Struct):
    """A tool call whose arguments are still coming."""

    index: int
    has_arguments: bool = False


class BedrockChunkReader:
    """Turns the messages of a stream into OpenAI's chunks. `model` is set from outside: Bedrock does not say it."""

    def __init__(self, request: ChatRequest, created: int) -> None:
        self.id = new_id()
        self.model = ""
        self.usage: Usage | None = None
        self.tokens_seen = 0
        self.ended = False
        self.transcript = Transcript()
        self._created = created
        self._show_usage = request.include_usage
        # OpenAI's own SDK stumbles over lists that it does not know.
        self._show_signatures = request.anthropic is not None
        self._open_calls: dict[int, _OpenCall] = {}
        self._calls = 0

    def read(self, data: bytes) -> bytes:
        try:
            ((kind, payload),) = _decode_message(data).items()
            if kind in _STATUS or kind == "error" or kind.endswith("Exception"):
                raise _exception(kind, payload)
            return self._message(kind, payload)
        except (*NOT_JSON, ValueError):
            raise MalformedEvent from None

    def _message(self, kind: str, payload: Raw) -> bytes:
        match kind:
            case "contentBlockDelta":
                return self._delta(msgspec.json.decode(payload, type=_BlockDelta))
            case "contentBlockStart":
                return self._start(msgspec.json.decode(payload, type=_BlockStart))
            case "contentBlockStop":
                return self._stop(msgspec.json.decode(payload, type=_BlockStop))
            case "messageStart":
                return self._chunk({"role": "assistant", "content": None})
            case "messageStop":
                finish = finish_reason(msgspec.json.decode(payload, type=_MessageStop).stop_reason)
                self.ended = True
                return self._chunk({}, finish)
            case "metadata":
                return self._count(msgspec.json.decode(payload, type=_Metadata).usage)
        return b""

    def _start(self, block: _BlockStart) -> bytes:
        if block.start.image is not None:
            raise no_image()
        tool = block.start.tool_use
        if tool is None or tool.type is not None:
            return b""
        self.transcript.spoil()
        call = self._open_calls[block.content_block_index] = _OpenCall(self._calls)
        self._calls += 1
        self.tokens_seen += 1
        return self._chunk({"tool_calls": [{"index": call.index, **tool.call("")}]})

    def _delta(self, block: _BlockDelta) -> bytes:
        delta, call = block.delta, self._open_calls.get(block.content_block_index)
        if delta.text:
            self.tokens_seen += 1
            self.transcript.add(delta.text)
            return self._chunk({"content": delta.text})
        if delta.reasoning_content is not None:
            self.transcript.spoil()
            return self._thought(delta.reasoning_content)
        if delta.tool_use is not None and delta.tool_use.input and call is not None:
            call.has_arguments = True
            return self._arguments(call, delta.tool_use.input)
        return b""

    def _thought(self, thought: _ReasoningDelta) -> bytes:
        if thought.text:
            self.tokens_seen += 1
            return self._chunk({"reasoning_content": thought.text})
        if not self._show_signatures:
            return b""
        text = ReasoningText(signature=thought.signature) if thought.signature else None
        block = Reasoning(text, thought.redacted_content).block() if text or thought.redacted_content else None
        return self._chunk({"thinking_blocks": [block]}) if block else b""

    def _stop(self, block: _BlockStop) -> bytes:
        call = self._open_calls.pop(block.content_block_index, None)
        # A tool without parameters may come without any input; "" would not be JSON to the client.
        return b"" if call is None or call.has_arguments else self._arguments(call, "{}")

    def _arguments(self, call: _OpenCall, arguments: str) -> bytes:
        self.tokens_seen += 1
        return self._chunk({"tool_calls": [{"index": call.index, "function": {"arguments": arguments}}]})

    def _count(self, usage: Counts | None) -> bytes:
        if usage is None:
            return b""
        self.usage = usage.usage()
        return event(_encode({**self._facts(), "choices": [], "usage": usage.wire()})) if self._show_usage else b""

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._facts(), "choices": [choice]}
        if self._show_usage:
            chunk["usage"] = None
        return event(_encode(chunk))

    def _facts(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self._created, "model": self.model}


def _exception(kind: str, payload: Raw) -> UpstreamRefused:
    """The error that a stream reports: an exception of Bedrock's API, or one of the stream itself (`error`)."""
    try:
        said = msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.ValidationError:
        said = {}
    message = said.get("originalMessage") or said.get("message") or said.get("Message")
    type_ = said.get("code") if kind == "error" else kind
    return refused_as(0, {"error": {"message": message, "type": type_, "code": _STATUS.get(kind, 500)}})
