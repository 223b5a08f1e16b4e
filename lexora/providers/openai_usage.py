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
        cached, reasoning = self.prompt_tokens_details, self.completion_tokens_details
        prompt = count(self.prompt_tokens)
        return Usage(
            prompt,
            max(count(self.completion_tokens), count(self.total_tokens) - prompt),
            count(cached.cached_tokens) if cached else 0,
            count(reasoning.reasoning_tokens) if reasoning else 0,
            count(cached.cache_write_tokens) if cached else 0,
        )


def count(tokens: int | None) -> int:
    """What an upstream has counted, within reason: the books must hold it."""
    return min(_MOST_TOKENS, max(0, tokens)) if tokens else 0
