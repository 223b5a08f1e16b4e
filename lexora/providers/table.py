"""Every provider, one row each. A new OpenAI-like provider is a new row."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from lexora.providers.anthropic import AnthropicDialect
from lexora.providers.dialect import Dialect
from lexora.providers.openai import OpenAIDialect

_OPENAI = OpenAIDialect()
_ANTHROPIC = AnthropicDialect()


class Provider(NamedTuple):
    """An API dialect with its auth and its whereabouts.

    `base_url` is used by deployments that name none. `credential_env` and `base_url_env` are the environment
    variables that hold its key and another base URL by convention. `chat_models` are patterns of the names of
    its chat models. `base_url_env_lacks_version`: by convention the URL in that variable ends before `/v1`.
    `continues` are the fields with which it goes on with a last message of the assistant's, None if it does not.
    """

    dialect: Dialect
    origin: Literal["own", "paid"]
    base_url: str
    credential_env: str | None = None
    base_url_env: str | None = None
    chat_models: tuple[str, ...] = ()
    base_url_env_lacks_version: bool = False
    continues: Mapping[str, bool] | None = None


PROVIDERS: dict[str, Provider] = {
    "vllm": Provider(
        _OPENAI,
        "own",
        "http://localhost:8000/v1",
        continues={"continue_final_message": True, "add_generation_prompt": False},
    ),
    "ollama": Provider(OpenAIDialect(only_max_tokens=True), "own", "http://localhost:11434/v1"),
    "llamacpp": Provider(_OPENAI, "own", "http://localhost:8080/v1", continues={}),
    "openai": Provider(
        _OPENAI,
        "paid",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        ("gpt-[0-9]*", "chatgpt-*", "o[0-9]*"),
    ),
    "anthropic": Provider(
        _ANTHROPIC,
        "paid",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        ("claude-*",),
        base_url_env_lacks_version=True,
        continues={},
    ),
}
