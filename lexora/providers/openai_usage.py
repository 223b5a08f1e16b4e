"""OpenAI's `usage` object, as upstreams send it and as the doors get it."""

import msgspec

from lexora.core.usage import Usage

_MOST_TOKENS = 2**53


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class OpenAIUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def usage(self) -> Usage:
        """The tokens of an answer. xAI and Google's own door count thoughts in the total alone, and bill for them."""
        prompt, completion, total = self.prompt_tokens or 0, self.completion_tokens or 0, self.total_tokens or 0
        if not (0 <= prompt <= _MOST_TOKENS and 0 <= completion <= _MOST_TOKENS and 0 <= total <= _MOST_TOKENS):
            prompt, completion, total = count(prompt), count(completion), count(total)
        cached, reasoning = self.prompt_tokens_details, self.completion_tokens_details
        return Usage(
            prompt,
            max(completion, total - prompt),
            count(cached.cached_tokens) if cached else 0,
            count(reasoning.reasoning_tokens) if reasoning else 0,
            count(cached.cache_write_tokens) if cached else 0,
        )


def count(tokens: int | None) -> int:
    """What an upstream has counted, within reason: the books must hold it."""
    if tokens is None or 0 <= tokens <= _MOST_TOKENS:
        return tokens or 0
    return 0 if tokens < 0 else _MOST_TOKENS
