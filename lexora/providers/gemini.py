"""The Gemini dialect: Google's own API for its Gemini models."""

import time
from collections.abc import Callable
from urllib.parse import quote

from lexora.core.chat import ChatRequest
from lexora.core.task import EMBEDDINGS
from lexora.providers.dialect import Completion, Outgoing
from lexora.providers.gemini_embeddings import embed_request, embeddings
from lexora.providers.gemini_request import generate_content_request
from lexora.providers.gemini_response import completion
from lexora.providers.gemini_stream import GeminiChunkReader


class GeminiDialect:
    """Speaks Google's Gemini API (https://ai.google.dev/api/generate-content).

    `clock` gives Unix time in seconds, for `created`, which Gemini does not say.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.tasks = {EMBEDDINGS: embeddings}
        self._clock = clock

    def headers(self, credential: str | None) -> dict[str, str]:
        return {"x-goog-api-key": credential} if credential else {}

    def chat_request(self, request: ChatRequest, upstream_model: str) -> Outgoing:
        name = quote(upstream_model.removeprefix("models/"), safe="")  # it may be whatever a client has asked for
        if request.task is EMBEDDINGS:
            return Outgoing(f"/models/{name}:batchEmbedContents", embed_request(request, upstream_model))
        method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        return Outgoing(f"/models/{name}:{method}", generate_content_request(request, upstream_model))

    def completion(self, body: bytes) -> Completion:
        return completion(body, int(self._clock()))

    def chunk_reader(self, request: ChatRequest) -> GeminiChunkReader:
        return GeminiChunkReader(request, int(self._clock()))
