"""Anthropic's answers as OpenAI's, plain and streamed (https://platform.claude.com/docs/en/build-with-claude/streaming).

Kinds of events and blocks that are not known here are passed over: Anthropic may add some at any time.
"""

from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamBroken
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON, Completion, MalformedEvent, Transcript
from lexora.providers.errors import refused_as
from lexora.providers.sse import event

_FINISH_REASON = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None

    def updated(self, later: "_Usage") -> "_Usage":
        """The counts of a stream so far: they are running totals, and later events need not repeat all of them."""
        before = msgspec.structs.asdict(self)
        return _Usage(**{name: now or before[name] for name, now in msgspec.structs.asdict(later).items()})

    def usage(self) -> Usage:
        """Anthropic counts cached tokens beside `input_tokens`, OpenAI inside `prompt_tokens`."""
        cached = self.cache_read_input_tokens or 0
        written, kept = self.cache_creation_input_tokens or 0, self.cache_creation
        details = self.output_tokens_details
        return Usage(
            (self.input_tokens or 0) + written + cached,
            self.output_tokens or 0,
            cached,
            (details and details.thinking_tokens) or 0,
            written,
            min(written, (kept and kept.ephemeral_1h_input_tokens) or 0),
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
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str = ""


class _Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    """`signature` proves to Anthropic that it is its own. It goes on in LiteLLM's `thinking_blocks`."""

    thinking: str = ""
    signature: str = ""


class _RedactedThinking(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    data: str


class _ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: Raw = Raw(b"{}")

    def call(self, arguments: str) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}

    def arguments(self) -> str:
        return bytes(self.input).decode()


_Block = _Text | _Thinking | _RedactedThinking | _ToolUse


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    content: list[Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _TextDelta(msgspec.Struct, tag_field="type", tag="text_delta"):
    text: str


class _ThinkingDelta(msgspec.Struct, tag_field="type", tag="thinking_delta"):
    thinking: str


class _SignatureDelta(msgspec.Struct, tag_field="type", tag="signature_delta"):
    signature: str


class _InputDelta(msgspec.Struct, tag_field="type", tag="input_json_delta"):
    partial_json: str


_Delta = _TextDelta | _ThinkingDelta | _SignatureDelta | _InputDelta


class _MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    message: _Message


class _BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    index: int
    content_block: _Block


class _BlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    index: int
    delta: _Delta


class _BlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    index: int


class _Stop(msgspec.Struct):
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    delta: _Stop
    usage: _Usage | None = None


class _MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    pass


class _Error(msgspec.Struct, tag_field="type", tag="error"):
    error: Any = None


_Event = _MessageStart | _BlockStart | _BlockDelta | _BlockStop | _MessageDelta | _MessageStop | _Error

_encode = msgspec.json.encode
_decode_answer = msgspec.json.Decoder(_Message).decode
_decode_block: msgspec.json.Decoder[_Block] = msgspec.json.Decoder(_Block)
_decode_event: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event)


def _is_unknown_kind(error: msgspec.ValidationError) -> bool:
    """Whether all that is wrong is a `type` that is not known here ("Invalid value 'x' - at `$.delta.type`")."""
    problem = str(error)
    return problem.startswith("Invalid value '") and problem.endswith(".type`")


def completion(body: bytes, created: int) -> Completion:
    """Anthropic's message as a `chat.completion`. Raises UpstreamRefused (an error inside a 200) and UpstreamBroken."""
    try:
        answer = _decode_answer(body)
        blocks = [block for raw in answer.content or () if (block := _block(raw)) is not None]
    except NOT_JSON:
        raise UpstreamBroken("The upstream's answer is not a message of Anthropic's API.") from None
    if answer.error is not None:
        raise refused_as(0, {"error": answer.error})
    if answer.content is None:
        raise UpstreamBroken("The upstream's answer has no content.")
    calls = [block.call(block.arguments()) for block in blocks if isinstance(block, _ToolUse)]
    text = "".join(block.text for block in blocks if isinstance(block, _Text))
    reasoning = "".join(block.thinking for block in blocks if isinstance(block, _Thinking))
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    thought = [block for block in blocks if isinstance(block, _Thinking | _RedactedThinking)]
    if any(isinstance(block, _RedactedThinking) or block.signature for block in thought):
        message["thinking_blocks"] = thought
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, **_finished(answer.stop_reason, answer.stop_sequence)}
    out: dict[str, Any] = {
        "id": answer.id,
        "object": "chat.completion",
        "created": created,
        "model": answer.model,
        "choices": [choice],
    }
    if answer.usage is not None:
        out["usage"] = answer.usage.wire()
    return Completion(_encode(out), answer.id, answer.model, answer.usage.usage() if answer.usage else None)


def _finished(stop_reason: str | None, stop_sequence: str | None) -> dict[str, str]:
    """Why a choice ended. Which sequence ended it has a place in vLLM's choices alone, which is taken over."""
    finished = {"finish_reason": _FINISH_REASON.get(stop_reason or "", "stop")}
    return {**finished, "stop_reason": stop_sequence} if stop_sequence else finished


