"""A chat completion as a response object of OpenAI's Responses API."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.errors import LexoraError, UpstreamBroken
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON
from lexora.providers.openai_usage import OpenAIUsage
from lexora.providers.responses_door_output import ChatLogprobs, ChatPiece, Emit, Output, response_id
from lexora.providers.responses_door_request import Asked

# What a response object repeats of its request.
_REPEATED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
}
# The same, of those that cannot be null.
_REPEATED_IF_SAID = ("prompt_cache_key", "safety_identifier", "user")
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# The codes that a failed response may have, by the status of the error; others are `server_error`.
_CODE = {400: "invalid_prompt", 413: "invalid_prompt", 422: "invalid_prompt", 429: "rate_limit_exceeded"}

_encode = msgspec.json.encode


class _Choice(msgspec.Struct):
    message: ChatPiece | None = None
    delta: ChatPiece | None = None
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class Chat(msgspec.Struct):
    """A chat completion, or a chunk of one."""

    model: str = ""
    choices: list[_Choice] | None = None
    usage: OpenAIUsage | None = None
    service_tier: str | None = None


_decode_chat = msgspec.json.Decoder(Chat).decode


class Answer:
    """A response as it comes into being.

    `keep` stores a response that is whole and says whether it could; None if it is not to be stored. `clock` gives
    seconds since the epoch.
    """

    def __init__(
        self,
        asked: Asked,
        record_id: str,
        created_at: int,
        clock: Callable[[], float],
        keep: Callable[[bytes], bool] | None,
        emit: Emit,
    ) -> None:
        self.output = Output(record_id, emit)
        self._clock = clock
        self._keep = keep
        self._facts = {
            "id": response_id(record_id),
            "object": "response",
            "created_at": created_at,
            "model": asked.known.model or "",
            **_repeated(asked),
            "store": keep is not None,
        }
        self._finish_reason = ""
        self._usage: dict[str, Any] | None = None

    def understood(self, data: bytes) -> Chat:
        """Decodes a chat completion, or a chunk of one, and notes its facts. Raises UpstreamBroken."""
        try:
            chat = _decode_chat(data)
        except NOT_JSON:
            raise UpstreamBroken("The upstream's answer is not a chat completion.") from None
        if chat.model:
            self._facts["model"] = chat.model
        if chat.service_tier is not None:
            self._facts["service_tier"] = chat.service_tier
        if chat.usage is not None:
            self._usage = _usage(chat.usage.usage())
        return chat

    def add(self, chat: Chat) -> None:
        """Adds what it says to the output."""
        for choice in chat.choices or ():  # one: `n` is refused
            self._finish_reason = choice.finish_reason or self._finish_reason
            piece = choice.message or choice.delta
            if piece is not None:
                self.output.add(piece, choice.logprobs)

    def begun(self) -> dict[str, Any]:
        """The response object before there is any output."""
        return self._response("in_progress")

    def whole(self) -> tuple[str, bytes]:
        """The response's status and object in the end, stored if it is to be."""
        reason = _INCOMPLETE.get(self._finish_reason)
        status = "incomplete" if reason else "completed"
        self.output.finish(status)
        response = self._response(
            status,
            completed_at=None if reason else int(self._clock()),
            incomplete_details={"reason": reason} if reason else None,
            output=self.output.items,
            usage=self._usage,
        )
        body = _encode(response)
        if self._keep is not None and not self._keep(body):
            body = _encode({**response, "store": False})
        return status, body

    def failed(self, error: LexoraError) -> dict[str, Any]:
        """The response object of an answer that broke off, with what there is of it."""
        if self.output.items:
            self.output.finish("incomplete")
        what = {"code": _CODE.get(error.status, "server_error"), "message": error.message}
        return self._response("failed", error=what, output=self.output.items, usage=self._usage)

    def _response(
        self,
        status: str,
        *,
        completed_at: int | None = None,
        error: dict[str, str] | None = None,
        incomplete_details: dict[str, str] | None = None,
        output: list[dict[str, Any]] | None = None,
        usage: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        response = {
            **self._facts,
            "status": status,
            "completed_at": completed_at,
            "error": error,
            "incomplete_details": incomplete_details,
            "output": output or [],
        }
        return response if usage is None else {**response, "usage": usage}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


_object = msgspec.json.Decoder(dict[str, Raw]).decode


def _repeated(asked: Asked) -> dict[str, Any]:
    known, fields = asked
    repeated: dict[str, Any] = {name: fields.get(name, default) for name, default in _REPEATED.items()}
    repeated |= {name: fields[name] for name in _REPEATED_IF_SAID if name in fields}
    if known.reasoning is not None:
        repeated["reasoning"] = {**_REPEATED["reasoning"], **_object(fields["reasoning"])}
    if known.text is not None:
        repeated["text"] = {**_object(fields["text"])}
        if known.text.format is None:
            repeated["text"].update(_REPEATED["text"])
    if known.tools:
        repeated["tools"] = [{"parameters": None, "strict": None, **_object(tool)} for tool in known.tools]
    return repeated
