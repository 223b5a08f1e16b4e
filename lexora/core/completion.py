"""Our own `chat.completion` objects and chunks, for answers that no upstream wrote."""

import re
from typing import Any

import msgspec

from lexora.core.usage import Usage

_encode = msgspec.json.encode
_sentence = re.compile(r"[^。．\n]*[。．\n]+|[^。．\n]+")


def completion(*, request_id: str, created: int, model: str, text: str, usage: Usage) -> bytes:
    """A whole `chat.completion` object (https://platform.openai.com/docs/api-reference/chat/object)."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return _encode(
        {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _usage(usage),
        }
    )


def chunks(*, request_id: str, created: int, model: str, text: str, usage: Usage, include_usage: bool) -> list[bytes]:
    """The same as the data of `chat.completion.chunk` events, a sentence each."""
    head: dict[str, Any] = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
    }
    shown: dict[str, Any] = {"usage": None} if include_usage else {}

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _encode({**head, "choices": [choice], **shown})

    said = [chunk({"content": sentence}) for sentence in sentences(text)]
    last = [_encode({**head, "choices": [], "usage": _usage(usage)})] if include_usage else []
    return [chunk({"role": "assistant", "content": ""}), *said, chunk({}, "stop"), *last]


def sentences(text: str) -> list[str]:
    """The text, cut behind each sentence."""
    return _sentence.findall(text)


def _usage(usage: Usage) -> dict[str, int]:
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
    }
