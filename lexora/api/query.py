"""/api/v1/llm: one prompt in, one text out. The same way through the gateway as chat's, by another door."""

from collections.abc import Callable
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.http import Later, send_json
from lexora.api.openapi import UPSTREAM, Doc, Row
from lexora.core.gateway import Gateway


def query_table(completions: Callable[..., ASGIApp], gateway: Gateway) -> list[Row]:
    """The rows of the route table. `completions` makes an endpoint that answers by a door."""
    names_doc = Doc("The names of the models for a query.")
    return [
        ("POST", "/api/v1/llm/query", Later(partial(_query_endpoint, completions)), _query_doc),
        ("GET", "/api/v1/llm/models", _names_endpoint(gateway), lambda: names_doc),
    ]


def _query_endpoint(completions: Callable[..., ASGIApp]) -> ASGIApp:
    from lexora.providers.query_door import QueryDoor

    return completions(endpoint="llm.query", door=QueryDoor())


def _query_doc() -> Doc:
    from lexora.providers.query_door import LLMQuery, QueryError

    return Doc("One prompt in, one text out.", LLMQuery, error=QueryError, errors=UPSTREAM)


def _names_endpoint(gateway: Gateway) -> ASGIApp:
    async def names(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - it has no body
        await send_json(scope, send, 200, gateway.routes().names)

    return names
