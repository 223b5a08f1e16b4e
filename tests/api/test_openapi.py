"""/openapi.json and /docs: what they say is what the gateway does."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import httpx2
import jsonschema
import pytest

from lexora import __version__

JSON = {"content-type": "application/json"}
ROUTES = {
    ("/v1/chat/completions", "post"),
    ("/chat/completions", "post"),
    ("/v1/messages", "post"),
    ("/v1/messages/count_tokens", "post"),
    ("/v1/responses", "post"),
    ("/v1/responses/{id}", "get"),
    ("/v1/responses/{id}", "delete"),
    ("/v1/responses/{id}/input_items", "get"),
    *((f"/v1/{name}", "post") for name in ("completions", "embeddings", "rerank", "images/generations")),
    ("/v1/audio/transcriptions", "post"),
    ("/api/v1/llm/query", "post"),
    ("/api/v1/llm/models", "get"),
    ("/v1/models", "get"),
    ("/v1/models/{model}", "get"),
    ("/responses/catalogue.json", "get"),
    ("/responses/{id}/{k}.json", "get"),
    ("/health", "get"),
    ("/stats", "get"),
    ("/metrics", "get"),
    ("/admin/keys", "get"),
    ("/admin/keys", "post"),
    ("/admin/keys/{id}", "get"),
    ("/admin/keys/{id}", "delete"),
    ("/admin/keys/{id}/rotate", "post"),
    ("/admin/models", "get"),
    *((f"/admin/models/{{model}}/{action}", "post") for action in ("load", "unload", "sleep", "wake")),
    ("/admin/reload", "post"),
}
HELLO = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def api(web: httpx2.Client) -> dict[str, Any]:
    response = web.get("/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    description: dict[str, Any] = response.json()
    return description


def every(value: Any, key: str) -> list[Any]:
    """Everything that stands under a key, at any depth."""
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in ([inner] if name == key else every(inner, key))]
    if isinstance(value, list):
        return [found for inner in value for found in every(inner, key)]
    return []


def schema_of(api: dict[str, Any], name: str) -> dict[str, Any]:
    """A component as a schema of its own."""
    return {"$ref": f"#/components/schemas/{name}", "components": api["components"]}


def test_it_is_openapi_3_1(api: dict[str, Any]) -> None:
    assert set(api) == {"openapi", "info", "paths", "components"}
    assert re.fullmatch(r"3\.1\.\d+", api["openapi"])
    assert (api["info"]["title"], api["info"]["version"]) == ("Lexora", __version__)
    for name, schema in api["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_is_described_and_nothing_else(api: dict[str, Any], web: httpx2.Client) -> None:
    described = {(path, method) for path, operations in api["paths"].items() for method in operations}
    assert described == ROUTES
    for path, method in described:
        real = path.replace("{model}", "chat").replace("{id}", "q1").replace("{k}", "0")
        # Without a body, a key, or anything stored: but they are there.
        response = web.request(method, real)
        assert response.status_code in (200, 401, 415) or "stores no responses" in response.text, real


def test_every_operation_is_whole(api: dict[str, Any]) -> None:
    for path, operations in api["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["responses"].keys() & {"200", "201"}
            assert operation["responses"].keys() >= {"403", "500"}
            for status, response in operation["responses"].items():
                assert response["description"]
                assert ("content" in response) == (status != "304")
            parameters = operation.get("parameters", [])
            named = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            for parameter in parameters:
                assert parameter["required"] == (parameter["in"] == "path")
                assert parameter["schema"]["type"] in ("string", "integer")


def names_in(api: dict[str, Any], value: Any) -> set[str]:
    """The components that a part of the description is made of."""
    found: set[str] = set()
    new = {reference.rpartition("/")[2] for reference in every(value, "$ref")}
    while new:
        found |= new
        schemas = [api["components"]["schemas"][name] for name in new]
        new = {reference.rpartition("/")[2] for reference in every(schemas, "$ref")} - found
    return found


def test_every_answer_has_a_schema_and_none_that_is_a_requests(api: dict[str, Any]) -> None:
    answers, requests = set(), set()
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            good = [operation["responses"][status] for status in operation["responses"].keys() & {"200", "201"}]
            json_ = [response["content"].get("application/json") for response in good]
            assert path == "/metrics" or all(found and found["schema"] for found in json_), (method, path)
            answers |= names_in(api, good)
            requests |= names_in(api, operation.get("requestBody", {}))
    assert not answers & requests


def test_answers_fit_their_schemas(api: dict[str, Any], web: httpx2.Client) -> None:
    for path, name in (("/health", "Health"), ("/v1/models", "ModelList"), ("/stats", "Stats")):
        jsonschema.validate(web.get(path).json(), schema_of(api, name), jsonschema.Draft202012Validator)


def test_every_reference_leads_somewhere(api: dict[str, Any]) -> None:
    references = every(api, "$ref")
    assert references
    for reference in references:
        prefix, _, name = reference.rpartition("/")
        assert prefix == "#/components/schemas"
        assert name in api["components"]["schemas"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": None, "stream": True, "stream_options": {"include_usage": True}, "n": 3},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}
            ]
        },
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        {"tools": [{"type": "function"}], "temperature": 0.5, "anything": {"else": 1}},
        {"x_priority": "high", "x_user_id": "a", "x_timeout": 30},
        {"messages": []},
        {"messages": "Hello"},
        {"messages": [{"content": "a"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"model": 5},
        {"stream": "yes"},
        {"n": 0},
        {"n": 129},
        {"x_priority": "urgent"},
        {"x_timeout": 0},
        {"tools": {}},
        {"response_format": {}},
    ],
)
def test_the_schema_of_a_request_takes_what_the_gateway_takes(
    api: dict[str, Any], web: httpx2.Client, fields: dict[str, Any]
) -> None:
    body = {"messages": [HELLO], **fields}
    validator = jsonschema.Draft202012Validator(schema_of(api, "ChatFields"))
    status = web.post("/v1/chat/completions", json=body).status_code
    assert validator.is_valid(body) == (status != 400), status


def test_the_schema_of_an_error_fits_every_error(api: dict[str, Any], web: httpx2.Client) -> None:
    schema = schema_of(api, "ErrorEnvelope")
    for response in (
        web.get("/nothing"),
        web.delete("/health"),
        web.post("/v1/chat/completions", content=b"{", headers=JSON),
        web.post("/v1/chat/completions", content=b"{}", headers=JSON),
        web.post("/v1/chat/completions", json={"model": "nope", "messages": [HELLO]}),
        web.post("/v1/chat/completions", json={"model": "chat", "messages": [HELLO]}),
    ):
        assert response.status_code >= 400
        jsonschema.validate(response.json(), schema, jsonschema.Draft202012Validator)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src") and value]


def test_the_page_for_people_shows_every_route_and_field_without_the_internet(
    api: dict[str, Any], web: httpx2.Client
) -> None:
    response = web.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = _Page()
    page.feed(response.text)
    for path, method in ROUTES:
        assert re.sub(r"\s+", " ", f"{method.upper()} {path}") in re.sub(r"\s+", " ", page.text)
    for field in api["components"]["schemas"]["ChatFields"]["properties"]:
        assert field in page.text
    assert page.links == ["data:,", "openapi.json"]  # no icon, and nothing from elsewhere
    assert not re.search(r"https?://", response.text)


def test_the_description_is_the_same_as_data_and_text(api: dict[str, Any], web: httpx2.Client) -> None:
    assert json.loads(web.get("/openapi.json").content) == api
