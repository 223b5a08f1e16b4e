"""OpenAI's chunks as Anthropic's events (https://platform.claude.com/docs/en/build-with-claude/streaming).

Anthropic's blocks come one after the other, each whole. OpenAI's may come mixed: then the later ones are held back.
The arguments of a tool call are passed on as the model writes them, be they JSON or not.
"""

from typing import Any

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.errors import LexoraError
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON
from lexora.providers.messages_door_errors import error_body
from lexora.providers.messages_door_response import (
    Content,
    ThinkingBlock,
    arguments_of,
    estimated,
    message_head,
    stopped,
    text_block,
    text_of,
    tool_block,
    tool_id,
    usage_of_message,
    usage_of_stream,
)
from lexora.providers.openai_usage import OpenAIUsage
from lexora.providers.sse import named_event


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: Content = None
    thinking_blocks: list[ThinkingBlock] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: Any = None


class _Chunk(msgspec.Struct):
    model: str = ""
    choices: list[_Choice] | None = None
    usage: OpenAIUsage | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.encode

_DELTA = {
    kind: b'{"type":"content_block_delta","index":%%d,"delta":{"type":"%b","%b":%%b}}' % (delta, field)
    for kind, delta, field in (
        ("text", b"text_delta", b"text"),
        ("thinking", b"thinking_delta", b"thinking"),
        ("tool_use", b"input_json_delta", b"partial_json"),
    )
}

_KEEP_ALIVE = b": keep-alive"
_PING = named_event(b"ping", b'{"type":"ping"}')


class _Block:
    """A block that is going out, or that waits until those before it are whole."""

    __slots__ = ("call_id", "kind", "name", "opened", "redacted", "said", "signature", "waiting")

    def __init__(self, kind: str, call_id: str = "", name: str = "") -> None:
        self.kind = kind
        self.call_id = call_id
        self.name = name
        self.opened = False
        self.redacted: str | None = None
        self.signature = ""
        self.waiting: list[str] = []
        self.said: list[str] = []  # of a tool call

    def start(self) -> dict[str, Any]:
        """The block as it is before its first delta."""
        match self.kind:
            case "thinking":
                return ThinkingBlock(data=self.redacted).wire()
            case "text":
                return text_block("")
        return tool_block(self.call_id, self.name, {})

    def is_whole(self) -> bool:
        """Whether nothing can come any more, given that another block has begun."""
        return self.kind != "tool_use" or (bool(self.said) and arguments_of("".join(self.said)) is not None)


