"""Gemini's streams as OpenAI's: the same objects as the plain answer, each with what is new."""

from typing import Any

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON, MalformedEvent, Transcript
from lexora.providers.gemini_response import Answer, Candidate, Counts, Logprobs, new_id, read_answer
from lexora.providers.sse import event

_encode = msgspec.json.encode


class GeminiChunkReader:
    """Turns Gemini's events into OpenAI's chunks."""

    def __init__(self, request: ChatRequest, created: int) -> None:
        self.id = new_id()
        self.model = ""
        self.usage: Usage | None = None
        self.tokens_seen = 0
        self.ended = False
        self.transcript = Transcript()
        self._counted: Counts | None = None
        self._show_usage = request.include_usage
        self._unfinished = set(range(request.known.n or 1))
        self._calls: dict[int, int] = {}  # tool calls so far, by choice; a choice is in it once it has begun
        self._facts: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": "",
        }

    def read(self, data: bytes) -> bytes:
        try:
            said = read_answer(data)
        except NOT_JSON:
            raise MalformedEvent from None
        if said.usage_metadata is not None:
            counted = said.usage_metadata
            self._counted = self._counted.updated(counted) if self._counted else counted
            self.usage = self._counted.usage()
        if self.ended:
            return b""
        self._name(said)
        frames = b"".join(self._candidate(candidate) for candidate in said.candidates or ())
        if blocked := said.blocked():
            frames += b"".join(self._refused(index, blocked) for index in sorted(self._unfinished))
        self.ended = not self._unfinished
        if self.ended and self._show_usage and self._counted is not None:
            frames += event(_encode({**self._facts, "choices": [], "usage": self._counted.wire()}))
        return frames

    def _name(self, said: Answer) -> None:
        """All chunks of an answer have its first id and model."""
        if not self.model and said.model_version:
            self.model = self._facts["model"] = said.model_version
        if not self._calls and said.response_id:
            self.id = self._facts["id"] = said.response_id

    def _candidate(self, candidate: Candidate) -> bytes:
        index, frames = candidate.index, b""
        calls = self._calls.get(index, 0)
        delta = candidate.delta(calls)
        if delta:
            self.tokens_seen += 1
            self._note(delta)
        calls += len(delta.get("tool_calls", ()))
        if index not in self._calls:
            delta = {"role": "assistant", "content": None, **delta}
        self._calls[index] = calls
        if delta:
            frames = self._chunk(index, delta, logprobs=candidate.logprobs_result)
        finish = candidate.finish(calls=calls)
        if finish and index in self._unfinished:
            self._unfinished.discard(index)
            frames += self._chunk(index, {}, finish)
        return frames

    def _refused(self, index: int, why: str) -> bytes:
        self._unfinished.discard(index)
        self.transcript.spoil()
        delta = {"role": "assistant", "content": None, "refusal": why}
        return self._chunk(index, delta) + self._chunk(index, {}, "content_filter")

    def _note(self, delta: dict[str, Any]) -> None:
        if delta.keys() == {"content"}:
            self.transcript.add(delta["content"])
        else:
            self.transcript.spoil()

    def _chunk(
        self, index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Logprobs | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs and logprobs.wire(), "finish_reason": finish}
        chunk = {**self._facts, "choices": [choice]}
        if self._show_usage:
            chunk["usage"] = None
        return event(_encode(chunk))
