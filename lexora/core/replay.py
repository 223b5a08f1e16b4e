"""Kept answers: a whole completion, made from a plain answer or from a stream, and given again as either.

What cannot be put together with certainty is not kept.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.core.completion import sentences
from lexora.core.task import CHAT, COMPLETIONS, EMBEDDINGS, RERANK
from lexora.core.usage import Usage

# What may be kept. Sounds and images are large, and asked for once.
KEPT = (CHAT, COMPLETIONS, EMBEDDINGS, RERANK)

_WITHOUT_CHOICES = (EMBEDDINGS, RERANK)
# A model that was stopped by a limit or a filter has not said all.
_WHOLE = ("stop", "tool_calls", "function_call")
_SAYS = ("content", "tool_calls", "function_call", "refusal", "text")
_PREFIX = {CHAT: "chatcmpl", COMPLETIONS: "cmpl"}
_OBJECT = {CHAT: ("chat.completion", "chat.completion.chunk"), COMPLETIONS: ("text_completion", "text_completion")}
# Text that comes in pieces.
_PIECES = ("content", "reasoning_content", "reasoning", "refusal", "arguments", "text")
# What every chunk repeats; what else there is besides comes with the last one.
_IN_EVERY_CHUNK = ("created", "model", "system_fingerprint", "service_tier")
_DATA = b"data: "
# Of a stream: each of its pieces repeats who sent it, and when, around a few letters.
_MOST_BYTES = 16_000_000

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_Fields = dict[str, Any]


class _Strange(Exception):
    """Pieces of a form that is not known."""


# What such forms lead to: an upstream may send anything, and whoever asked it gets that all the same.
_UNKNOWN = (_Strange, msgspec.DecodeError, RecursionError, AttributeError, LookupError, TypeError, ValueError)


def kept_of_plain(request: ChatRequest, body: bytes) -> bytes | None:
    """What is kept of a plain answer; None if it is not whole."""
    if request.task in _WITHOUT_CHOICES:
        return body
    try:
        return body if _is_whole(_decode(body)) and as_frames(request, body, "") else None
    except _UNKNOWN:
        return None


def as_plain(request: ChatRequest, kept: bytes, request_id: str) -> bytes:
    """A kept answer as a plain one, under an id of its own."""
    prefix = _PREFIX.get(request.task)
    if prefix is None:
        return kept
    return _encode({**_decode_fields(kept), "id": f"{prefix}-{request_id}"})


def as_frames(request: ChatRequest, kept: bytes, request_id: str) -> bytes:
    """A kept answer as the frames of a stream."""
    answer = _decode(kept)
    choices, usage = answer.pop("choices"), answer.pop("usage", None)
    head = {"id": f"{_PREFIX[request.task]}-{request_id}", "object": _OBJECT[request.task][1]}
    head |= {name: answer[name] for name in _IN_EVERY_CHUNK if name in answer}
    rest = {name: value for name, value in answer.items() if name not in head}
    shown: _Fields = {"usage": None} if request.include_usage else {}
    pieces = [piece for choice in choices for piece in _pieces(request, choice)]
    chunks = [{**head, "choices": [piece], **shown} for piece in pieces]
    chunks[-1] |= rest
    if request.include_usage and usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    return b"".join(_DATA + _encode(chunk) + b"\n\n" for chunk in chunks)


def _is_whole(completion: _Fields) -> bool:
    """Whether every choice came to its own end, and says something."""
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        return False
    for choice in choices:
        if not isinstance(choice, dict) or choice.get("finish_reason") not in _WHOLE:
            return False
        said = choice.get("message", choice)
        if not isinstance(said, dict) or said.get("audio") or not any(said.get(name) for name in _SAYS):
            return False
    return True


def _pieces(request: ChatRequest, choice: _Fields) -> Iterator[_Fields]:
    """The choices of the chunks that one choice of a completion becomes."""
    base: _Fields = {"index": choice.pop("index", 0)}
    message, logprobs = choice.pop("message", None), choice.pop("logprobs", None)
    finish_reason = choice.pop("finish_reason")
    if message is None:
        text = choice.pop("text", "")
        for part in sentences(text) if logprobs is None else [text]:
            yield {**base, "text": part, "logprobs": logprobs, "finish_reason": None}
        yield {**base, "text": "", "logprobs": None, **choice, "finish_reason": finish_reason}
        return
    for delta in _deltas(message, signed=request.anthropic is not None, whole=logprobs is not None):
        known = None
        if delta.get("content") or delta.get("refusal"):
            known, logprobs = logprobs, None  # they go with the text, once
        yield {**base, "delta": delta, "logprobs": known, "finish_reason": None}
    yield {**base, "delta": {}, "logprobs": logprobs, **choice, "finish_reason": finish_reason}


def _deltas(message: _Fields, *, signed: bool, whole: bool) -> Iterator[_Fields]:
    """A message in pieces, its text a sentence each unless it is to stay `whole`."""
    empty = None if message.get("content") is None else ""
    yield {"role": message.pop("role", "assistant"), "content": empty}
    thoughts = message.pop("thinking_blocks", None) or ()
    if signed and thoughts:
        message.pop("reasoning_content", None)
        for block in thoughts:
            if block.get("thinking"):
                yield {"reasoning_content": block["thinking"]}
            yield {"thinking_blocks": [{**block, "thinking": ""} if "thinking" in block else block]}
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            yield {name: message[name]}
        message.pop(name, None)
    content = message.pop("content", None) or ""
    for part in [content] if whole and content else sentences(content):
        yield {"content": part}
    for index, call in enumerate(message.pop("tool_calls", None) or ()):
        yield {"tool_calls": [{"index": index, **call}]}
    if rest := {name: value for name, value in message.items() if value not in (None, [])}:
        yield rest


class Assembled:
    """What is kept of a stream: a completion, put together as the stream goes by."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._size = 0
        self._can = True
        self._facts: _Fields = {}
        self._choices: dict[int, _Choice] = {}

    def feed(self, frames: bytes) -> None:
        """Takes the next frames, each of them whole."""
        self._size += len(frames)
        if not self._can:
            return
        try:
            for frame in frames.split(b"\n\n"):
                if frame.startswith(_DATA):
                    self._add(_decode(frame[len(_DATA) :]))
            self._can = self._size <= _MOST_BYTES
        except _UNKNOWN:
            self._can = False
        if not self._can:
            self._choices.clear()

    def kept(self, usage: Usage | None, *, signed: bool = False) -> bytes | None:
        """The completion; None if it is not whole. It has the usage that the stream has shown, or else this.

        `signed` says that the provider signs reasoning, which its streams show Anthropic's clients alone: for others
        such an answer is not kept.
        """
        if not self._can or (signed and self._request.anthropic is None and self._has_reasoning()):
            return None
        try:
            completion = self._completion(usage)
            kept = _encode(completion)
            return kept if _is_whole(completion) and as_frames(self._request, kept, "") else None
        except _UNKNOWN:
            return None

    def _add(self, chunk: _Fields) -> None:
        for piece in chunk.pop("choices", None) or ():
            index = piece.pop("index", 0)
            if not isinstance(index, int):
                raise _Strange
            self._choices.setdefault(index, _Choice()).add(piece)
        chunk.pop("obfuscation", None)  # OpenAI's, so that the lengths of chunks tell nothing
        self._facts |= {name: value for name, value in chunk.items() if value is not None or name not in self._facts}

    def _has_reasoning(self) -> bool:
        return any(choice.message.get("reasoning_content") for choice in self._choices.values())

    def _completion(self, usage: Usage | None) -> _Fields:
        facts = self._facts
        if facts.get("usage") is None:
            facts.pop("usage", None)
            if usage is not None:
                facts["usage"] = _usage(usage)
        choices = [{"index": index, **self._choices[index].whole()} for index in sorted(self._choices)]
        return {**facts, "object": _OBJECT[self._request.task][0], "choices": choices}


