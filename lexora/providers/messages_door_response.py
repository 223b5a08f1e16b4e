"""OpenAI's plain answers as Anthropic's messages (https://platform.claude.com/docs/en/api/messages)."""

from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest, ContentPart
from lexora.core.errors import UpstreamBroken
from lexora.core.usage import Usage, estimate_tokens
from lexora.providers.dialect import NOT_JSON
from lexora.providers.openai_usage import OpenAIUsage


class _Function(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function = _Function()


Content = str | list[ContentPart] | None  # parts are Mistral's


class ThinkingBlock(msgspec.Struct):
    """Thinking that Anthropic has signed, or encrypted: a redacted block has `data` alone."""

    thinking: str = ""
    signature: str = ""
    data: str | None = None

    def wire(self) -> dict[str, Any]:
        if self.data is not None:
            return {"type": "redacted_thinking", "data": self.data}
        return {"type": "thinking", "thinking": self.thinking, "signature": self.signature}


class _Message(msgspec.Struct):
    content: Content = None
    thinking_blocks: list[ThinkingBlock] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM's: the string that ended the answer, if it is one


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    model: str = ""
    usage: OpenAIUsage | None = None


_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


def message(request: ChatRequest, body: bytes, record_id: str) -> bytes:
    """A `chat.completion` as a whole message. Raises UpstreamBroken for one that is none."""
    try:
        answer = _decode_completion(body)
        choice = answer.choices[0]
    except (*NOT_JSON, IndexError):
        raise UpstreamBroken("The upstream's answer is not a chat completion.") from None
    said = choice.message
    thinking = said.reasoning_content or said.reasoning
    text = text_of(said.content) or said.refusal
    calls = said.tool_calls or []
    content: list[dict[str, Any]] = []
    if said.thinking_blocks:
        content += [block.wire() for block in said.thinking_blocks]
    elif thinking:
        content.append(ThinkingBlock(thinking).wire())
    if text:
        content.append(text_block(text))
    for call in calls:
        arguments = arguments_of(call.function.arguments or "")
        if arguments is not None:
            content.append(tool_block(call.id or tool_id(record_id, len(content)), call.function.name, arguments))
        elif choice.finish_reason != "length":  # else it was cut off, and stop_reason says so
            raise UpstreamBroken(f"The model called '{call.function.name}' with an input that is not a JSON object.")
    output_tokens = estimate_tokens(f"{thinking or ''}{text or ''}")
    usage = answer.usage.usage() if answer.usage else estimated(request, output_tokens)
    ended = stopped(choice.finish_reason, choice.stop_reason, calls=bool(calls), refused=bool(said.refusal))
    head = message_head(record_id, answer.model or request.known.model or "")
    return _encode({**head, "content": content, **ended, "usage": usage_of_message(usage)})


def text_of(content: Content) -> str:
    if isinstance(content, list):
        return "".join(part.text or "" for part in content)
    return content or ""


def message_head(record_id: str, model: str) -> dict[str, Any]:
    return {"id": f"msg_{record_id}", "type": "message", "role": "assistant", "model": model, "container": None}


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "citations": None}


def tool_block(call_id: str, name: str, arguments: dict[str, Raw]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments, "caller": {"type": "direct"}}


def tool_id(record_id: str, position: int) -> str:
    """For a call that the upstream has given none."""
    return f"toolu_{record_id}_{position}"


def arguments_of(text: str) -> dict[str, Raw] | None:
    """The arguments of a tool call, None if they are not (yet) an object. None at all are an empty one."""
    try:
        return _decode_object(text.strip() or "{}")
    except NOT_JSON:
        return None


def usage_of_stream(usage: Usage) -> dict[str, Any]:
    """Anthropic counts cached tokens beside `input_tokens`."""
    read, written, thinking = usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens
    return {
        "input_tokens": max(0, usage.prompt_tokens - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": thinking} if thinking else None,
        "server_tool_use": None,
    }


def usage_of_message(usage: Usage) -> dict[str, Any]:
    """That of a whole message."""
    return {**usage_of_stream(usage), "cache_creation": None, "inference_geo": None, "service_tier": None}


def estimated(request: ChatRequest, output_tokens: int) -> Usage:
    """The usage of an answer whose upstream has not counted: Anthropic's API leaves none out."""
    return Usage(sum(map(estimate_tokens, request.texts())), output_tokens)


def stopped(finish_reason: str | None, stop_reason: object, *, calls: bool, refused: bool) -> dict[str, Any]:
    """Why the answer ended: `stop_reason`, `stop_sequence` and `stop_details`."""
    sequence = None
    if refused or finish_reason == "content_filter":
        reason = "refusal"
    elif finish_reason == "length":
        reason = "max_tokens"
    elif calls:  # where the tool was named in the request, OpenAI says "stop"
        reason = "tool_use"
    elif isinstance(stop_reason, str):
        reason, sequence = "stop_sequence", stop_reason
    else:
        reason = "end_turn"
    details = {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None
    return {"stop_reason": reason, "stop_sequence": sequence, "stop_details": details}
