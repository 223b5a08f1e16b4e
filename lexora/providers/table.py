"""Every provider, one row each. A new OpenAI-like provider is a new row (docs/providers.md)."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

import msgspec

from lexora.core.model_map import Price
from lexora.providers.anthropic import DEFAULT_MAX_TOKENS, AnthropicDialect
from lexora.providers.bedrock import BedrockDialect
from lexora.providers.chat_fields import Refused
from lexora.providers.dialect import Decoder, Dialect
from lexora.providers.eventstream import EventStreamDecoder
from lexora.providers.gemini import GeminiDialect
from lexora.providers.openai import OpenAIDialect
from lexora.providers.sigv4 import Identity, signed
from lexora.providers.sse import EventDecoder

_OPENAI = OpenAIDialect()
# The only name that some servers know: they pass over the newer one, and the answer has no limit.
_OLDER_NAME = {"max_completion_tokens": "max_tokens"}
_WITH_OLDER_NAME = OpenAIDialect(renamed=_OLDER_NAME)
# https://docs.ollama.com/api/openai-compatibility
_IGNORED_BY_OLLAMA = {
    "n": Refused((1,), "Ask once for each answer."),
    "best_of": Refused((1,), "Ask once for each answer."),
    "logit_bias": Refused(({},), "Leave it out, or choose a model of another provider."),
    "tool_choice": Refused(("auto",), "Leave it out, and offer just the tools that may be called."),
    "parallel_tool_calls": Refused((True,), "Leave it out: they call several tools at once if they see fit."),
}
_LISTED = msgspec.json.decode((Path(__file__).parent / "prices.json").read_bytes())["prices"]


class Sign(Protocol):
    """Gives the headers that sign a POST, besides its other `headers`; `now` is Unix time in seconds."""

    def __call__(
        self, identity: Identity, headers: Mapping[str, str], path: str, body: bytes, *, now: float
    ) -> dict[str, str]: ...


class Provider(NamedTuple):
    """An API dialect with its auth and its whereabouts.

    `base_url` is used by deployments that name none; where it is None, each must. `credential_env` and `base_url_env`
    are the environment variables that hold its key and another base URL by convention; `credential_env_too` is where
    the key may be instead. `chat_models` are patterns of the names of its chat models: with them, a key in the
    environment is enough. `other_models` are patterns of those that do something else, found the same way but listed
    nowhere. `base_url_env_lacks_version`: by convention the URL in that variable ends before `/v1`.
    `prices` are those that it lists, by the names of its models.
    `counts_tokens`: it counts a prompt's tokens without answering it, in Anthropic's form.
    `continues` are the fields with which it goes on with a last message of the assistant's, None if it does not.
    `sign` signs the requests of deployments without a credential. `decoder` makes what cuts its streams into events.
    `says_model`: its answers say which model gave them. `default_max_tokens` is what it is sent as the longest answer
    where the request does not say.
    """

    dialect: Dialect
    origin: Literal["own", "paid"]
    base_url: str | None
    credential_env: str | None = None
    base_url_env: str | None = None
    chat_models: tuple[str, ...] = ()
    base_url_env_lacks_version: bool = False
    continues: Mapping[str, bool] | None = None
    credential_env_too: str | None = None
    prices: Mapping[str, Price] = MappingProxyType({})
    counts_tokens: bool = False
    sign: Sign | None = None
    decoder: Callable[[], Decoder] = EventDecoder
    says_model: bool = True
    default_max_tokens: int = 0
    other_models: tuple[str, ...] = ()


def _prices(provider: str) -> dict[str, Price]:
    return {model: Price.model_validate(price) for model, price in _LISTED[provider].items()}


PROVIDERS: dict[str, Provider] = {
    "vllm": Provider(
        _OPENAI,
        "own",
        "http://localhost:8000/v1",
        continues={"continue_final_message": True, "add_generation_prompt": False},
        counts_tokens=True,
    ),
    "ollama": Provider(
        OpenAIDialect(renamed=_OLDER_NAME, ignored=_IGNORED_BY_OLLAMA, whose="Ollama's"),
        "own",
        "http://localhost:11434/v1",
    ),
    "llamacpp": Provider(_OPENAI, "own", "http://localhost:8080/v1", continues={}, counts_tokens=True),
    "openai": Provider(
        _OPENAI,
        "paid",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        ("gpt-[0-9]*", "chatgpt-*", "o[0-9]*"),
        prices=_prices("openai"),
        other_models=("text-embedding-*", "gpt-image-*", "dall-e-*", "whisper-*"),
    ),
    "anthropic": Provider(
        AnthropicDialect(),
        "paid",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        ("claude-*",),
        base_url_env_lacks_version=True,
        continues={},
        prices=_prices("anthropic"),
        counts_tokens=True,
        default_max_tokens=DEFAULT_MAX_TOKENS,
    ),
    "gemini": Provider(
        GeminiDialect(),
        "paid",
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        ("gemini-*",),
        base_url_env_lacks_version=True,
        credential_env_too="GOOGLE_API_KEY",
        prices=_prices("gemini"),
    ),
    # Its address has the region in it. Without a credential, requests are signed: AWS's keys or a role instead of one.
    "bedrock": Provider(
        BedrockDialect(),
        "paid",
        None,
        sign=partial(signed, service="bedrock"),
        decoder=EventStreamDecoder,
        says_model=False,
    ),
    "azure": Provider(OpenAIDialect(key_header="api-key"), "paid", None, "AZURE_OPENAI_API_KEY"),
    "huggingface": Provider(_WITH_OLDER_NAME, "paid", "https://router.huggingface.co/v1", "HF_TOKEN"),
    "openrouter": Provider(_OPENAI, "paid", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "groq": Provider(_OPENAI, "paid", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Provider(
        OpenAIDialect(renamed={**_OLDER_NAME, "seed": "random_seed"}, tells_usage=True),
        "paid",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
    ),
    "deepseek": Provider(_WITH_OLDER_NAME, "paid", "https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    "together": Provider(_WITH_OLDER_NAME, "paid", "https://api.together.ai/v1", "TOGETHER_API_KEY"),
    "fireworks": Provider(_OPENAI, "paid", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "xai": Provider(_OPENAI, "paid", "https://api.x.ai/v1", "XAI_API_KEY"),
    "cerebras": Provider(_OPENAI, "paid", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "nvidia": Provider(_WITH_OLDER_NAME, "paid", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    # Any other: its deployments say where it is, and whose (`origin: own` for a server of the user's).
    "openai-compatible": Provider(_OPENAI, "paid", None),
}


def sent_limit(provider: str) -> int:
    """The longest answer that a provider is told to give where the request does not say; 0 if it is told nothing."""
    return PROVIDERS[provider].default_max_tokens
