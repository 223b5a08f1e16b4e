"""The OpenAI dialect: OpenAI itself, vLLM, llama.cpp, Ollama and whatever else serves `/chat/completions`.

Where a service departs from it, its row in the table says how, as data for `OpenAIDialect`.

Answers are relayed as the upstream's own bytes; they are read only for the facts the gateway needs.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamBroken
from lexora.core.task import CHAT, COMPLETIONS, EMBEDDINGS, IMAGES, RERANK, TRANSCRIPTIONS
from lexora.core.usage import Usage
from lexora.providers.chat_fields import Refused, refuse
from lexora.providers.dialect import NOT_JSON, ChunkReader, Completion, MalformedEvent, Outgoing, Transcript
from lexora.providers.errors import refused_as
from lexora.providers.openai_tasks import EventReader, task_answer
from lexora.providers.openai_usage import OpenAIUsage
from lexora.providers.sse import event


class _Completion(msgspec.Struct):
    id: Any = None
    model: str = ""
    usage: OpenAIUsage | None = None
    choices: list[Raw] | None = None
    error: Any = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Raw] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    delta: _Delta | None = None
    text: str | None = None  # in place of a delta, where no chat goes on


class _Chunk(msgspec.Struct):
    id: Any = None
    model: str = ""
    choices: list[_Choice] | None = None
    usage: OpenAIUsage | UnsetType | None = UNSET
    error: Any = None


_IN_CHUNKS = (CHAT, COMPLETIONS)  # streams of other tasks have events of their own

_encode = msgspec.json.encode
_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class OpenAIChunkReader:
    """Relays chunks as they are, less the usage that the client did not ask to see."""

    def __init__(self, request: ChatRequest) -> None:
        self.id = ""
        self.model = ""
        self.usage: Usage | None = None
        self.tokens_seen = 0
        self.ended = False
        self.transcript = Transcript()
        self._show_usage = request.include_usage
        self._finished: set[int] = set()
        self._choices = request.known.n or 1

    def read(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            self.ended = True
            return b""
        try:
            chunk = _decode_chunk(data)
        except msgspec.ValidationError:
            chunk = _strange_chunk(data)
            self.transcript.spoil()
        except NOT_JSON:
            raise MalformedEvent from None
        if chunk.error is not None:
            raise refused_as(0, {"error": chunk.error})
        if chunk.model:
            self.model = chunk.model
        if not self.id:
            self.id = _text(chunk.id)
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is not None:
                if delta.content:
                    self.tokens_seen += 1
                    self.transcript.add(delta.content)
                elif delta.tool_calls or delta.reasoning_content or delta.reasoning or delta.refusal:
                    self.tokens_seen += 1
                    self.transcript.spoil()
            elif choice.text:
                self.tokens_seen += 1
                self.transcript.add(choice.text)
            if choice.finish_reason:
                self._finished.add(choice.index)
                # Not every server sends [DONE]; every choice having finished is as true an end.
                self.ended = len(self._finished) >= self._choices
        if chunk.usage is not UNSET:
            if chunk.usage is not None:
                self.usage = chunk.usage.usage()
            if not self._show_usage:
                if not chunk.choices:
                    return b""
                fields = _decode_fields(data)
                del fields["usage"]
                return event(_encode(fields))
        return event(data)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _strange_chunk(data: bytes) -> _Chunk:
    """A chunk whose fields have types that the gateway does not know: relayed, as long as it is an object."""
    try:
        fields = _decode_fields(data)
    except NOT_JSON:
        raise MalformedEvent from None
    return _Chunk(error=msgspec.json.decode(fields["error"])) if "error" in fields else _Chunk()


class OpenAIDialect:
    """Speaks OpenAI's chat completions API (https://platform.openai.com/docs/api-reference/chat), and hands on requests
    for the rest of what an API of its kind may have; whether a server has it, it says itself.

    `key_header` holds the credential, if not `authorization`. `renamed` are fields that go by another name there.
    `tells_usage` says that streams end with the usage in any case, and that `stream_options` are refused.
    `ignored` are fields that a service takes and does nothing with: they are refused, in the name of `whose` models.
    """

    def __init__(
        self,
        *,
        key_header: str | None = None,
        renamed: Mapping[str, str] = MappingProxyType({}),
        tells_usage: bool = False,
        ignored: Mapping[str, Refused] = MappingProxyType({}),
        whose: str = "",
    ) -> None:
        self._key_header = key_header
        self._renamed = renamed
        self._tells_usage = tells_usage
        self._ignored = ignored
        self._whose = whose
        self.tasks = dict.fromkeys((COMPLETIONS, EMBEDDINGS, RERANK, TRANSCRIPTIONS, IMAGES), task_answer)

    def headers(self, credential: str | None) -> dict[str, str]:
        if not credential:
            return {}
        return {self._key_header: credential} if self._key_header else {"authorization": f"Bearer {credential}"}

    def chat_request(self, request: ChatRequest, upstream_model: str) -> Outgoing:
        if request.form is not None:
            return Outgoing(request.task.path, *request.form.filled(upstream_model))
        if self._ignored:
            refuse(request.fields, self._ignored, self._whose)
        fields: dict[str, Any] = {**request.fields, "model": upstream_model}
        for name, other in self._renamed.items():
            if name in fields:
                fields[other] = fields.pop(name)
        if self._tells_usage:
            fields.pop("stream_options", None)
        elif request.stream and not request.include_usage and request.task in _IN_CHUNKS:
            # Real tokens need the usage chunk; the reader takes it out again.
            asked = _decode_fields(fields["stream_options"]) if request.known.stream_options else {}
            fields["stream_options"] = {**asked, "include_usage": True}
        return Outgoing(request.task.path, _encode(fields))

    def completion(self, body: bytes) -> Completion:
        try:
            facts = _decode_completion(body)
        except NOT_JSON:
            raise UpstreamBroken("The upstream's answer is not a chat completion.") from None
        if facts.error is not None:
            raise refused_as(0, {"error": facts.error})
        if facts.choices is None:
            raise UpstreamBroken("The upstream's answer has no choices.")
        answer_id = facts.id if isinstance(facts.id, str) else ""
        return Completion(body, answer_id, facts.model, facts.usage.usage() if facts.usage else None)

    def chunk_reader(self, request: ChatRequest) -> ChunkReader:
        return OpenAIChunkReader(request) if request.task in _IN_CHUNKS else EventReader(request)
