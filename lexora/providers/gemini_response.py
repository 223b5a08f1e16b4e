"""Gemini's answers as OpenAI's (https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse).

A stream is made of the same objects as the plain answer, each with what is new. Kinds of parts that are not known here
are passed over: Google may add some at any time.
"""

from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw

from lexora.core.errors import UpstreamBroken
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON, Completion
from lexora.providers.errors import refused_as

# Every other reason is one of Google's filters (SAFETY, RECITATION, PROHIBITED_CONTENT, …) or new.
_FINISH_REASON = {"STOP": "stop", "FINISH_REASON_UNSPECIFIED": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
# The answer is none: asked again, the model may do better.
_FAILED = {
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
}


class _Call(msgspec.Struct):
    name: str
    id: str | None = None
    args: Raw = Raw(b"{}")

    def arguments(self) -> str:
        """As JSON, without the white space with which Google sends it, and with the numbers as they are."""
        found = bytes(msgspec.json.format(self.args, indent=-1)).decode()
        return "{}" if found == "null" else found


class _Blob(msgspec.Struct, rename="camel"):
    mime_type: str = "data"


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None
    inline_data: _Blob | None = None
    file_data: _Blob | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Token(msgspec.Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0

    def wire(self) -> dict[str, Any]:
        return {"token": self.token, "logprob": self.log_probability, "bytes": list(self.token.encode())}


class _TopTokens(msgspec.Struct):
    candidates: list[_Token] | None = None


class Logprobs(msgspec.Struct, rename="camel"):
    chosen_candidates: list[_Token] | None = None
    top_candidates: list[_TopTokens] | None = None

    def wire(self) -> dict[str, Any]:
        """OpenAI's `logprobs` of a choice."""
        tops = [[token.wire() for token in top.candidates or ()] for top in self.top_candidates or ()]
        chosen = [token.wire() for token in self.chosen_candidates or ()]
        tops += [[]] * (len(chosen) - len(tops))
        content = [{**token, "top_logprobs": top} for token, top in zip(chosen, tops, strict=False)]
        return {"content": content, "refusal": None}


class Candidate(msgspec.Struct, rename="camel"):
    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    logprobs_result: Logprobs | None = None

    def delta(self, first_call: int) -> dict[str, Any]:
        """What is in it, as a chunk's delta; its tool calls are numbered from `first_call`. Raises UpstreamRefused."""
        text, thoughts = "", ""
        calls: list[dict[str, Any]] = []
        for part in (self.content and self.content.parts) or ():
            if part.function_call is not None:
                calls.append(_tool_call(part, first_call + len(calls)))
            elif part.text and part.thought:
                thoughts += part.text
            elif part.text:
                text += part.text
            elif blob := part.inline_data or part.file_data:
                message = f"The model answered with {blob.mime_type}, which no chat completion can hold."
                raise refused_as(0, {"error": {"message": f"{message} Choose a model that writes.", "code": 400}})
        delta = {"reasoning_content": thoughts, "content": text, "tool_calls": calls}
        return {name: value for name, value in delta.items() if value}

    def finish(self, *, calls: int) -> str | None:
        """OpenAI's `finish_reason`. Raises UpstreamRefused if the model could not answer."""
        if not self.finish_reason:
            return None
        if self.finish_reason in _FAILED:
            message = f"Gemini broke its answer off ({self.finish_reason}). {self.finish_message or ''}".rstrip()
            raise refused_as(0, {"error": {"message": message, "type": self.finish_reason, "code": 502}})
        reason = _FINISH_REASON.get(self.finish_reason, "content_filter")
        return "tool_calls" if reason == "stop" and calls else reason


def _tool_call(part: _Part, index: int) -> dict[str, Any]:
    called = part.function_call
    assert called is not None
    call: dict[str, Any] = {
        "index": index,
        "id": called.id or f"call_{uuid4().hex}",
        "type": "function",
        "function": {"name": called.name, "arguments": called.arguments()},
    }
    if part.thought_signature:
        # Where Google's own door for OpenAI's clients puts it; `gemini_messages` reads it there.
        call["extra_content"] = {"google": {"thought_signature": part.thought_signature}}
    return call


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class Counts(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None

    def updated(self, later: "Counts") -> "Counts":
        """The counts of a stream so far: they are running totals, and an event need not repeat all of them."""
        before = msgspec.structs.asdict(self)
        return Counts(**{name: now or before[name] for name, now in msgspec.structs.asdict(later).items()})

    def usage(self) -> Usage:
        """Gemini counts thoughts beside the candidates' tokens, OpenAI inside `completion_tokens`."""
        thoughts = self.thoughts_token_count or 0
        return Usage(
            (self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            (self.candidates_token_count or 0) + thoughts,
            self.cached_content_token_count or 0,
            thoughts,
        )

    def wire(self) -> dict[str, Any]:
        """OpenAI's `usage` object."""
        usage = self.usage()
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }


class Answer(msgspec.Struct, rename="camel"):
    candidates: list[Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Counts | None = None
    model_version: str = ""
    response_id: str = ""
    error: Any = None

    def blocked(self) -> str | None:
        """What to tell a client whose prompt was not answered."""
        reason = self.prompt_feedback.block_reason if self.prompt_feedback else None
        return f"Google has blocked the prompt ({reason})." if reason and not self.candidates else None


_encode = msgspec.json.encode
_decode: msgspec.json.Decoder[Answer | list[Answer]] = msgspec.json.Decoder(Answer | list[Answer])


def read_answer(data: bytes) -> Answer:
    """An answer or a part of one. Raises UpstreamRefused for an error, which Google may put into a list."""
    said = _decode.decode(data)
    if isinstance(said, list):
        said = said[0] if said else Answer()
    if said.error is not None:
        raise refused_as(0, {"error": said.error})
    return said


def new_id() -> str:
    return f"chatcmpl-{uuid4().hex}"


def completion(body: bytes, created: int) -> Completion:
    """Gemini's answer as a `chat.completion`. Raises UpstreamRefused (an error inside a 200) and UpstreamBroken."""
    try:
        answer = read_answer(body)
    except NOT_JSON:
        raise UpstreamBroken("The upstream's answer is not one of Gemini's API.") from None
    if blocked := answer.blocked():
        choices = [_choice(0, {"content": None, "refusal": blocked}, None, "content_filter")]
    elif answer.candidates:
        choices = [_whole(candidate) for candidate in answer.candidates]
    else:
        raise UpstreamBroken("The upstream's answer has no candidates.")
    id_ = answer.response_id or new_id()
    out: dict[str, Any] = {
        "id": id_,
        "object": "chat.completion",
        "created": created,
        "model": answer.model_version,
        "choices": choices,
    }
    counted = answer.usage_metadata
    if counted is not None:
        out["usage"] = counted.wire()
    return Completion(_encode(out), id_, answer.model_version, counted.usage() if counted else None)


def _whole(candidate: Candidate) -> dict[str, Any]:
    message = candidate.delta(0)
    calls = message.get("tool_calls") or ()
    for call in calls:
        del call["index"]
    message = {"content": None if calls else "", "refusal": None, **message}
    finish = candidate.finish(calls=len(calls)) or "stop"
    return _choice(candidate.index, message, candidate.logprobs_result, finish)


def _choice(index: int, message: dict[str, Any], logprobs: Logprobs | None, finish: str) -> dict[str, Any]:
    said = {"role": "assistant", **message}
    return {"index": index, "message": said, "logprobs": logprobs and logprobs.wire(), "finish_reason": finish}
