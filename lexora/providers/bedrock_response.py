"""Converse's plain answers as OpenAI's.

(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.) They have no id and no model.
Kinds of blocks that are not known here are passed over: AWS may add some at any time.
"""

from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw

from lexora.core.errors import UpstreamBroken, UpstreamRefused
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON, Completion
from lexora.providers.errors import refused_as

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


class Camel(msgspec.Struct, rename="camel"):
    """Bedrock's names are in camel case."""


class _CacheDetail(Camel):
    ttl: str = ""
    input_tokens: int = 0


class Counts(Camel):
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


class ToolUse(Camel):
    """`type` is only said of tools that Bedrock runs itself."""

    tool_use_id: str
    name: str
    input: Raw = Raw(b"{}")
    type: str | None = None

    def call(self, arguments: str) -> dict[str, Any]:
        return {"id": self.tool_use_id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


class ReasoningText(Camel):
    text: str = ""
    signature: str = ""


class Reasoning(Camel):
    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None

    def block(self) -> dict[str, str]:
        """As one of LiteLLM's `thinking_blocks`, for the model to see again."""
        if self.reasoning_text is None:
            return {"type": "redacted_thinking", "data": self.redacted_content or ""}
        return {"type": "thinking", "thinking": self.reasoning_text.text, "signature": self.reasoning_text.signature}


class _Text(Camel):
    text: str = ""


class _Citations(Camel):
    content: list[_Text] | None = None


class _Block(Camel):
    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None
    citations_content: _Citations | None = None
    image: Any = None

    def said(self) -> str:
        cited = self.citations_content.content if self.citations_content else None
        return (self.text or "") + "".join(part.text for part in cited or ())


class _Message(Camel):
    content: list[_Block]


class _Output(Camel):
    message: _Message


class _Answer(Camel):
    output: _Output
    stop_reason: str = ""
    usage: Counts | None = None


_encode = msgspec.json.encode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def completion(body: bytes, created: int) -> Completion:
    """Converse's answer as a `chat.completion` without a model. Raises UpstreamRefused and UpstreamBroken."""
    try:
        answer = _decode_answer(body)
    except NOT_JSON:
        raise UpstreamBroken("The upstream's answer is not one of Bedrock's Converse.") from None
    blocks = answer.output.message.content
    if any(block.image is not None for block in blocks):
        raise no_image()
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
    finish = finish_reason(answer.stop_reason)
    out: dict[str, Any] = {
        "id": new_id(),
        "object": "chat.completion",
        "created": created,
        "model": "",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
    }
    if answer.usage is not None:
        out["usage"] = answer.usage.wire()
    return Completion(_encode(out), out["id"], "", answer.usage.usage() if answer.usage else None)


def new_id() -> str:
    return f"chatcmpl-{uuid4().hex}"


def _compact(arguments: Raw) -> str:
    """As JSON without white space, and with the numbers as they are."""
    found = bytes(msgspec.json.format(arguments, indent=-1)).decode()
    return "{}" if found == "null" else found


def finish_reason(stop_reason: str) -> str:
    """OpenAI's `finish_reason`. Raises UpstreamRefused if the model could not answer."""
    if stop_reason in _FAILED:
        message = f"The model broke its answer off ({stop_reason})."
        raise refused_as(0, {"error": {"message": message, "type": stop_reason, "code": 502}})
    return _FINISH_REASON.get(stop_reason, "stop")


def no_image() -> UpstreamRefused:
    message = "The model answered with an image, which no chat completion can hold. Choose a model that writes."
    return refused_as(0, {"error": {"message": message, "code": 400}})
