"""The Gemini dialect: Google's own API for its Gemini models."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from lexora.core.chat import ChatRequest
from lexora.core.task import Task
from lexora.providers.dialect import Completion, Outgoing
from lexora.providers.gemini_request import generate_content_request
from lexora.providers.gemini_response import GeminiChunkReader, completion


class GeminiDialect:
    """Speaks Google's Gemini API (https://ai.google.dev/api/generate-content).

    `clock` gives Unix time in seconds, for `created`, which Gemini does not say.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.tasks: dict[Task, Any] = {}
        self._clock = clock

    def headers(self, credential: str | None) -> dict[str, str]:
        return {"x-goog-api-key": credential} if credential else {}

    def chat_request(self, request: ChatRequest, upstream_model: str) -> Outgoing:
        method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        name = quote(upstream_model.removeprefix("models/"), safe="")  # it may be whatever a client has asked for
        return Outgoing(f"/models/{name}:{method}", generate_content_request(request, upstream_model))

    def completion(self, body: bytes) -> Completion:
        return completion(body, int(self._clock()))

    def chunk_reader(self, request: ChatRequest) -> GeminiChunkReader:
        return GeminiChunkReader(request, int(self._clock()))
