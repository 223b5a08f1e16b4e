"""Tokens and what they cost."""

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer.

    `cached_tokens` and `cache_write_tokens`, those that the provider has cached from now on, are parts of
    `prompt_tokens`; `cache_write_1h_tokens` are the part of the latter that is kept for an hour. `reasoning_tokens` are
    part of `completion_tokens`.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0


def estimate_tokens(text: str) -> int:
    """A rough count of tokens where no tokenizer has counted: 4 ASCII characters a token, others one each."""
    narrow = len(text.encode("ascii", "ignore"))
    return len(text) - narrow + (narrow + 3) // 4