class _Choice:
    """One choice of a stream so far."""

    def __init__(self) -> None:
        self.message: _Fields = {}
        self._fields: _Fields = {}
        self._logprobs: dict[str, list[Any] | None] | None = None
        self._calls: dict[int, _Fields] = {}
        self._thoughts: list[_Fields] = []
        self._unsigned: list[str] = []

    def add(self, piece: _Fields) -> None:
        """Raises _Strange."""
        delta, logprobs = piece.pop("delta", None), piece.pop("logprobs", None)
        for name, values in (logprobs or {}).items():
            self._logprobs = self._logprobs or {}
            _extend(self._logprobs, name, values)
        for call in _list((delta or {}).pop("tool_calls", None)):
            if not isinstance(call, dict) or not isinstance(call.get("index"), int):
                raise _Strange
            _merge(self._calls.setdefault(call.pop("index"), {}), call)
        if delta:
            if said := delta.get("reasoning_content"):
                self._unsigned.append(said)
            for block in _list(delta.pop("thinking_blocks", None)):
                if "signature" in block:
                    block = {**block, "thinking": "".join(self._unsigned) + block.get("thinking", "")}
                    self._unsigned.clear()
                self._thoughts.append(block)
            _merge(self.message, delta)
        if "text" in piece:
            _merge(self.message, {"text": piece.pop("text")})
        for name, value in piece.items():
            if isinstance(value, list):
                _extend(self._fields, name, value)  # such as the tokens' ids
            elif value is not None or name not in self._fields:
                self._fields[name] = value

    def whole(self) -> _Fields:
        """It in a completion's form."""
        facts = {"logprobs": self._logprobs, "finish_reason": None, **self._fields}
        if "text" in self.message:
            return {**self.message, **facts}
        message: _Fields = {"role": "assistant", "content": None, "refusal": None, **self.message}
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
            message["content"] = message["content"] or None
        if self._thoughts:
            message["thinking_blocks"] = self._thoughts
        return {"message": message, **facts}


def _merge(whole: _Fields, piece: _Fields) -> None:
    """Adds a piece: text to text, and what is new. Raises _Strange where neither is so."""
    for name, value in piece.items():
        have = whole.get(name)
        if have is None:
            whole[name] = value
        elif name in _PIECES and isinstance(have, str) and isinstance(value, str):
            whole[name] = None  # with no other name for it, CPython lengthens a text where it is: linear, not square
            have += value
            whole[name] = have
        elif isinstance(have, dict) and isinstance(value, dict):
            _merge(have, value)
        elif value not in (None, "", have):
            raise _Strange


def _extend(whole: _Fields, name: str, values: Any) -> None:
    """Adds to a list that may not be there yet. Raises _Strange where there is something else."""
    have = whole.get(name)
    if have is None or values is None:
        whole[name] = values if have is None else have
    else:
        _list(have).extend(_list(values))


def _list(values: Any) -> list[Any]:
    if values is None:
        return []
    if not isinstance(values, list):
        raise _Strange
    return values


def _usage(usage: Usage) -> _Fields:
    total = usage.prompt_tokens + usage.completion_tokens
    counted: _Fields = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens:
        counted["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counted