class MessageStream:
    """Turns the chunks of one answer into Anthropic's events."""

    def __init__(self, request: ChatRequest, record_id: str) -> None:
        self._request = request
        self._record_id = record_id
        self._begun = False
        self._index = -1  # of the block that is going out
        self._blocks: list[_Block] = []  # the first one is going out
        self._calls: dict[int, _Block] = {}
        self._called = 0
        self._pieces = 0
        self._refused = False
        self._finish_reason: str | None = None
        self._stop_reason: Any = None
        self._usage: Usage | None = None

    def start(self) -> bytes:
        """Nothing: the first chunk says which model answers."""
        return b""

    def feed(self, frames: bytes) -> bytes:
        out: list[bytes] = []
        for frame in frames.split(b"\n\n"):
            if frame.startswith(b"data: "):
                self._read(frame[6:], out)
            elif frame.startswith(_KEEP_ALIVE):
                out.append(_PING)
            elif frame:
                out.append(frame + b"\n\n")
        return b"".join(out)

    def end(self, frames: bytes) -> bytes:
        out = [self.feed(frames)]
        self._begin("", out)
        while self._blocks:
            self._close(out)
        usage = self._usage or estimated(self._request, self._pieces)
        ended = stopped(self._finish_reason, self._stop_reason, calls=self._called > 0, refused=self._refused)
        delta = {**ended, "container": None}
        out.append(_event({"type": "message_delta", "delta": delta, "usage": usage_of_stream(usage)}))
        out.append(_event({"type": "message_stop"}))
        return b"".join(out)

    def error(self, error: LexoraError) -> bytes:
        return named_event(b"error", error_body(error, self._record_id))

    def _read(self, data: bytes, out: list[bytes]) -> None:
        try:
            chunk = _decode_chunk(data)
        except NOT_JSON:
            return  # [DONE], and what an upstream adds of its own
        if chunk.usage is not None:
            self._usage = chunk.usage.usage()
        self._begin(chunk.model, out)
        if not chunk.choices or chunk.choices[0].index:
            return
        choice = chunk.choices[0]
        if choice.finish_reason:
            self._finish_reason, self._stop_reason = choice.finish_reason, choice.stop_reason
        delta = choice.delta
        if delta is None:
            return
        if thinking := delta.reasoning_content or delta.reasoning:
            self._add(self._last("thinking"), thinking, out)
        for thought in delta.thinking_blocks or ():
            self._add_thought(thought, out)
        if text := text_of(delta.content):
            self._add(self._last("text"), text, out)
        if delta.refusal:
            self._refused = True
            self._add(self._last("text"), delta.refusal, out)
        for call in delta.tool_calls or ():
            function = call.function or _Function()
            self._add(self._of(call, function.name or ""), function.arguments or "", out)

    def _begin(self, model: str, out: list[bytes]) -> None:
        """`message_start`, once. Most upstreams say only at the end what was used."""
        if self._begun:
            return
        self._begun = True
        message = {
            **message_head(self._record_id, model or self._request.known.model or ""),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": usage_of_message(self._usage or Usage()),
        }
        out.append(_event({"type": "message_start", "message": message}))

    def _add_thought(self, thought: ThinkingBlock, out: list[bytes]) -> None:
        """A signature ends the thinking that has come, if any has; encrypted thinking is a block of its own."""
        block = self._last("thinking") if thought.data is None else _Block("thinking")
        if thought.data is not None:
            block.redacted = thought.data
            self._blocks.append(block)
        block.signature = thought.signature
        self._add(block, thought.thinking, out)

    def _last(self, kind: str) -> _Block:
        """The last block, if it is one of that kind, else a new one."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.kind != kind or last.signature or last.redacted is not None:
            last = _Block(kind)
            self._blocks.append(last)
        return last

    def _of(self, call: _ToolCall, name: str) -> _Block:
        """The block of a tool call. Some servers send whole calls, without an index or with the same for all."""
        index = call.index or 0
        block = self._calls.get(index)
        if block is None or (call.id or block.call_id) != block.call_id or (call.index is None and name):
            block = self._calls[index] = _Block("tool_use", call.id or tool_id(self._record_id, self._called), name)
            self._blocks.append(block)
            self._called += 1
        block.name = block.name or name
        return block

    def _add(self, block: _Block, piece: str, out: list[bytes]) -> None:
        self._pieces += 1
        if piece:
            block.waiting.append(piece)
        self._send(out)
        while len(self._blocks) > 1 and self._blocks[0].is_whole():
            self._close(out)
            self._send(out)

    def _send(self, out: list[bytes]) -> None:
        """What the first block has to say by now. A tool's waits for its name."""
        block = self._blocks[0]
        if block.kind == "tool_use" and not block.name:
            return
        self._open(block, out)
        if not block.waiting:
            return
        piece = "".join(block.waiting)
        block.waiting.clear()
        if block.kind == "tool_use":
            block.said.append(piece)
        out.append(named_event(b"content_block_delta", _DELTA[block.kind] % (self._index, _encode(piece))))

    def _open(self, block: _Block, out: list[bytes]) -> None:
        if not block.opened:
            block.opened = True
            self._index += 1
            out.append(_event({"type": "content_block_start", "index": self._index, "content_block": block.start()}))

    def _close(self, out: list[bytes]) -> None:
        self._send(out)
        block = self._blocks.pop(0)
        self._open(block, out)
        if block.signature:
            delta = {"type": "signature_delta", "signature": block.signature}
            out.append(_event({"type": "content_block_delta", "index": self._index, "delta": delta}))
        out.append(_event({"type": "content_block_stop", "index": self._index}))


def _event(event: dict[str, Any]) -> bytes:
    return named_event(event["type"].encode(), _encode(event))
