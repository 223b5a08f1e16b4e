"""The answers of OpenAI's other endpoints: relayed as they are, read for the facts the gateway needs.

(https://platform.openai.com/docs/api-reference: completions, embeddings, images, audio; rerank as vLLM, llama.cpp and
others have it)
"""

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamBroken
from lexora.core.task import IMAGES
from lexora.core.usage import Usage
from lexora.providers.dialect import NOT_JSON, Completion, MalformedEvent, Transcript
from lexora.providers.errors import refused_as
from lexora.providers.openai_usage import count
from lexora.providers.sse import event, named_event

# Of transcripts: plain, and with the times of what is said.
_TEXTS = (b"text/plain", b"text/vtt", b"text/srt", b"application/x-subrip")
# How the types of events end that end a stream.
_LAST = (".done", ".completed")


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    """Under both of the names that OpenAI has for each."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_usage = msgspec.json.Decoder(_Usage | None).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


def task_answer(request: ChatRequest, body: bytes, content_type: bytes) -> Completion:
    """A plain answer. Raises UpstreamRefused (an error inside a 200) and UpstreamBroken."""
    task = request.task
    if task.form and content_type.split(b";")[0].strip().lower() in _TEXTS:
        return Completion(body, "", "", None, content_type)
    try:
        fields = _decode_fields(body)
    except NOT_JSON:
        raise UpstreamBroken(f"The upstream's answer is none of {task.path}.") from None
    _raise_error(fields)
    if not any(name in fields for name in task.answer):
        raise UpstreamBroken(f"The upstream's answer has no {' or '.join(task.answer)}.")
    return Completion(body, _text(fields, "id"), _text(fields, "model"), _usage(fields))


class EventReader:
    """Relays the events of a stream that is not made of chunks: of a transcript, of an image in the making."""

    def __init__(self, request: ChatRequest) -> None:
        self.id = ""
        self.model = ""
        self.usage: Usage | None = None
        self.tokens_seen = 0
        self.ended = False
        self.transcript = Transcript()
        self.transcript.spoil()
        self._named = request.task is IMAGES
        self._answers = request.known.n or 1

    def read(self, data: bytes) -> bytes:
        if data == b"[DONE]":  # it belongs to some of these streams and not to others
            self.ended = True
            return event(data)
        try:
            fields = _decode_fields(data)
        except NOT_JSON:
            raise MalformedEvent from None
        _raise_error(fields)
        self.id = self.id or _text(fields, "id")
        self.model = _text(fields, "model") or self.model
        self.usage = _usage(fields) or self.usage
        self.tokens_seen += 1
        type_ = _text(fields, "type")
        if type_.endswith(_LAST) or _finished(fields):
            self._answers -= 1
            self.ended = self._answers <= 0
        return named_event(type_.encode(), data) if self._named and type_.isprintable() else event(data)


def _raise_error(fields: dict[str, Raw]) -> None:
    error = msgspec.json.decode(fields["error"]) if "error" in fields else None
    if error is not None:
        raise refused_as(0, {"error": error})


def _finished(fields: dict[str, Raw]) -> bool:
    """Whether it is the last chunk of a transcript in the form of vLLM, which resembles chat's."""
    try:
        return any(choice.finish_reason for choice in _decode_choices(fields["choices"]))
    except (KeyError, msgspec.DecodeError):
        return False


def _text(fields: dict[str, Raw], name: str) -> str:
    try:
        return _decode_text(fields[name])
    except (KeyError, msgspec.DecodeError):
        return ""


def _usage(fields: dict[str, Raw]) -> Usage | None:
    """What was counted in tokens, if it was: of a sound, it may be seconds."""
    try:
        said = _decode_usage(fields["usage"])
    except (KeyError, msgspec.DecodeError):
        return None
    if said is None:
        return None
    prompt = said.input_tokens if said.prompt_tokens is None else said.prompt_tokens
    completion = said.output_tokens if said.completion_tokens is None else said.completion_tokens
    if prompt is None and said.total_tokens is not None:
        prompt = said.total_tokens - (completion or 0)
    if prompt is None and completion is None:
        return None
    cached = said.prompt_tokens_details.cached_tokens if said.prompt_tokens_details else 0
    return Usage(count(prompt), count(completion), count(cached))
