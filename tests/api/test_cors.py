"""CORS: which web sites' scripts may read our responses."""

import httpx2
import pytest

from tests.api.conftest import APP, DEV
from tests.support.gateway import running_gateway

CHAT = "/v1/chat/completions"
ANSWER = "/responses/q1_capital/0.json"
EXPOSED = {
    *("x-request-id", "x-lexora-origin", "x-lexora-deployment", "x-lexora-model", "x-lexora-cost-usd"),
    *("x-lexora-saved-usd", "x-lexora-cache", "age"),
    *("x-lexora-queue-position", "x-lexora-queue-wait-ms", "x-lexora-tokens", "request-id", "retry-after"),
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
}
STRANGERS = [
    "https://evil.example.com",
    "https://app.example.com.evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://APP.example.com",
    "https://app.example.com/",
    "null",
    "*",
]


def cors_of(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def preflight(web: httpx2.Client, path: str, origin: str, method: str = "POST") -> httpx2.Response:
    asked = {"access-control-request-method": method, "access-control-request-headers": "authorization,content-type"}
    return web.options(path, headers={"origin": origin, **asked})


@pytest.mark.parametrize("origin", [APP, DEV])
@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing", CHAT])
def test_a_site_that_is_configured_may_read_every_response(web: httpx2.Client, path: str, origin: str) -> None:
    response = web.get(path, headers={"origin": origin})
    cors = cors_of(response)
    assert cors["access-control-allow-origin"] == origin
    assert set(cors["access-control-expose-headers"].split(", ")) == EXPOSED
    assert response.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in cors


@pytest.mark.parametrize("origin", STRANGERS)
def test_another_site_may_not(web: httpx2.Client, origin: str) -> None:
    for response in (web.get("/health", headers={"origin": origin}), preflight(web, CHAT, origin)):
        assert response.status_code == 200
        assert cors_of(response) == {}
        assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize(("path", "methods"), [(CHAT, {"POST", "OPTIONS"}), ("/v1/models", {"GET", "HEAD", "OPTIONS"})])
def test_a_preflight_says_what_may_be_sent(web: httpx2.Client, path: str, methods: set[str]) -> None:
    response = preflight(web, path, APP)
    cors = cors_of(response)
    assert response.status_code == 200
    assert cors["access-control-allow-origin"] == APP
    assert set(cors["access-control-allow-methods"].split(", ")) == methods
    assert cors["access-control-allow-headers"] == "authorization,content-type"
    assert int(cors["access-control-max-age"]) > 0


def test_a_script_may_read_an_answer_and_where_it_came_from(web: httpx2.Client) -> None:
    body = {"messages": [{"role": "user", "content": "日本の首都は？"}]}
    response = web.post(CHAT, json=body, headers={"origin": APP})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == APP
    assert response.headers["x-lexora-origin"] == "fixed"
    assert response.json()["choices"][0]["message"]["content"]


def test_a_script_may_read_a_stream(web: httpx2.Client) -> None:
    body = {"messages": [{"role": "user", "content": "日本の首都は？"}], "stream": True}
    response = web.post(CHAT, json=body, headers={"origin": APP})
    assert response.headers["access-control-allow-origin"] == APP
    assert response.text.endswith("data: [DONE]\n\n")


def test_a_script_may_read_an_error(web: httpx2.Client) -> None:
    response = web.post(CHAT, content=b"{", headers={"origin": APP, "content-type": "application/json"})
    assert response.status_code == 400
    assert response.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize("origin", [None, APP, *STRANGERS])
def test_prepared_answers_are_public_and_the_same_for_all(web: httpx2.Client, origin: str | None) -> None:
    """They are cached: a response without these headers would be given to a script later on."""
    response = web.get(ANSWER, headers={"origin": origin} if origin else {})
    assert cors_of(response)["access-control-allow-origin"] == "*"
    assert "vary" not in response.headers


def test_who_is_no_web_page_gets_none_of_this(web: httpx2.Client) -> None:
    assert cors_of(web.get("/v1/models")) == {}


@pytest.mark.parametrize("allowed", [["*"], []])
def test_every_site_or_none(tmp_path_factory: pytest.TempPathFactory, allowed: list[str]) -> None:
    config = {"cors": {"allow_origins": allowed}}
    folder = tmp_path_factory.mktemp("cors")
    with running_gateway(folder, config) as gateway, httpx2.Client(base_url=gateway.url) as web:
        response, before = web.get("/health", headers={"origin": APP}), preflight(web, CHAT, APP)
    expected = "*" if allowed else None
    assert response.headers.get("access-control-allow-origin") == expected
    assert before.headers.get("access-control-allow-origin") == expected
    assert ("access-control-allow-methods" in before.headers) == bool(allowed)
