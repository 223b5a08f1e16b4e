"""/openapi.json and /docs, made from the route table and the types that the code itself validates with."""

import html
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from lexora import __version__
from lexora.api.http import JSON_TYPE, Headers, send


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(msgspec.Struct):
    """Every error has this form."""

    error: ErrorDetail


# What an error of each status says, whatever the route.
_ERRORS = {
    400: "The request cannot be understood, or asks what nobody here can do.",
    401: "No key, or none that is valid.",
    403: "The key does not allow it, or the Host header names somebody else.",
    404: "There is no such thing.",
    408: "The body did not come.",
    409: "The upstream says that something is in the way.",
    413: "The body, or the prompt, is too large.",
    415: "The body is not JSON.",
    422: "The upstream cannot do what the request asks.",
    429: "More requests or tokens than allowed, or the budget is spent.",
    500: "A fault of the gateway's own.",
    502: "The upstream cannot be reached, broke off, or said what cannot be understood.",
    503: "Nothing can answer at the moment.",
    504: "The upstream, or the queue before it, took too long.",
}
_OF_EVERY_ROUTE = {403, 500}
_OF_BODIES = {400, 408, 413, 415}
# Where a key is asked for, and where an upstream is asked.
KEY = (401, 503)
UPSTREAM = (400, 401, 404, 409, 413, 422, 429, 502, 503, 504)


class Doc(NamedTuple):
    """What the documentation says of one route.

    `completes`: a model answers, streamed if that is asked. `statuses` are those of what is no error, `errors` those
    of errors, of type `error`, as far as they do not follow from the rest.
    """

    summary: str
    request: type | None = None
    response: str = "application/json"
    parameters: tuple[tuple[str, str, str], ...] = ()  # name, JSON type, description
    completes: bool = False
    body: str = "application/json"
    error: type = ErrorEnvelope
    statuses: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ()
    query: tuple[tuple[str, str, str], ...] = ()  # the same of what may follow a `?`
    body_required: bool = True


# Of the route table: method, path, what answers, and what is said of it, or what says so when first asked.
Row = tuple[str, str, ASGIApp, Doc | Callable[[], Doc]]


def describe(table: list[tuple[str, str, Doc | Callable[[], Doc]]]) -> Callable[[], dict[str, Any]]:
    """The OpenAPI 3.1 description of (method, path, doc) rows, put together when first asked for."""
    return cache(lambda: _describe([(method, path, doc() if callable(doc) else doc) for method, path, doc in table]))


def _describe(table: list[tuple[str, str, Doc]]) -> dict[str, Any]:
    from lexora.api.described import ANSWERS  # nobody else needs it

    types = {doc.error for _, _, doc in table} | {doc.request for _, _, doc in table if doc.request is not None}
    schemas: dict[str, Any] = {}
    for type_ in types:
        schemas |= _components(type_)[1]
    # Fields that the gateway does not read are forwarded as they are.
    for _, _, doc in table:
        if doc.completes and doc.request is not None:
            schemas[doc.request.__name__]["additionalProperties"] = True
    paths: dict[str, dict[str, Any]] = {}
    for method, path, doc in table:
        answer: dict[str, Any] = {}
        if doc.response == "application/json":
            answer, components = _components(ANSWERS[method, path])
            schemas |= components
        paths.setdefault(path, {})[method.lower()] = _operation(doc, answer)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lexora", "version": __version__, "description": "An OpenAI-compatible LLM gateway."},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _components(type_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A type's schema, and those of what it is made of by their names."""
    template = "#/components/schemas/"
    if not hasattr(type_, "model_json_schema"):
        (schema,), components = msgspec.json.schema_components((type_,), ref_template=template + "{name}")
        return schema, components
    schema = type_.model_json_schema(ref_template=template + "{model}")
    return _reference(type_), {**schema.pop("$defs", {}), type_.__name__: schema}


