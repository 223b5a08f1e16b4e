"""The config file: what may stand in it, and errors that name the place and the mend."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lexora.core.model_map import HttpUrl, Route, names_are_unique
from lexora.entry.errors import ConfigError
from lexora.entry.model_map import Location, first_problem, load_model_map, read_text
from lexora.providers.table import PROVIDERS


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Port = Annotated[int, Field(ge=1, le=65535)]


class Server(_Section):
    host: str = "127.0.0.1"
    port: Port = 8001
    max_body_mb: float = Field(32, gt=0)
    grace_seconds: float = Field(30, ge=0)
    allowed_hosts: list[str] = []


class Vllm(_Section):
    """The main vLLM server. `timeout` is for a whole answer, in seconds."""

    url: HttpUrl = "http://localhost:8000"
    timeout: float = Field(600, gt=0)


class BackendModel(_Section):
    """A model of a backend: `name` is public, `path` what vLLM was started with, and calls it unless told otherwise."""

    name: str = Field(min_length=1)
    path: str | None = None
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)


class Backend(_Section):
    """An own model server. Without `models`, it serves what it says it has."""

    enabled: bool = True
    url: HttpUrl
    models: list[BackendModel] = []


class Priorities(_Section):
    high: int = 1
    normal: int = 5
    low: int = 10


class Queue(_Section):
    """What waits for a place at an own model server: at most `max_size`, each for at most `default_timeout` seconds, or
    as long as its own `x_timeout` says.

    Of `priorities` the lower goes first; whoever waits gains one point every `ageing_seconds`.
    """

    max_size: int = Field(100, ge=0)
    default_timeout: float = Field(60, gt=0)
    priorities: Priorities = Priorities()
    ageing_seconds: float = Field(5, gt=0)


class RateLimit(_Section):
    requests_per_minute: int = Field(30, ge=0)
    tokens_per_minute: int = Field(50_000, ge=0)


class RateLimits(_Section):
    """Of each user; those who are not named have `default`."""

    default: RateLimit = RateLimit()
    users: dict[str, RateLimit] = {}


class Budget(_Section):
    usd_per_day: float | None = Field(None, ge=0, allow_inf_nan=False)
    usd_per_month: float | None = Field(None, ge=0, allow_inf_nan=False)


class Budgets(_Section):
    """What may be spent: by all together, and by each user; those who are not named have `default`."""

    everyone: Budget = Budget()
    default: Budget = Budget()
    users: dict[str, Budget] = {}


class StoreFailure(_Section):
    """Whether requests go on (`open`) or not (`closed`) while limits cannot be counted."""

    own: Literal["open", "closed"] = "open"
    paid: Literal["open", "closed"] = "closed"


class Retry(_Section):
    """Attempts of one request in all; before all deployments are asked again, `delay_seconds`, then longer."""

    max_attempts: int = Field(3, ge=1)
    delay_seconds: float = Field(1.0, ge=0)
    backoff_multiplier: float = Field(2.0, ge=1)


class Circuit(_Section):
    """After `failures` in a row a deployment is left alone for `cooldown_seconds`, and then tried with one request."""

    failures: int = Field(10, ge=1)
    cooldown_seconds: float = Field(10, gt=0)


class Jwt(_Section):
    """Tokens of an OIDC issuer as an alternative to keys.

    `user_claim` says who the user is. Whoever's `admin_claim` holds `admin_value`, or is a list with it, is an admin.
    """

    issuer: str = Field(pattern=r"^https?://[^\s/]+\S*$")  # as its tokens have it, to the letter
    audience: str = Field(min_length=1)
    jwks_url: HttpUrl | None = None
    user_claim: str = "sub"
    admin_claim: str | None = None
    admin_value: str = "admin"


class Auth(_Section):
    """Who needs a key. Unless `required` says it, whoever asks on another address than this machine's own, or where
    `server.allowed_hosts` says that others come through a proxy.

    Prepared answers need one only if `prepared_answers` says so.
    """

    required: bool | None = None
    prepared_answers: bool = False
    jwt: Jwt | None = None


class Logging(_Section):
    """`message_text: false` keeps the users' words out of the log and the records; their length stays."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json"] = "json"
    message_text: bool = True


