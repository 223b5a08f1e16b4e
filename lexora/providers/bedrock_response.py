"""Converse's answers as OpenAI's, plain and streamed.

(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.) Neither has an id or a model.
Kinds of events and blocks that are not known here are passed over: AWS may add some at any time.
"""

from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamBroken, UpstreamRefused
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON, Completion, MalformedEvent, Transcript
from lexora.providers.errors import refused_as
from lexora.providers.sse import event

_FINISH_REASON = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
# The answer is none: asked again, the model may do better.
_FAILED = {"malformed_model_output", "malformed_tool_use"}

# The exceptions that a stream may end with, as statuses.
_STATUS = {
    "validationException": 400,
    "modelTimeoutException": 408,
    "modelStreamErrorException": 424,
    "throttlingException": 429,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
}


class _Camel(msgspec.Struct, rename="camel"):
    """Bedrock's names are in camel case."""


class _CacheDetail(_Camel):
    ttl: str = ""
    input_tokens: int = 0


class _Usage(_Camel):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[_CacheDetail] | None = None

    def usage(self) -> Usage:
        """Bedrock counts cached tokens beside `inputTokens`, OpenAI inside `prompt_tokens`. It counts no thoughts."""
        cached, written = self.cache_read_input_tokens or 0, self.cache_write_input_tokens or 0
        for_an_hour = sum(detail.input_tokens for detail in self.cache_details or () if detail.ttl == "1h")
        return Usage(
            self.input_tokens + cached + written,
            self.output_tokens,
            cached,
            cache_write_tokens=written,
            cache_write_1h_tokens=min(written, for_an_hour),
        )

    def wire(self) -> dict[str, Any]:
        """OpenAI's `usage` object."""
        usage = self.usage()
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
            },
        }


class _ToolUse(_Camel):
    """`type` is only said of tools that Bedrock runs itself."""

    tool_use_id: str
    name: str
    input: Raw = Raw(b"{}")
    type: str | None = None

    def call(self, arguments: str) -> dict[str, Any]:
        return {"id": self.tool_use_id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


class _ReasoningText(_Camel):
    text: str = ""
    signature: str = ""


class _Reasoning(_Camel):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None

    def block(self) -> dict[str, str]:
        """As one of LiteLLM's `thinking_blocks`, for the model to see again."""
        if self.reasoning_text is None:
            return {"type": "redacted_thinking", "data": self.redacted_content or ""}
        return {"type": "thinking", "thinking": self.reasoning_text.text, "signature": self.reasoning_text.signature}


class _Text(_Camel):
    text: str = ""


class _Citations(_Camel):
    content: list[_Text] | None = None


class _Block(_Camel):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Citations | None = None
    image: Any = None

    def said(self) -> str:
        cited = self.citations_content.content if self.citations_content else None
        return (self.text or "") + "".join(part.text for part in cited or ())


class _Message(_Camel):
    content: list[_Block]


class _Output(_Camel):
    message: _Message


class _Answer(_Camel):
    output: _Output
    stop_reason: str = ""
    usage: _Usage | None = None


class _Start(_Camel):
    tool_use: _ToolUse | None = None
    image: Any = None


class _BlockStart(_Camel):
    content_block_index: int
    start: _Start


class _Input(_Camel):
    input: str = ""


class _ReasoningDelta(_Camel):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(_Camel):
    text: str | None = None
    tool_use: _Input | None = None
    reasoning_content: _ReasoningDelta | None = None


class _BlockDelta(_Camel):
    content_block_index: int
    delta: _Delta


class _BlockStop(_Camel):
    content_block_index: int


class _MessageStop(_Camel):
    stop_reason: str


class _Metadata(_Camel):
    usage: _Usage | None = None


_encode = msgspec.json.encode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_message = msgspec.json.Decoder(dict[str, Raw]).decode


def completion(body: bytes, created: int) -> Completion:
    """Converse's answer as a `chat.completion` without a model. Raises UpstreamRefused and UpstreamBroken."""
    try:
        answer = _decode_answer(body)
    except NOT_JSON:
        raise UpstreamBroken("The upstream's answer is not one of Bedrock's Converse.") from None
    blocks = answer.output.message.content
    if any(block.image is not None for block in blocks):
        raise _no_image()
    calls = [block.tool_use for block in blocks if block.tool_use is not None and block.tool_use.type is None]
    text = "".join(block.said() for block in blocks)
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    thoughts = [block.reasoning_content for block in blocks if block.reasoning_content is not None]
    if reasoning := "".join(thought.reasoning_text.text for thought in thoughts if thought.reasoning_text):
        message["reasoning_content"] = reasoning
    if any(not thought.reasoning_text or thought.reasoning_text.signature for thought in thoughts):
        message["thinking_blocks"] = [thought.block() for thought in thoughts]
    if calls:
        message["tool_calls"] = [call.call(_compact(call.input)) for call in calls]
    finish = _finish_reason(answer.stop_reason)
    out: dict[str, Any] = {
        "id": _new_id(),
        "object": "chat.completion",
        "created": created,
        "model": "",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
    }
    if answer.usage is not None:
        out["usage"] = answer.usage.wire()
    return Completion(_encode(out), out["id"], "", answer.usage.usage() if answer.usage else None)


def _new_id() -> str:
    return f"chatcmpl-{uuid4().hex}"


def _compact(arguments: Raw) -> str:
    """As JSON without white space, and with the numbers as they are."""
    found = bytes(msgspec.json.format(arguments, indent=-1)).decode()
    return "{}" if found == "null" else found


def _finish_reason(stop_reason: str) -> str:
    """OpenAI's `finish_reason`. Raises UpstreamRefused if the model could not answer."""
    if stop_reason in _FAILED:
        message = f"The model broke its answer off ({stop_reason})."
        raise refused_as(0, {"error": {"message": message, "type": stop_reason, "code": 502}})
    return _FINISH_REASON.get(stop_reason, "stop")


def _no_image() -> UpstreamRefused:
    message = "The model answered with an image, which no chat completion can hold. Choose a model that writes."
    return refused_as(0, {"error": {"message": message, "code": 400}})


class _OpenCall(msgspec.Struct):
    """A tool call whose arguments are still coming."""

    index: int
    has_arguments: bool = False


class BedrockChunkReader:
    """Turns the messages of a stream into OpenAI's chunks. `model` is set from outside: Bedrock does not say it."""

    def __init__(self, request: ChatRequest, created: int) -> None:
        self.id = _new_id()
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
                finish = _finish_reason(msgspec.json.decode(payload, type=_MessageStop).stop_reason)
                self.ended = True
                return self._chunk({}, finish)
            case "metadata":
                return self._count(msgspec.json.decode(payload, type=_Metadata).usage)
        return b""

    def _start(self, block: _BlockStart) -> bytes:
        if block.start.image is not None:
            raise _no_image()
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
        text = _ReasoningText(signature=thought.signature) if thought.signature else None
        block = _Reasoning(text, thought.redacted_content).block() if text or thought.redacted_content else None
        return self._chunk({"thinking_blocks": [block]}) if block else b""

    def _stop(self, block: _BlockStop) -> bytes:
        call = self._open_calls.pop(block.content_block_index, None)
        # A tool without parameters may come without any input; "" would not be JSON to the client.
        return b"" if call is None or call.has_arguments else self._arguments(call, "{}")

    def _arguments(self, call: _OpenCall, arguments: str) -> bytes:
        self.tokens_seen += 1
        return self._chunk({"tool_calls": [{"index": call.index, "function": {"arguments": arguments}}]})

    def _count(self, usage: _Usage | None) -> bytes:
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
