"""What may differ between environments: one model, from defaults, cdk.json, `-c` and the process environment."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

# How the settings that operators set most are also spelled, as context (`-c`) and as environment variables.
_SPELLINGS = {
    "ALLOW_ORIGINS": "allow_origins",
    "RATE_LIMIT_QPM": "rate_limit_qpm",
    "burstLimit": "burst_limit",
    "BURST_LIMIT": "burst_limit",
}
# What CloudWatch Logs can keep, in days, up to a year, and what the CDK calls it.
RETENTIONS = {
    1: "ONE_DAY",
    3: "THREE_DAYS",
    5: "FIVE_DAYS",
    7: "ONE_WEEK",
    14: "TWO_WEEKS",
    30: "ONE_MONTH",
    60: "TWO_MONTHS",
    90: "THREE_MONTHS",
    120: "FOUR_MONTHS",
    150: "FIVE_MONTHS",
    180: "SIX_MONTHS",
    365: "ONE_YEAR",
}
# What both doors are told of who may ask, for how much, and of the cache.
LIMIT_SETTINGS = (
    *("auth_required", "prepared_need_key", "jwt_issuer", "jwt_audience", "jwt_user_claim", "jwt_admin_claim"),
    *("jwt_admin_value", "requests_per_minute", "tokens_per_minute", "user_usd_per_day", "user_usd_per_month"),
    *("usd_per_day", "usd_per_month", "own_open", "paid_open"),
    *("cache_ttl_seconds", "cache_per_user", "cache_by_request"),
)
# An environment's name is its stages', and stages are taken off paths: these begin paths of ours.
_PATHS = ("v1", "chat", "health", "docs", "responses", "stats", "metrics", "admin")
_NAME = r"^[a-z][a-z0-9-]{0,15}$"
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:\d+)?")


class SettingsError(Exception):
    """A setting that cannot be used, said in one line."""


def _comma_separated(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _web_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"'{origin}' is no origin; write https://host, without a path, or *")
    return origin


def _retention(days: int) -> int:
    if days not in RETENTIONS:
        raise ValueError(f"must be one of {', '.join(map(str, RETENTIONS))}")
    return days


_Origins = Annotated[tuple[Annotated[str, AfterValidator(_web_origin)], ...], BeforeValidator(_comma_separated)]
_BedrockModel = Annotated[
    str, Field(pattern=r"^(arn:[a-z-]+:bedrock:[a-z0-9-]*:(\d{12})?:[^\s*?]+|[a-z0-9-]+(\.[a-zA-Z0-9_:-]+)+)$")
]
_SecretName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class Settings(BaseModel):
    """One environment.

    `rate_limit_qpm` (requests a minute) and `burst_limit` hold for each door. `memory_mb` is the chat and stream
    functions'. `store_responses` keeps responses of the Responses API for 30 days. `removal` is what `cdk destroy` does
    with data. `domain` needs `certificate_arn`, a certificate in us-east-1. Of `monthly_budget_usd` and
    `daily_spend_alarm_usd` 0 means none. `secrets` are the names that a model map's `env:NAME` may use,
    `bedrock_models` the ids or ARNs of the models that the functions may ask by their role.
    `auth_required` asks for a key wherever a model is asked, `prepared_need_key` for prepared answers too; `jwt_*` take
    the tokens of an OIDC issuer besides. `requests_per_minute`, `tokens_per_minute` and `user_usd_*` are limits of each
    user, `usd_*` of all together, 0 allows none; `own_open` and `paid_open` say whether requests go on while they
    cannot be counted. `cache_*` say how long answers are cached where nothing else is said, whether for their users
    alone, and whether requests may ask for it. `adapter_layer_arn` stands in for the public Lambda Web Adapter layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str = Field("dev", pattern=_NAME)
    prefix: str = Field("lexora", pattern=_NAME)
    allow_origins: _Origins = ()
    rate_limit_qpm: int = Field(600, ge=1)
    burst_limit: int = Field(100, ge=1)
    memory_mb: int = Field(512, ge=128, le=10_240)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_retention_days: Annotated[int, AfterValidator(_retention)] = 14
    record_ttl_days: int = Field(90, ge=1)
    message_text: bool = True
    store_responses: bool = False
    snap_start: bool = False
    tracing: bool = False
    canary: bool = False
    pitr: bool = False
    removal: Literal["destroy", "retain"] = "destroy"
    domain: str | None = Field(None, pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")
    certificate_arn: str | None = Field(None, pattern=r"^arn:[a-z-]+:acm:us-east-1:\d{12}:certificate/.+$")
    edge_only: bool = False
    alarm_email: str | None = Field(None, pattern=r"^[^@\s]+@[^@\s]+$")
    monthly_budget_usd: float = Field(50.0, ge=0)
    daily_spend_alarm_usd: float = Field(10.0, ge=0)
    secrets: Annotated[tuple[_SecretName, ...], BeforeValidator(_comma_separated)] = (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GPU_API_KEY",
    )
    bedrock_models: Annotated[tuple[_BedrockModel, ...], BeforeValidator(_comma_separated)] = ()
    auth_required: bool = True
    prepared_need_key: bool = False
    jwt_issuer: str | None = Field(None, pattern=r"^https://[^\s/]+\S*$")
    jwt_audience: str | None = Field(None, min_length=1)
    jwt_user_claim: str = Field("sub", min_length=1)
    jwt_admin_claim: str | None = Field(None, min_length=1)
    jwt_admin_value: str = Field("admin", min_length=1)
    requests_per_minute: int | None = Field(None, ge=0)
    tokens_per_minute: int | None = Field(None, ge=0)
    user_usd_per_day: float | None = Field(None, ge=0, allow_inf_nan=False)
    user_usd_per_month: float | None = Field(None, ge=0, allow_inf_nan=False)
    usd_per_day: float | None = Field(None, ge=0, allow_inf_nan=False)
    usd_per_month: float | None = Field(None, ge=0, allow_inf_nan=False)
    own_open: bool = True
    paid_open: bool = False
    cache_ttl_seconds: float = Field(3600, gt=0, le=30 * 86_400)
    cache_per_user: bool = True
    cache_by_request: bool = True
    python: Literal["3.11", "3.12", "3.13", "3.14"] = "3.13"
    architecture: Literal["arm64", "x86_64"] = "arm64"
    adapter_layer_arn: str | None = Field(None, pattern=r"^arn:[a-z-]+:lambda:.+:layer:.+:\d+$")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.environment in _PATHS:
            raise ValueError(f"environment '{self.environment}': this name is a path of the API; choose another")
        if (self.domain is None) != (self.certificate_arn is None):
            raise ValueError("domain and certificate_arn go together")
        if (self.jwt_issuer is None) != (self.jwt_audience is None):
            raise ValueError("jwt_issuer and jwt_audience go together")
        if self.snap_start and self.python == "3.11":
            raise ValueError("snap_start needs python 3.12 or newer")
        return self

    @property
    def name(self) -> str:
        """What names begin with that must differ between environments."""
        return f"{self.prefix}-{self.environment}"

    @property
    def secret_prefix(self) -> str:
        return f"/{self.prefix}/{self.environment}/"

    @property
    def rate_per_second(self) -> float:
        return self.rate_limit_qpm / 60


def read_settings(context: Callable[[str], Any], environ: Mapping[str, str]) -> Settings:
    """The settings of the environment that is asked for, by `-c environment=…`.

    Later ones win: defaults, cdk.json's `environments.<name>`, environment variables, `-c key=value`.
    Raises SettingsError.
    """
    environment = context("environment") or context("environmentName") or "dev"
    values: dict[str, Any] = {}
    places: dict[str, str] = {}

    def take(source: Iterable[tuple[str, Any]], place: str) -> None:
        for key, value in source:
            if value is not None and value != "":
                name = _SPELLINGS.get(key, key)
                values[name], places[name] = value, place.format(key)

    take(_of_environment(context("environments"), environment).items(), f"environments.{environment}.{{}} in cdk.json")
    take(((key, environ.get(key)) for key in _SPELLINGS), "environment variable {}")
    take(((key, context(key)) for key in (*Settings.model_fields, *_SPELLINGS)), "-c {}")
    take([("environment", environment)], "-c environment")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(_told(problem, places) for problem in error.errors())) from None


def _of_environment(environments: Any, environment: str) -> dict[str, Any]:
    found = environments.get(environment, {}) if isinstance(environments, dict) else environments or {}
    if not isinstance(found, dict):
        raise SettingsError(f"environments.{environment} in cdk.json: must be an object of settings")
    if "environment" in found:
        raise SettingsError(f"environments.{environment} in cdk.json: must not hold `environment`")
    return found


def _told(problem: Any, places: Mapping[str, str]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        message = "there is no such setting"
    else:
        message += f" (it is {problem['input']!r})"
    return f"{places.get(name, name)}: {message}"
