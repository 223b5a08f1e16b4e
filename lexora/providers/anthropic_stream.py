"""Anthropic's streams as OpenAI's (https://platform.claude.com/docs/en/build-with-claude/streaming).

Kinds of events and blocks that are not known here are passed over: Anthropic may add some at any time.
"""

from typing import Any

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.usage import Usage
from lexora.providers.anthropic_response import (
    Block,
    Counts,
    Message,
    RedactedThinking,
    Text,
    Thinking,
    ToolUse,
    finished,
    is_unknown_kind,
)
from lexora.providers.dialect import NOT_JSON, MalformedEvent, Transcript
from lexora.providers.errors import refused_as
from lexora.providers.sse import event


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
    message: Message


class _BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    index: int
    content_block: Block


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
    usage: Counts | None = None


class _MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    pass


class _Error(msgspec.Struct, tag_field="type", tag="error"):
    error: Any = None


_Event = _MessageStart | _BlockStart | _BlockDelta | _BlockStop | _MessageDelta | _MessageStop | _Error

_encode = msgspec.json.encode
_decode_event: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event)


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
        self._counted: Counts | None = None
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
            if is_unknown_kind(error):
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
                return self._thought(Thinking("", signature)) if signature else b""
            case _InputDelta(partial_json=arguments):
                call = self._open_calls.get(index)
                if call is None or not arguments:
                    return b""  # the input of a tool that Anthropic runs itself, or its empty beginning
                call.has_arguments = True
                return self._arguments(call, arguments)

    def _block_start(self, index: int, block: Block) -> bytes:
        match block:
            case Text(text=text):
                return self._part("content", text)
            case Thinking(thinking=thinking):
                return self._part("reasoning_content", thinking)
            case RedactedThinking():
                return self._thought(block)
            case ToolUse():
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

    def _thought(self, block: Thinking | RedactedThinking) -> bytes:
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
        finish = self._chunk({}, **finished(stop.stop_reason, stop.stop_sequence))
        if not self._show_usage or self._counted is None:
            return finish
        return finish + event(_encode({**self._facts, "choices": [], "usage": self._counted.wire()}))

    def _count(self, usage: Counts | None) -> None:
        if usage is not None:
            self._counted = self._counted.updated(usage) if self._counted else usage
            self.usage = self._counted.usage()

    def _chunk(self, delta: dict[str, Any], **finished: str) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **finished}
        chunk = {**self._facts, "choices": [choice]}
        if self._show_usage:
            chunk["usage"] = None
        return event(_encode(chunk))