class Metrics(_Section):
    """A port of its own for /metrics and /health, for whoever can reach it: no key is needed there."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 9090


class Tracing(_Section):
    """Where traces go: an OTLP endpoint over HTTP, such as http://localhost:4318."""

    endpoint: HttpUrl


def _origin(origin: str) -> str:
    if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[!-.0-~]+", origin):
        raise ValueError("must be an origin as browsers send it, such as https://app.example.com, without a path")
    return origin


class Responses(_Section):
    """Whether answers of the Responses API are stored, and with them the users' words; see docs/responses.md."""

    store: bool = False


class Cache(_Section):
    """How answers are cached of models that say `cache`, and for requests that do; see docs/cache.md.

    `by_request` lets requests ask for it whose model does not say so.
    """

    ttl_seconds: float = Field(3600, gt=0, le=30 * 86_400)
    per_user: bool = True
    by_request: bool = True
    max_mb: float = Field(256, gt=0)
    max_entries: int = Field(100_000, ge=1)


class Cors(_Section):
    """Web origins (`https://app.example.com`, or `*`) whose pages may call the API."""

    allow_origins: list[Annotated[str, AfterValidator(_origin)]] = []


def _own_provider(name: str) -> str:
    own = [name for name, row in PROVIDERS.items() if row.origin == "own"]
    if name not in own:
        raise ValueError(f"unknown provider '{name}'; a backend is one of {', '.join(own)}")
    return name


class Settings(_Section):
    """A config file. Paths in it are relative to the file."""

    server: Server = Server()
    vllm: Vllm | None = None
    default_model: str | None = None
    backends: dict[Annotated[str, AfterValidator(_own_provider)], Backend] = {}
    models: dict[str, Route] = {}
    model_map: Path | None = None
    answers: Path | None = None
    data: Path | None = None
    queue: Queue = Queue()
    auth: Auth = Auth()
    rate_limits: RateLimits | None = None
    budgets: Budgets = Budgets()
    on_store_failure: StoreFailure = StoreFailure()
    retry: Retry | None = None
    circuit: Circuit = Circuit()
    logging: Logging = Logging()
    metrics: Metrics | None = None
    tracing: Tracing | None = None
    responses: Responses = Responses()
    cache: Cache = Cache()
    cors: Cors = Cors()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names_are_unique(self.models)
        return self


def load_settings(path: Path | None) -> Settings:
    """Reads a config file; without one, everything is at its default. Raises ConfigError."""
    if path is None:
        return Settings()
    text = read_text(path)
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of a date that there is not
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"{place}: not valid YAML: {problem}") from None
    if data is None:
        return Settings()
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys such as 'server:' and 'models:' at the top")
    try:
        settings = Settings.model_validate(data, context=PROVIDERS)
    except ValidationError as error:
        raise ConfigError(first_problem(error, Settings, _place_of(path, root))) from None
    relative = {name: getattr(settings, name) for name in ("model_map", "answers", "data")}
    found: dict[str, Any] = {name: path.parent / value for name, value in relative.items() if value is not None}
    if "model_map" in found:
        found["models"] = settings.models | load_model_map(found["model_map"]).models
    return settings.model_copy(update=found)


def _place_of(path: Path, root: yaml.Node | None) -> Callable[[Location], str]:
    def place(location: Location) -> str:
        line = _line_of(root, location)
        return f"{path}:{line}" if line else f"{path}"

    return place


def _line_of(node: yaml.Node | None, location: Location) -> int | None:
    """The line of a place in a YAML document, or of the nearest enclosing one that stands there."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
