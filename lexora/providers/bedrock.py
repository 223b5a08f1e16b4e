"""The Bedrock dialect: Amazon Bedrock's Converse API, the same for all its models that chat."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from lexora.core.chat import ChatRequest
from lexora.core.task import Task
from lexora.providers.bedrock_request import converse_request
from lexora.providers.bedrock_response import completion
from lexora.providers.bedrock_stream import BedrockChunkReader
from lexora.providers.dialect import Completion, Outgoing


class BedrockDialect:
    """Speaks Converse and ConverseStream (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html).

    Its credential is an API key of Bedrock's. Without one, requests are signed: the provider's row has how.
    `clock` gives Unix time in seconds, for `created`, which Bedrock does not say.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.tasks: dict[Task, Any] = {}
        self._clock = clock

    def headers(self, credential: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {credential}"} if credential else {}

    def chat_request(self, request: ChatRequest, upstream_model: str) -> Outgoing:
        if request.anthropic is not None and "anthropic." in upstream_model:
            from lexora.providers.messages_door_request import marked  # it is loaded already if such a request has come

            request = marked(request)
        operation = "converse-stream" if request.stream else "converse"
        name = quote(upstream_model, safe="")  # it may be an ARN, which has colons and slashes
        return Outgoing(f"/model/{name}/{operation}", converse_request(request, upstream_model))

    def completion(self, body: bytes) -> Completion:
        return completion(body, int(self._clock()))

    def chunk_reader(self, request: ChatRequest) -> BedrockChunkReader:
        return BedrockChunkReader(request, int(self._clock()))
