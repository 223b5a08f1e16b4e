"""The Anthropic dialect: Anthropic itself, and servers that serve `/v1/messages` (vLLM and llama.cpp among them)."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.task import Task
from lexora.providers.anthropic_request import messages_request
from lexora.providers.anthropic_response import completion
from lexora.providers.anthropic_stream import AnthropicChunkReader
from lexora.providers.dialect import JSON_HEADER, Completion, Outgoing
from lexora.providers.token_count import betas_header

# The version after it (2026-10-21) takes no temperature and no top_p from any model.
_VERSION = "2023-06-01"

# Models since Claude 4.5 allow 64,000 or more; this is within the ten minutes that an answer may take unstreamed, by
# the estimate of Anthropic's SDK.
DEFAULT_MAX_TOKENS = 16_384


class AnthropicDialect:
    """Speaks Anthropic's Messages API (https://platform.claude.com/docs/en/api/messages).

    `clock` gives Unix time in seconds, for `created`, which Anthropic does not say. DEFAULT_MAX_TOKENS limits the
    answers to requests that set no limit of their own; thinking counts towards it.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.tasks: dict[Task, Any] = {}
        self._clock = clock

    def headers(self, credential: str | None) -> dict[str, str]:
        version = {"anthropic-version": _VERSION}
        return {"x-api-key": credential, **version} if credential else version

    def chat_request(self, request: ChatRequest, upstream_model: str) -> Outgoing:
        if request.anthropic is not None:
            body = msgspec.json.encode({**request.anthropic, "model": upstream_model})
            return Outgoing("/messages", body, JSON_HEADER + betas_header(request))
        return Outgoing("/messages", messages_request(request, upstream_model, DEFAULT_MAX_TOKENS))

    def completion(self, body: bytes) -> Completion:
        return completion(body, int(self._clock()))

    def chunk_reader(self, request: ChatRequest) -> AnthropicChunkReader:
        return AnthropicChunkReader(request, int(self._clock()))
