"""The model map: which deployments stand behind each public model name.

{"models": {"chat": {"aliases": ["gpt-4o-mini"], "deployments": [
    {"provider": "vllm", "base_url": "http://localhost:8000/v1", "model": "qwen3-32b"},
    {"provider": "openai", "model": "gpt-4o-mini", "credential": "env:OPENAI_API_KEY",
     "price": {"input": 0.15, "output": 0.6}}]}}}
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Protocol, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lexora.core.usage import Usage


class ProviderFacts(Protocol):
    """What the model map takes from a provider where a deployment does not say it."""

    @property
    def origin(self) -> Literal["own", "paid"]: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def credential_env(self) -> str | None: ...
    @property
    def prices(self) -> "Mapping[str, Price]": ...


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rates(_Strict):
    """US dollars per million tokens.

    `cached_input` is for prompt tokens that the provider had cached, `cache_write` for those that it has cached with
    this request, `cache_write_1h` for those of them that it keeps for an hour. Left out, they are `input`.
    """

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)
    cached_input: float | None = Field(None, ge=0)
    cache_write: float | None = Field(None, ge=0)
    cache_write_1h: float | None = Field(None, ge=0)

    @property
    def dearest_input(self) -> float:
        return max(self.input, self.cached_input or 0.0, self.cache_write or 0.0, self.cache_write_1h or 0.0)

    def dollars(self, usage: Usage) -> float:
        """What an answer cost."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        written_1h = written if self.cache_write_1h is None else self.cache_write_1h
        return (
            max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens) * self.input
            + usage.cached_tokens * cached
            + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * written
            + usage.cache_write_1h_tokens * written_1h
            + usage.completion_tokens * self.output
        ) / 1e6


class LongPromptRates(Rates):
    """What a whole request costs whose prompt has more tokens than `over`."""

    over: int = Field(ge=0)


class Price(Rates):
    """What a model costs. Some are dearer with a long prompt."""

    long: LongPromptRates | None = None

    def rates(self, prompt_tokens: int) -> Rates:
        return self.long if self.long and prompt_tokens > self.long.over else self

    def cost(self, usage: Usage) -> float:
        """What an answer cost, in US dollars."""
        return self.rates(usage.prompt_tokens).dollars(usage)


def listed_price(prices: Mapping[str, Price], model: str) -> Price | None:
    """The price of a model in a provider's list, which may have it without the date of its snapshot."""
    return prices.get(model) or prices.get(re.sub(r"-(\d{8}|\d{4}-\d{2}-\d{2})$", "", model))


class Timeouts(_Strict):
    """Seconds: to connect, to the first token of a stream, between two pieces of it, and for the whole answer."""

    first_token: float | None = Field(None, gt=0)
    connect: float = Field(5.0, gt=0)
    idle: float = Field(120.0, gt=0)
    total: float = Field(600.0, gt=0)


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http:// or https:// URL, such as http://localhost:8000")
    if parts.username or parts.password:
        raise ValueError("must not hold a user name or password; use credential: env:NAME")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("must be written in ASCII, without spaces")
    _ = parts.port  # raises ValueError on a port that is none
    return url.rstrip("/")


def is_reference(value: str) -> bool:
    """Whether it names a secret (`env:NAME`): an environment variable, or where there is one, in the secrets' store."""
    return re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", value) is not None


def _reference(credential: str) -> str:
    if not is_reference(credential):
        # Whatever it is, it is not repeated: it may be the secret.
        raise ValueError("must name an environment variable, such as env:OPENAI_API_KEY; never the key itself")
    return credential


HttpUrl = Annotated[str, AfterValidator(_http_url)]
CredentialReference = Annotated[str, AfterValidator(_reference)]
_HeaderText = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")]


