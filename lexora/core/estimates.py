"""How many tokens a request may use, before anybody has counted; and what they may cost."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.usage import Usage

if TYPE_CHECKING:  # only to name its type
    from lexora.core.model_map import Price

_PER_MESSAGE = 8  # what chat templates put around one
_PER_PART = 1600  # an image, or a piece of sound, whose bytes say nothing
_UNKNOWN_COMPLETION = 4096
_LEAST_COMPLETION = 256
_MOST_TOKENS = 10**12
_MOST_NANODOLLARS = 10**18
_MOST_LABELS = 1000
_FADE = 0.02  # of the distance to what is seen now, a request

_decode_int = msgspec.json.Decoder(int).decode


def nanodollars(usd: float) -> int:
    """Whole nanodollars, rounded up; what floats add to a round sum is no nanodollar."""
    return min(ceil(round(max(usd, 0.0) * 1e9, 3)), _MOST_NANODOLLARS)


def cost_bound(price: Price, prompt_tokens: int, completion_tokens: int) -> int:
    """The most that an answer of so many tokens costs, in nanodollars."""
    rates = price.rates(prompt_tokens)
    return nanodollars((prompt_tokens * rates.dearest_input + completion_tokens * rates.output) / 1e6)


class _Learned:
    """Of one deployment: tokens for each byte of a prompt, and tokens of one choice."""

    __slots__ = ("longest", "ratio")

    def __init__(self) -> None:
        self.ratio = 0.0
        self.longest = 0.0


class Estimates:
    """Bounds of what requests use, learned for each deployment from what they have used. In memory."""

    def __init__(self) -> None:
        self._learned: dict[str, _Learned] = {}

    def prompt(self, label: str, request: ChatRequest) -> int:
        """The most tokens that the prompt may have: none is shorter than a byte, and most prove to be longer."""
        learned = self._learned.get(label)
        size, fixed = _measure(request)
        if learned is not None and learned.ratio:
            size = ceil(size * min(1.0, learned.ratio * 1.1))
        return size + fixed

    def completion(self, label: str, request: ChatRequest) -> int:
        """What the request allows its answer; else half as much again as the longest of late."""
        choices = request.known.n or 1
        allowed = _allowed(request)
        if allowed is not None:
            return allowed * choices
        learned = self._learned.get(label)
        if learned is None:
            return _UNKNOWN_COMPLETION * choices
        return max(_LEAST_COMPLETION, ceil(learned.longest * 1.5)) * choices

    def learn(self, label: str, request: ChatRequest, usage: Usage) -> None:
        """Takes in what an answer has used."""
        learned = self._learned.get(label)
        if learned is None:
            if len(self._learned) >= _MOST_LABELS:
                del self._learned[next(iter(self._learned))]
            learned = self._learned[label] = _Learned()
        size, fixed = _measure(request)
        if size:
            learned.ratio = _highest(learned.ratio, min(1.0, max(0, usage.prompt_tokens - fixed) / size))
        tokens = min(max(usage.completion_tokens, 0), _MOST_TOKENS) / (request.known.n or 1)
        learned.longest = _highest(learned.longest, tokens)


def _highest(known: float, seen: float) -> float:
    """The highest of late: what is lower draws it down slowly."""
    return seen if seen >= known else known + (seen - known) * _FADE


def _measure(request: ChatRequest) -> tuple[int, int]:
    """The bytes of what the prompt is made of, and the tokens of what has no such measure."""
    fields = request.fields
    messages = request.known.messages
    fixed = _PER_MESSAGE * len(messages)
    others = 0
    for message in messages:
        content = message.content
        if content is not None and not isinstance(content, str):
            others += sum(part.type != "text" for part in content)
    # As it was sent, unless an image is in it: the calls of tools are part of the prompt as well.
    size = sum(len(text.encode()) for text in request.texts()) if others else memoryview(fields["messages"]).nbytes
    for name in ("tools", "functions", "response_format"):
        if name in fields:
            size += memoryview(fields[name]).nbytes
    return size, fixed + others * _PER_PART


def _allowed(request: ChatRequest) -> int | None:
    """`max_completion_tokens` or `max_tokens`; a value that is none is the upstream's to refuse."""
    fields = request.fields
    raw = fields.get("max_completion_tokens") or fields.get("max_tokens")
    if raw is None:
        return None
    try:
        allowed = _decode_int(raw)
    except msgspec.DecodeError:
        return None
    return min(allowed, _MOST_TOKENS) if allowed > 0 else None
