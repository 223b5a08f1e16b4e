"""Which models can be asked: those the config names, and those that upstreams say they have."""

import asyncio
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from pydantic import ValidationError

from lexora.adapters.http_client import HttpClient, Origin
from lexora.core.errors import CredentialMissing, UpstreamError, UpstreamUnreachable
from lexora.core.model_map import Deployment, ModelMap, Route, listed_price
from lexora.core.routing import Routes, Wildcard
from lexora.entry.config import Backend, Settings
from lexora.entry.errors import ConfigError
from lexora.providers.dialect import NOT_JSON
from lexora.providers.sigv4 import Identity, region_of
from lexora.providers.table import PROVIDERS

PROBE_SECONDS = 1.0
# In the place of a status: nothing came in time, or there was no connection at all.
SILENT, NOT_CONNECTED = 0, -1

# Where a key may be that is not in the variable that a provider's row names first.
_ALSO = {row.credential_env: row.credential_env_too for row in PROVIDERS.values() if row.credential_env_too}


class ServedModel(msgspec.Struct):
    """A model as an upstream's `/models` lists it. `parent` is the base model of a LoRA adapter."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    root: str | None = None
    parent: str | None = None
    owned_by: str | None = None


class _ModelList(msgspec.Struct):
    data: list[ServedModel]


class Upstreams(NamedTuple):
    """The routes, and whether there is nothing more to look for: with a config every upstream has answered, without
    one there is something to forward to.
    """

    routes: Routes
    complete: bool


async def find_upstreams(
    settings: Settings, client: HttpClient, *, configured: bool, model_server: Deployment | None, own_port: int
) -> Upstreams:
    """Works out the routes.

    With a config, from what it names; without one (`configured` false), from what answers on the usual ports and
    the keys in the environment. `model_server` is the llama.cpp that runs for `--model`; it comes first.
    Raises ConfigError.
    """
    routes: dict[str, Route] = {}
    if model_server is not None:
        routes[model_server.model] = Route(deployments=[model_server])
    if configured:
        named, complete = await _configured(settings, client)
        wildcards: tuple[Wildcard, ...] = ()
    else:
        named, wildcards = await _discovered(client, own_port)
        complete = bool(named or wildcards or routes)
    try:
        model_map = ModelMap(models={**routes, **named, **routes})
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    default = settings.default_model
    if default and complete and default not in _public_names(model_map.models):
        known = ", ".join(model_map.models) or "none"
        raise ConfigError(f"default_model: there is no model '{default}'; known models: {known}")
    return Upstreams(Routes(model_map.models, default_model=settings.default_model, wildcards=wildcards), complete)


async def _configured(settings: Settings, client: HttpClient) -> tuple[dict[str, Route], bool]:
    routes = dict(settings.models)
    for name, route in routes.items():
        for position, deployment in enumerate(route.deployments):
            _require_credentials(f"models.{name}.deployments[{position}]", deployment)
    backends = {name: backend for name, backend in settings.backends.items() if backend.enabled}
    if settings.vllm is not None and "vllm" not in settings.backends:
        backends["vllm"] = Backend(url=settings.vllm.url)
    served = await asyncio.gather(*(served_models(client, _base_url(backend.url)) for backend in backends.values()))
    for (provider, backend), models in zip(backends.items(), served, strict=True):
        taken = _public_names(routes)
        parents = {model.id: model.parent for model in models or () if model.parent}
        for name, upstream_model in _names(backend, models).items():
            if name not in taken:
                own = _own(settings, provider, backend, upstream_model)
                base = _base_of(own, parents.get(upstream_model), settings.models)
                routes[name] = Route(deployments=[own if base is None else adapter_of(base, upstream_model)])
    if settings.vllm is not None and settings.default_model and settings.default_model not in _public_names(routes):
        backend = Backend(url=settings.vllm.url)
        routes[settings.default_model] = Route(deployments=[_own(settings, "vllm", backend, settings.default_model)])
    return routes, None not in served


def _names(backend: Backend, served: list[ServedModel] | None) -> dict[str, str]:
    """Public name → the upstream's own name. vLLM calls a model by its path unless it was told a name to serve."""
    if not backend.models:
        return {model.id: model.id for model in served or ()}
    known = {model.id for model in served or ()}
    by_path = {model.root: model.id for model in served or () if model.root}
    names = {}
    for wanted in backend.models:
        called = by_path.get(wanted.path or "") or wanted.path or wanted.name
        names[wanted.name] = wanted.name if wanted.name in known else called
    return names


def _own(settings: Settings, provider: str, backend: Backend, upstream_model: str) -> Deployment:
    data: dict[str, Any] = {"provider": provider, "base_url": _base_url(backend.url), "model": upstream_model}
    if provider == "vllm" and settings.vllm is not None:
        data["timeouts"] = {"total": settings.vllm.timeout}
    return Deployment.model_validate(data, context=PROVIDERS)


def _base_of(adapter: Deployment, parent: str | None, models: Mapping[str, Route]) -> Deployment | None:
    """The deployment of a LoRA adapter's base model that the config names, if it does."""
    named = (each for route in models.values() for each in route.deployments)
    return next((each for each in named if (each.base_url, each.model) == (adapter.base_url, parent)), None)


def adapter_of(base: Deployment, adapter: str) -> Deployment:
    """The deployment of a LoRA adapter: its base model's, but for the name."""
    return base.model_copy(update={"model": adapter, "name": None, "weight": None})