class Deployment(_Strict):
    """One place that can answer: an upstream model behind a provider's API.

    `base_url` includes the version (`…/v1`). `credential` is a reference (`env:NAME`), never the secret itself.
    A header's value may be such a reference too. `query` goes behind the path of every call (Azure's `api-version`).
    `base_url`, `credential` and `origin` (whose it is: the user's own or paid by the token) may be left out for the
    provider's own, and `price` for the one that the provider lists. Without a price, a deployment of the user's own
    costs nothing and a paid one an unknown amount.

    `concurrency` is how many requests it takes at a time (None: what the server says, for the user's own).
    `priority_scheduling` says that the server orders them itself (vLLM's `--scheduling-policy priority`).
    `context_window` is in tokens: a request that is too long for one deployment goes to the next with a larger one.
    """

    provider: str
    model: str = Field(min_length=1)
    base_url: HttpUrl
    origin: Literal["own", "paid"]
    name: _HeaderText | None = Field(None, min_length=1)
    credential: CredentialReference | None = None
    weight: float | None = Field(None, gt=0)
    price: Price | None = None
    timeouts: Timeouts = Timeouts.model_construct()
    concurrency: int | None = Field(None, ge=1)
    priority_scheduling: bool = False
    context_window: int | None = Field(None, ge=1)
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], _HeaderText] = {}
    query: dict[Annotated[str, Field(min_length=1)], str] = {}

    @property
    def label(self) -> str:
        """What logs, records and `x-lexora-deployment` call it."""
        return self.name or f"{self.provider}/{self.model}"

    @property
    def references(self) -> list[str]:
        """The secrets that it needs, as `env:NAME`, each once."""
        return list(dict.fromkeys(filter(is_reference, (self.credential or "", *self.headers.values()))))

    @property
    def is_free(self) -> bool:
        """Whether no answer of it can cost anything."""
        return self.price == Price() if self.price else self.origin == "own"

    def cost(self, usage: Usage) -> float | None:
        """What an answer cost, in US dollars; None where no price is known."""
        if self.price is None:
            return 0.0 if self.origin == "own" else None
        return self.price.cost(usage)

    @model_validator(mode="before")
    @classmethod
    def _provider_defaults(cls, data: Any, info: ValidationInfo) -> Any:
        """Fills what is left out from the provider's row; the rows come as validation context."""
        if not isinstance(data, dict) or info.context is None:
            return data
        provider = data.get("provider")
        row = info.context.get(provider) if isinstance(provider, str) else None
        if row is None:
            return {"base_url": "http://unknown", "origin": "own", **data}  # `provider` itself is at fault
        defaults = {"base_url": row.base_url or "", "origin": row.origin}
        if row.credential_env:
            defaults["credential"] = f"env:{row.credential_env}"
        found = {**defaults, **data}
        if found["origin"] == "paid" and found.get("price") is None and isinstance(found.get("model"), str):
            found["price"] = listed_price(row.prices, found["model"])
        return found

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, name: str, info: ValidationInfo) -> str:
        if info.context is not None and name not in info.context:
            close = get_close_matches(name, info.context, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(info.context)}"
            raise ValueError(f"unknown provider '{name}'; {hint}")
        return name


class CacheRule(_Strict):
    """How a model's answers are cached: for how long, and for each user alone or for all. None: as for any model."""

    ttl_seconds: float | None = Field(None, gt=0, le=30 * 86_400)
    per_user: bool | None = None


def _cache_rule(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


class Route(_Strict):
    """A public model's ordered deployments: the first answers, the next are its fallbacks.

    Deployments with a weight share the first place in proportion to their weights. Answers are cached if `cache` says
    so: how, or just `true`.
    """

    aliases: list[str] = []
    deployments: list[Deployment] = Field(min_length=1)
    cache: Annotated[CacheRule | None, BeforeValidator(_cache_rule)] = None


class ModelMap(_Strict):
    """Public model name → route."""

    models: dict[Annotated[str, Field(min_length=1)], Route] = {}

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names_are_unique(self.models)
        return self


def names_are_unique(models: Mapping[str, Route]) -> None:
    """Raises ValueError for an alias that is another model's name or alias too."""
    owner = {name: name for name in models}
    for name, route in models.items():
        for position, alias in enumerate(route.aliases):
            if owner.setdefault(alias, name) != name or alias == name:
                raise ValueError(f"models.{name}.aliases[{position}]: '{alias}' already names model '{owner[alias]}'")


def parse_model_map(data: Any, providers: Mapping[str, ProviderFacts]) -> ModelMap:
    """Validates a model map. Raises pydantic's ValidationError, whose locations are paths in `data`."""
    return ModelMap.model_validate(data, context=providers)