def _block(raw: Raw) -> _Block | None:
    try:
        return _decode_block.decode(raw)
    except msgspec.ValidationError as error:
        if _is_unknown_kind(error):
            return None
        raise


class _OpenCall(msgspec.Struct):
    """A tool call whose arguments are still coming."""

    index: int
    arguments_at_start: str
    has_arguments: bool = False


class AnthropicChunkReader:
    """Turns Anthropic's events into OpenAI's chunks."""

    def __init__(self, request: ChatRequest, created: int) -> None:
        self.id = ""
        self.model = ""
        self.usage: Usage | None = None
        self.tokens_seen = 0
        self.ended = False
        self.transcript = Transcript()
        self._counted: _Usage | None = None
        self._open_calls: dict[int, _OpenCall] = {}
        self._calls = 0
        self._show_usage = request.include_usage
        # OpenAI's own SDK stumbles over lists that it does not know.
        self._show_signatures = request.anthropic is not None
        self._facts: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": created, "model": ""}

    def read(self, data: bytes) -> bytes:
        try:
            said = _decode_event.decode(data)
        except msgspec.ValidationError as error:
            if _is_unknown_kind(error):
                return b""
            raise MalformedEvent from None
        except NOT_JSON:
            raise MalformedEvent from None
        match said:
            case _BlockDelta(index=index, delta=delta):
                return self._delta(index, delta)
            case _BlockStart(index=index, content_block=block):
                return self._block_start(index, block)
            case _BlockStop(index=index):
                return self._block_stop(index)
            case _MessageStart(message=message):
                self.id, self.model = message.id, message.model
                self._count(message.usage)
                self._facts |= {"id": message.id, "model": message.model}
                return self._chunk({"role": "assistant", "content": None})
            case _MessageDelta(delta=stop, usage=usage):
                self._count(usage)
                return self._finish(stop) if stop.stop_reason else b""
            case _MessageStop():
                return self._finish(_Stop("end_turn"))
            case _Error(error=error):
                raise refused_as(0, {"error": error})

    def _delta(self, index: int, delta: _Delta) -> bytes:
        match delta:
            case _TextDelta(text=text):
                return self._part("content", text)
            case _ThinkingDelta(thinking=thinking):
                return self._part("reasoning_content", thinking)
            case _SignatureDelta(signature=signature):
                return self._thought(_Thinking("", signature)) if signature else b""
            case _InputDelta(partial_json=arguments):
                call = self._open_calls.get(index)
                if call is None or not arguments:
                    return b""  # the input of a tool that Anthropic runs itself, or its empty beginning
                call.has_arguments = True
                return self._arguments(call, arguments)

    def _block_start(self, index: int, block: _Block) -> bytes:
        match block:
            case _Text(text=text):
                return self._part("content", text)
            case _Thinking(thinking=thinking):
                return self._part("reasoning_content", thinking)
            case _RedactedThinking():
                return self._thought(block)
            case _ToolUse():
                self.transcript.spoil()
                call = self._open_calls[index] = _OpenCall(self._calls, block.arguments())
                self._calls += 1
                self.tokens_seen += 1
                return self._chunk({"tool_calls": [{"index": call.index, **block.call("")}]})

    def _block_stop(self, index: int) -> bytes:
        call = self._open_calls.pop(index, None)
        # A tool without parameters may come without any input; "" would not be JSON to the client.
        return b"" if call is None or call.has_arguments else self._arguments(call, call.arguments_at_start)

    def _arguments(self, call: _OpenCall, arguments: str) -> bytes:
        self.tokens_seen += 1
        return self._chunk({"tool_calls": [{"index": call.index, "function": {"arguments": arguments}}]})

    def _thought(self, block: _Thinking | _RedactedThinking) -> bytes:
        self.transcript.spoil()
        return self._chunk({"thinking_blocks": [block]}) if self._show_signatures else b""

    def _part(self, name: str, text: str) -> bytes:
        if not text:
            return b""
        self.tokens_seen += 1
        if name == "content":
            self.transcript.add(text)
        else:
            self.transcript.spoil()
        return self._chunk({name: text})

    def _finish(self, stop: _Stop) -> bytes:
        """The last chunks, once. Usage goes out with the stop reason: not every server says `message_stop` after it."""
        if self.ended:
            return b""
        self.ended = True
        finish = self._chunk({}, **_finished(stop.stop_reason, stop.stop_sequence))
        if not self._show_usage or self._counted is None:
            return finish
        return finish + event(_encode({**self._facts, "choices": [], "usage": self._counted.wire()}))

    def _count(self, usage: _Usage | None) -> None:
        if usage is not None:
            self._counted = self._counted.updated(usage) if self._counted else usage
            self.usage = self._counted.usage()

    def _chunk(self, delta: dict[str, Any], **finished: str) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **finished}
        chunk = {**self._facts, "choices": [choice]}
        if self._show_usage:
            chunk["usage"] = None
        return event(_encode(chunk))
