"""Anthropic's plain answers as OpenAI's (https://platform.claude.com/docs/en/api/messages).

Kinds of blocks that are not known here are passed over: Anthropic may add some at any time.
"""

from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.errors import UpstreamBroken
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON, Completion
from lexora.providers.errors import refused_as

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


class Counts(msgspec.Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None

    def updated(self, later: "Counts") -> "Counts":
        """The counts of a stream so far: they are running totals, and later events need not repeat all of them."""
        before = msgspec.structs.asdict(self)
        return Counts(**{name: now or before[name] for name, now in msgspec.structs.asdict(later).items()})

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


class Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str = ""


class Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    """`signature` proves to Anthropic that it is its own. It goes on in LiteLLM's `thinking_blocks`."""

    thinking: str = ""
    signature: str = ""


class RedactedThinking(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    data: str


class ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: Raw = Raw(b"{}")

    def call(self, arguments: str) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}

    def arguments(self) -> str:
        return bytes(self.input).decode()


Block = Text | Thinking | RedactedThinking | ToolUse


class Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    content: list[Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Counts | None = None
    error: Any = None


_encode = msgspec.json.encode
_decode_answer = msgspec.json.Decoder(Message).decode
_decode_block: msgspec.json.Decoder[Block] = msgspec.json.Decoder(Block)


def is_unknown_kind(error: msgspec.ValidationError) -> bool:
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
    calls = [block.call(block.arguments()) for block in blocks if isinstance(block, ToolUse)]
    text = "".join(block.text for block in blocks if isinstance(block, Text))
    reasoning = "".join(block.thinking for block in blocks if isinstance(block, Thinking))
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    thought = [block for block in blocks if isinstance(block, Thinking | RedactedThinking)]
    if any(isinstance(block, RedactedThinking) or block.signature for block in thought):
        message["thinking_blocks"] = thought
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, **finished(answer.stop_reason, answer.stop_sequence)}
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


def finished(stop_reason: str | None, stop_sequence: str | None) -> dict[str, str]:
    """Why a choice ended. Which sequence ended it has a place in vLLM's choices alone, which is taken over."""
    finished = {"finish_reason": _FINISH_REASON.get(stop_reason or "", "stop")}
    return {**finished, "stop_reason": stop_sequence} if stop_sequence else finished


def _block(raw: Raw) -> Block | None:
    try:
        return _decode_block.decode(raw)
    except msgspec.ValidationError as error:
        if is_unknown_kind(error):
            return None
        raise