def _operation(doc: Doc, answer: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": doc.summary, "responses": _responses(doc, answer)}
    parameters = [("path", *path) for path in doc.parameters] + [("query", *query) for query in doc.query]
    if parameters:
        operation["parameters"] = [
            {"name": name, "in": place, "required": place == "path", "schema": {"type": kind}, "description": text}
            for place, name, kind, text in parameters
        ]
    if doc.request is not None:
        content = {doc.body: {"schema": _reference(doc.request)}}
        operation["requestBody"] = {"required": doc.body_required, "content": content}
    return operation


def _responses(doc: Doc, answer: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {doc.response: {"schema": answer} if answer else {}}
    if doc.completes:
        content["text/event-stream"] = {}
    answers = {
        str(status): {"description": "The answer.", "content": content}
        if status != 304
        else {"description": "The answer is the one that the client has."}
        for status in doc.statuses
    }
    statuses = {*_OF_EVERY_ROUTE, *doc.errors}
    if doc.request is not None:
        statuses |= _OF_BODIES
    if doc.parameters:
        statuses.add(404)
    if doc.query:
        statuses.add(400)
    if doc.completes:
        statuses |= set(UPSTREAM)
    error = {"application/json": {"schema": _reference(doc.error)}}
    errors = {str(status): {"description": _ERRORS[status], "content": error} for status in sorted(statuses)}
    return errors | answers


def _reference(of: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{of.__name__}"}


class Static:
    """Serves one body that never changes, made when first asked for."""

    def __init__(self, content_type: bytes, make: Callable[[], bytes], headers: Headers = ()) -> None:
        self._headers = [(b"content-type", content_type), (b"cache-control", b"no-cache"), *headers]
        self._body = cache(make)

    async def __call__(self, scope: Scope, receive: Receive, send_: Send) -> None:
        await send(scope, send_, 200, self._headers, self._body())


def openapi_endpoint(description: Callable[[], dict[str, Any]]) -> Static:
    return Static(JSON_TYPE[1], lambda: msgspec.json.encode(description()))


def docs_endpoint(description: Callable[[], dict[str, Any]]) -> Static:
    """A page for people: plain HTML, so that it also works on a machine without internet."""
    return Static(b"text/html; charset=utf-8", lambda: _page(description()).encode())


def _page(description: dict[str, Any]) -> str:
    sections = []
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            rows = "".join(
                f"<tr><td><code>{p['name']}</code><td>{p['schema']['type']}<td>{html.escape(p['description'])}"
                for p in operation.get("parameters", ())
            )
            for body in operation.get("requestBody", {}).get("content", {}).values():
                rows += _fields(description["components"]["schemas"], body["schema"]["$ref"].rpartition("/")[2])
            table = f"<table>{rows}</table>" if rows else ""
            head = f"<h2><b>{method.upper()}</b> {html.escape(path)}</h2>"
            sections.append(f"{head}<p>{html.escape(operation['summary'])}</p>{table}")
    return _PAGE.replace("{sections}", "\n".join(sections)).replace("{version}", description["info"]["version"])


def _fields(schemas: dict[str, Any], name: str) -> str:
    schema = schemas[name]
    required = schema.get("required", [])
    return "".join(
        f"<tr><td><code>{field}</code><td>{html.escape(_kind(spec))}<td>{'required' if field in required else ''}"
        for field, spec in schema["properties"].items()
    )


def _kind(spec: dict[str, Any]) -> str:
    if "anyOf" in spec:
        return " | ".join(_kind(option) for option in spec["anyOf"])
    if "enum" in spec:
        return " | ".join(map(str, spec["enum"]))
    if "$ref" in spec:
        return str(spec["$ref"].rpartition("/")[2])
    return str(spec.get("type", "any"))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lexora API</title><link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #1c2430 }
h2 { font: 600 1rem/1.5 ui-monospace, monospace; margin: 2.5rem 0 .25rem; border-top: 1px solid #dde3ea;
     padding-top: 1rem }
h2 b { color: #0b6bcb; margin-right: .5rem }
table { border-collapse: collapse; width: 100% } td { padding: .25rem .75rem .25rem 0; vertical-align: top }
code { font-family: ui-monospace, monospace }
</style>
<h1>Lexora {version}</h1>
<p>One OpenAI-compatible API. Use any OpenAI client with <code>base_url</code> set to this address plus
<code>/v1</code>. The same as data: <a href="openapi.json">/openapi.json</a>.
Fields of a request that are not listed here are forwarded to the model as they are.</p>
{sections}
"""
