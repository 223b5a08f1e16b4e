"""The ASGI application: the whole route table on one screen."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from starlette.responses import RedirectResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.admin import AdminKeys, ReloadEndpoint, require_watcher
from lexora.api.admin_models import AdminModels, ModelOperations
from lexora.api.answers import AnswerEndpoint, CatalogueEndpoint
from lexora.api.chat import ChatEndpoint
from lexora.api.cors import CorsLayer
from lexora.api.errors import ErrorLayer
from lexora.api.health import HealthEndpoint, HealthFacts
from lexora.api.http import headers_of
from lexora.api.messages import CountTokensEndpoint, messages_table
from lexora.api.metrics import MetricsEndpoint
from lexora.api.models import ModelsEndpoint
from lexora.api.openapi import KEY, Doc, Row, describe, docs_endpoint, openapi_endpoint
from lexora.api.page import page_routes
from lexora.api.query import query_table
from lexora.api.responses import responses_table
from lexora.api.stats import StatsEndpoint
from lexora.api.surface import surface_table
from lexora.core.auth import Auth
from lexora.core.chat import ChatFields
from lexora.core.errors import HostNotAllowed
from lexora.core.gateway import Gateway
from lexora.core.ports import KeyStore, Ledger, ResponseStore
from lexora.core.record import RequestIds
from lexora.core.stats import StatsSource

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Operations(NamedTuple):
    """What operators see and do. `reload` reads the configuration again and says what there is now, or raises."""

    keys: KeyStore
    stats: StatsSource
    live: Callable[[], Mapping[str, Any]] = dict
    metrics: Callable[[], bytes] | None = None
    reload: Callable[[], Awaitable[str]] | None = None
    health: Callable[[], HealthFacts] = HealthFacts
    models: ModelOperations | None = None


def create_app(
    gateway: Gateway,
    auth: Auth,
    ledger: Ledger,
    *,
    operations: Operations,
    allow_origins: Collection[str],
    max_body_bytes: int,
    max_seconds: float = float("inf"),
    max_plain_seconds: float = float("inf"),
    hosts: Collection[bytes] | None = None,
    stored_responses: ResponseStore | None = None,
    page: Path | None = None,
) -> ASGIApp:
    """The application over a gateway, who may use it, and a ledger.

    `allow_origins` are the web origins that CORS lets in, `max_seconds` the latest deadline of a chat request and
    `max_plain_seconds` that of one that is not streamed, `hosts` the names that a request's Host header may have
    (None: any). On a loopback address this keeps out web pages whose own name was made to point here (DNS rebinding).
    `stored_responses` is where responses are stored, if they are, `page` the folder of what is served at /try/, where
    / leads, if any.
    """
    started_at = time.time()
    request_ids = RequestIds()
    completions = partial(
        ChatEndpoint, gateway, auth, ledger, request_ids, max_body_bytes, max_seconds, max_plain_seconds
    )
    chat = completions()
    models = ModelsEndpoint(gateway, started_at)
    answer = AnswerEndpoint(gateway, ledger, request_ids)
    catalogue = CatalogueEndpoint(gateway)
    health = HealthEndpoint(gateway, time.monotonic(), operations.health)

    stats = StatsEndpoint(operations.stats, partial(require_watcher, auth), operations.live)
    admin_keys = AdminKeys(auth, operations.keys, max_body_bytes)

    chat_doc = Doc("A chat completion, plain or (stream: true) as server-sent events.", ChatFields, completes=True)
    model_doc = Doc("One model.", parameters=(("model", "string", "a model's name or alias"),))
    answer_doc = Doc(
        "A prepared answer, as the CDN serves it.",
        parameters=(
            ("id", "string", "a prompt's id, such as q1_capital"),
            ("k", "string", "the variant, from 0, or `random`"),
        ),
        statuses=(200, 304),
        errors=(503,),
    )
    catalogue_doc = Doc("The prompts that have prepared answers, as the CDN serves them.", statuses=(200, 304))
    health_doc = Doc(
        "Whether the gateway is up, and what it can answer with. 503: no model answers; prepared answers may.",
        statuses=(200, 503),
    )
    stats_doc = Doc(
        "What became of the requests of the last 24 hours.",
        errors=KEY,
        query=(("hours", "integer", "of so many hours, at most 744"),),
    )
    table: list[Row] = [
        ("POST", "/v1/chat/completions", chat, chat_doc),
        ("POST", "/chat/completions", chat, chat_doc),
        *messages_table(completions, CountTokensEndpoint(gateway, auth, request_ids, max_body_bytes)),
        *responses_table(completions, stored_responses, auth),
        *surface_table(completions),
        *query_table(completions, gateway),
        ("GET", "/v1/models", models, Doc("The models that can be asked.")),
        ("GET", "/v1/models/{model:path}", models, model_doc),
        ("GET", "/responses/catalogue.json", catalogue, catalogue_doc),
        ("GET", "/responses/{id}/{k}.json", answer, answer_doc),
        ("GET", "/health", health, health_doc),
        ("GET", "/stats", stats, stats_doc),
        *admin_keys.table(),
    ]
    if operations.metrics is not None:
        metrics_doc = Doc("Metrics for Prometheus.", response="text/plain", errors=KEY)
        metrics = MetricsEndpoint(operations.metrics, _METRICS_TYPE, partial(require_watcher, auth))
        table.append(("GET", "/metrics", metrics, metrics_doc))
    if operations.models is not None:
        table += AdminModels(auth, operations.models, max_body_bytes).table()
    if operations.reload is not None:
        reload = ReloadEndpoint(auth, operations.reload)
        reload_doc = Doc("Read the configuration again. Needs an admin's key.", errors=(400, *KEY))
        table.append(("POST", "/admin/reload", reload, reload_doc))
    api = describe([(method, _plain(path), doc) for method, path, _, doc in table])
    by_path: dict[str, dict[str, ASGIApp]] = {}
    for method, path, endpoint, _ in table:
        by_path.setdefault(path, {})[method] = endpoint
    routes = [Route(path, _ByMethod(endpoints), methods=list(endpoints)) for path, endpoints in by_path.items()]
    routes += [
        Route("/openapi.json", openapi_endpoint(api), methods=["GET"]),
        Route("/docs", docs_endpoint(api), methods=["GET"]),
        # Relative: something may stand before every path.
        Route("/", RedirectResponse("try/" if page else "docs"), methods=["GET"]),
        *(page_routes(page) if page else ()),
    ]
    router = Router(routes, redirect_slashes=False)
    # A path without parameters needs no search through the table.
    exact = {(method, path): endpoint for method, path, endpoint, _ in table if "{" not in path}

    def goes_by(scope: Scope) -> bool:
        return hosts is None or _host_name(headers_of(scope).get(b"host", b"localhost")) in hosts

    def dispatch(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if not goes_by(scope):
            raise HostNotAllowed("This gateway does not go by that name. Add it to server.allowed_hosts in the config.")
        return exact.get((scope["method"], scope["path"]), router.app)(scope, receive, send)

    layer = ErrorLayer(dispatch)

    def enter(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        endpoint = exact.get((scope["method"], scope["path"]))
        if isinstance(endpoint, ChatEndpoint) and goes_by(scope):  # it answers its errors itself
            return endpoint(scope, receive, send)
        return layer(scope, receive, send)

    return CorsLayer(enter, allow_origins)


class _ByMethod:
    """The endpoints of one path: to the router they are one, so that it knows all of the path's methods."""

    def __init__(self, endpoints: Mapping[str, ASGIApp]) -> None:
        self._endpoints = endpoints

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        return self._endpoints[method](scope, receive, send)


@lru_cache(maxsize=256)
def _host_name(host: bytes) -> bytes:
    """A Host header without its port."""
    host = host.lower()
    return host if host.endswith(b"]") else host.rsplit(b":", 1)[0]


def _plain(path: str) -> str:
    """`/a/{b:path}` as OpenAPI writes it: `/a/{b}`."""
    return path.replace(":path}", "}")