async def _discovered(client: HttpClient, own_port: int) -> tuple[dict[str, Route], tuple[Wildcard, ...]]:
    own = [name for name, row in PROVIDERS.items() if row.origin == "own"]
    own = [name for name in own if urlsplit(PROVIDERS[name].base_url or "").port != own_port]
    paid = [name for name, row in PROVIDERS.items() if row.chat_models and credential_of(f"env:{row.credential_env}")]
    deployments = {name: _environment_deployment(name) for name in (*own, *paid)}
    served = await asyncio.gather(
        *(
            served_models(client, deployment.base_url, _credential_headers(deployment))
            for deployment in deployments.values()
        )
    )
    routes: dict[str, Route] = {}
    wildcards: list[Wildcard] = []
    for (name, deployment), models in zip(deployments.items(), served, strict=True):
        patterns = PROVIDERS[name].chat_models
        price = partial(listed_price, PROVIDERS[name].prices)
        named = (*patterns, *PROVIDERS[name].other_models)
        wildcards += [Wildcard(pattern, deployment, price) for pattern in named if name in paid]
        for model in models or ():
            if name in own or any(fnmatchcase(model.id, pattern) for pattern in patterns):
                provider = model.owned_by if model.owned_by in own else name
                told = {"model": model.id, "provider": provider, "price": price(model.id)}
                found = deployment.model_copy(update=told)
                routes.setdefault(model.id, Route(deployments=[found]))
    return routes, tuple(wildcards)


def _environment_deployment(provider: str) -> Deployment:
    row = PROVIDERS[provider]
    data = {"provider": provider, "model": "*"}
    if row.base_url_env and (url := os.environ.get(row.base_url_env)):
        whole = urlsplit(url).path.strip("/") and not row.base_url_env_lacks_version
        data["base_url"] = url if whole else _base_url(url, (row.base_url or "").rpartition("/")[2])
    try:
        deployment = Deployment.model_validate(data, context=PROVIDERS)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"the environment variable {row.base_url_env}: {problem}") from None
    _require_credentials("", deployment)
    return deployment


def _credential_headers(deployment: Deployment) -> dict[str, str]:
    credential = credential_of(deployment.credential) if deployment.credential else None
    return PROVIDERS[deployment.provider].dialect.headers(credential)


async def served_models(
    client: HttpClient, base_url: str, headers: Mapping[str, str] | None = None
) -> list[ServedModel] | None:
    """What an upstream's `GET /models` lists; None if it does not answer within PROBE_SECONDS."""
    status, body = await fetch(client, f"{base_url}/models", headers)
    try:
        return msgspec.json.decode(body, type=_ModelList).data if status == 200 else None
    except NOT_JSON:
        return None


async def fetch(
    client: HttpClient, url: str, headers: Mapping[str, str] | None = None, seconds: float = PROBE_SECONDS
) -> tuple[int, bytes]:
    """Status and body of `GET url`; SILENT or NOT_CONNECTED and nothing unless they come within `seconds`."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    head = {"host": parts.netloc, "accept-encoding": "identity", "connection": "close", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    try:
        async with asyncio.timeout(seconds):
            response = await client.send(
                Origin(parts.hostname or "", parts.port or (443 if tls else 80), tls),
                f"GET {parts.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"),
                connect_timeout=2 * seconds,  # a connection that is slow to come is an answer that is
            )
            try:
                body = await response.read()
            finally:
                response.close()
    except UpstreamUnreachable:
        return NOT_CONNECTED, b""
    except (TimeoutError, UpstreamError):
        return SILENT, b""
    return response.status, body


def credential_of(reference: str, *, fresh: bool = False) -> str:  # noqa: ARG001 - the environment does not change
    """The secret behind `env:NAME`. Its presence was checked when the model map was loaded."""
    name = reference.removeprefix("env:")
    return os.environ.get(name) or os.environ.get(_ALSO.get(name) or "", "")


def aws_identity() -> Identity:
    """Who signs requests to AWS, by the variables that AWS's own programs read. Raises CredentialMissing."""
    environ = os.environ
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not (key_id and secret):
        how = "set them, or name an API key of Bedrock: `credential: env:AWS_BEARER_TOKEN_BEDROCK`"
        raise CredentialMissing(f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set; {how}")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION", "")
    return Identity(key_id, secret, environ.get("AWS_SESSION_TOKEN", ""), region)


def _require_identity(place: str, deployment: Deployment) -> None:
    try:
        identity = aws_identity()
    except CredentialMissing as error:
        raise ConfigError(f"{place}: {error.message}") from None
    if not all(text.isascii() and text.isprintable() for text in identity):
        raise ConfigError(f"{place}: AWS's variables hold a line break or another character that no key has")
    if not (region_of(urlsplit(deployment.base_url).netloc) or identity.region):
        raise ConfigError(f"{place}.base_url: it names no region of AWS; set AWS_REGION")


def _require_credentials(place: str, deployment: Deployment) -> None:
    if PROVIDERS[deployment.provider].sign and deployment.credential is None:
        _require_identity(place, deployment)
    for reference in deployment.references:
        credential = credential_of(reference)
        where = f"{place}.{'credential' if reference == deployment.credential else 'headers'}: " if place else ""
        variable = f"{where}the environment variable {reference.removeprefix('env:')}"
        if not credential:
            raise ConfigError(f"{variable} is not set; set it to the upstream's key")
        if not (credential.isascii() and credential.isprintable()):
            raise ConfigError(f"{variable} holds a line break or another character that no key has; set it again")


def _base_url(url: str, version: str = "v1") -> str:
    return f"{url.rstrip('/').removesuffix(f'/{version}')}/{version}"


def _public_names(routes: Mapping[str, Route]) -> set[str]:
    return {name for public, route in routes.items() for name in (public, *route.aliases)}
