"""What each route answers, for /openapi.json alone: the fields that clients can rely on.

What a model's server adds goes through, so no schema is closed. OpenAI and Anthropic publish theirs whole, and tests
hold the answers to those.
"""

from typing import Any, Literal, get_args

import msgspec

from lexora.core.keys import Key
from lexora.providers.operations import Action
from lexora.providers.query_door import LLMResponse


class ChatUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None


class AssistantMessage(msgspec.Struct):
    role: str | None = None
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(msgspec.Struct):
    message: AssistantMessage
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletion(msgspec.Struct):
    """A stream has `chat.completion.chunk` objects, and ends with `[DONE]`."""

    choices: list[ChatChoice]
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: ChatUsage | None = None


class TextChoice(msgspec.Struct):
    text: str
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class TextCompletion(msgspec.Struct):
    choices: list[TextChoice]
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: ChatUsage | None = None


class Embedding(msgspec.Struct):
    embedding: list[float] | str
    index: int = 0


class Embeddings(msgspec.Struct):
    data: list[Embedding]
    model: str | None = None
    usage: ChatUsage | None = None


class Ranking(msgspec.Struct):
    """Servers call the list by either name."""

    results: list[dict[str, Any]] | None = None
    data: list[dict[str, Any]] | None = None


class Images(msgspec.Struct):
    data: list[dict[str, Any]]
    created: int | None = None


class Transcript(msgspec.Struct):
    text: str


class AnthropicMessage(msgspec.Struct):
    """A stream has the events of Anthropic's API."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: dict[str, Any]


class InputTokens(msgspec.Struct):
    input_tokens: int


class ResponseObject(msgspec.Struct):
    """A stream has the events of OpenAI's Responses API."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    model: str
    output: list[dict[str, Any]]
    store: bool
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None


class DeletedResponse(msgspec.Struct):
    id: str
    object: Literal["response"]
    deleted: bool


class InputItems(msgspec.Struct):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class ModelCard(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(msgspec.Struct):
    object: Literal["list"]
    data: list[ModelCard]


class PreparedEntry(msgspec.Struct):
    id: str
    prompt: str
    aliases: list[str]
    variants: int


class PreparedPrompts(msgspec.Struct):
    prompts: list[PreparedEntry]


class PreparedAnswer(msgspec.Struct):
    response: str


class Health(msgspec.Struct):
    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    model: str | None
    models: int
    prepared_prompts: int
    uptime: str
    asleep: int | None = None
    gpu_memory_used: str | None = None
    gpu_memory_total: str | None = None
    vllm_status: Literal["connected", "disconnected"] | None = None


class Stats(msgspec.Struct):
    total_requests: int
    total_tokens: int
    avg_latency_ms: float
    requests_per_minute: float
    errors_last_hour: int
    since: float
    models: dict[str, dict[str, Any]]
    users: dict[str, dict[str, Any]]
    origins: dict[str, dict[str, Any]]


_SHOWN = [(field.name, field.type) for field in msgspec.structs.fields(Key) if field.name != "secret_hash"]
ShownKey = msgspec.defstruct("ShownKey", [*_SHOWN, ("status", Literal["active", "expired", "revoked"])])
NewlyMadeKey = msgspec.defstruct("NewlyMadeKey", [("key", str)], bases=(ShownKey,))
ShownKeys = msgspec.defstruct("ShownKeys", [("keys", list[ShownKey])])  # type: ignore[valid-type]  # it is made above


class DeploymentState(msgspec.Struct):
    deployment: str
    provider: str
    server: str
    upstream_model: str
    state: Literal["loaded", "loading", "unloaded", "sleeping", "unknown"]
    parent: str | None
    model: str | None = None


class OwnModels(msgspec.Struct):
    models: list[DeploymentState]


class ChangedModel(msgspec.Struct):
    model: str
    deployments: list[DeploymentState]


class Reloaded(msgspec.Struct):
    status: Literal["reloaded"]
    detail: str


# By method and path; metrics are no JSON.
ANSWERS: dict[tuple[str, str], Any] = {
    ("POST", "/v1/chat/completions"): ChatCompletion,
    ("POST", "/chat/completions"): ChatCompletion,
    ("POST", "/v1/completions"): TextCompletion,
    ("POST", "/v1/embeddings"): Embeddings,
    ("POST", "/v1/rerank"): Ranking,
    ("POST", "/v1/images/generations"): Images,
    ("POST", "/v1/audio/transcriptions"): Transcript,
    ("POST", "/v1/messages"): AnthropicMessage,
    ("POST", "/v1/messages/count_tokens"): InputTokens,
    ("POST", "/v1/responses"): ResponseObject,
    ("GET", "/v1/responses/{id}"): ResponseObject,
    ("DELETE", "/v1/responses/{id}"): DeletedResponse,
    ("GET", "/v1/responses/{id}/input_items"): InputItems,
    ("POST", "/api/v1/llm/query"): LLMResponse,
    ("GET", "/api/v1/llm/models"): list[str],
    ("GET", "/v1/models"): ModelList,
    ("GET", "/v1/models/{model}"): ModelCard,
    ("GET", "/responses/catalogue.json"): PreparedPrompts,
    ("GET", "/responses/{id}/{k}.json"): PreparedAnswer,
    ("GET", "/health"): Health,
    ("GET", "/stats"): Stats,
    ("GET", "/admin/keys"): ShownKeys,
    ("POST", "/admin/keys"): NewlyMadeKey,
    ("GET", "/admin/keys/{id}"): ShownKey,
    ("DELETE", "/admin/keys/{id}"): ShownKey,
    ("POST", "/admin/keys/{id}/rotate"): NewlyMadeKey,
    ("GET", "/admin/models"): OwnModels,
    **{("POST", f"/admin/models/{{model}}/{action}"): ChangedModel for action in get_args(Action)},
    ("POST", "/admin/reload"): Reloaded,
}
