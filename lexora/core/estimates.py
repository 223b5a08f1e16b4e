"""How many tokens a request may use, before anybody has counted; and what they may cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import TYPE_CHECKING

from lexora.core.chat import ChatRequest, Message
from lexora.core.usage import Usage, estimate_tokens

if TYPE_CHECKING:  # only to name its type
    from lexora.core.model_map import Price

_PER_MESSAGE = 8  # what chat templates put around one
_PER_MEDIUM = 1600  # an image, or a piece of sound or a file as long as they are short
_BYTES_PER_MEDIUM_TOKEN = 16  # of sound and files that are longer
_SHOWN = ("messages", "tools", "response_format")  # to the model
_LEAST_COMPLETION = 256
_MOST_TOKENS = 10**12
_MOST_NANODOLLARS = 10**18
_MOST_LABELS = 1000
_FADE = 0.02  # of the distance to what is seen now, a request


def nanodollars(usd: float) -> int:
    """Whole nanodollars, rounded up; what floats add to a round sum is no nanodollar."""
    return min(ceil(round(usd * 1e9, 3)), _MOST_NANODOLLARS) if usd > 0 else 0


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
    """Bounds of what requests use, learned for each deployment from what they have used. In memory.

    `sent_limit` says which longest answer a provider is told to give where a request does not say; 0: none.
    """

    def __init__(self, sent_limit: Callable[[str], int] = lambda _: 0) -> None:
        self._sent_limit = sent_limit
        self._learned: dict[str, _Learned] = {}

    def bounds(self, label: str, request: ChatRequest, provider: str = "") -> tuple[int, int]:
        """The most tokens that the prompt may have, and the answer.

        None of the prompt's is shorter than a byte, and most prove to be longer. The answer may have what the request
        allows, or the provider is told; else half as much again as the longest of late.
        """
        learned = self._learned.get(label)
        size, fixed = request.measured or _measure(request)
        if learned is not None and 0 < (ratio := learned.ratio * 1.1) < 1:
            size = ceil(size * ratio)
        known = request.known
        completion = 0
        if known.max_tokens or known.max_completion_tokens:  # servers differ in which of the two they heed
            completion = min(max(known.max_tokens or 0, known.max_completion_tokens or 0), _MOST_TOKENS)
        if completion <= 0 and request.task.longest:
            completion = self._sent_limit(provider) or (
                max(_LEAST_COMPLETION, ceil(learned.longest * 1.5)) if learned else request.task.longest
            )
        return size + fixed, completion * (known.n or 1)

    def learn(self, label: str, request: ChatRequest, usage: Usage) -> None:
        """Takes in what an answer has used."""
        learned = self._learned.get(label)
        if learned is None:
            if len(self._learned) >= _MOST_LABELS:
                del self._learned[next(iter(self._learned))]
            learned = self._learned[label] = _Learned()
        size, fixed = request.measured or _measure(request)
        if size:
            ratio = (usage.prompt_tokens - fixed) / size
            learned.ratio = _highest(learned.ratio, 0.0 if ratio < 0 else 1.0 if ratio > 1 else ratio)
        tokens = usage.completion_tokens
        if not 0 <= tokens <= _MOST_TOKENS:
            tokens = 0 if tokens < 0 else _MOST_TOKENS
        learned.longest = _highest(learned.longest, tokens / (request.known.n or 1))


def estimate_prompt(request: ChatRequest) -> int:
    """A rough count of a whole prompt's tokens, tools and media with it.

    JSON's marks stand for what chat templates write around messages and tools.
    """
    shown = [bytes(request.fields[name]).decode() for name in _SHOWN if name in request.fields]
    tokens = sum(map(estimate_tokens, shown))
    for message in request.known.messages:
        for length, as_tokens in _media(message):
            tokens += as_tokens - (length + 3) // 4
    return max(1, tokens)


def _highest(known: float, seen: float) -> float:
    """The highest of late: what is lower draws it down slowly."""
    return seen if seen >= known else known + (seen - known) * _FADE


def _measure(request: ChatRequest) -> tuple[int, int]:
    """The bytes of all that was sent, as much of it may be part of the prompt, and the tokens of what is no text."""
    messages = request.known.messages
    size = request.size
    fixed = _PER_MESSAGE * len(messages) + request.token_ids
    for message in messages:
        if not isinstance(message.content, str):
            for length, tokens in _media(message):
                size -= length
                fixed += tokens
    request.measured = size, fixed
    return size, fixed


def _media(message: Message) -> Iterator[tuple[int, int]]:
    """The bytes of each image, sound or file of a message, and the tokens it may be."""
    for part in () if isinstance(message.content, str) else message.content or ():
        for medium in (part.image_url, part.input_audio, part.file):
            length = memoryview(medium).nbytes
            if length:
                tokens = 0 if medium is part.image_url else length // _BYTES_PER_MEDIUM_TOKEN
                yield length, max(_PER_MEDIUM, tokens)
