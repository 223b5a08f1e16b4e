"""SDKs that their users have, each for real: OpenAI's for Node, Vercel's AI SDK, LangChain.

Each is driven by a script that asks one thing after the other and says what came of it, in a form that all share.
"""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key
from tests.conformance.upstreams import called, said
from tests.support.client import UPSTREAM_KEY
from tests.support.gateway import ROOT, RunningGateway, clean_environment, models_config, running_gateway
from tests.support.recorded import DONE, RecordedUpstream, error_event, json_response, stream, token

NODE = Path(sys.prefix) / "bin" / "node"
SDKS = {
    "openai": (NODE, ROOT / "tests/node/openai.mjs"),
    "ai": (NODE, ROOT / "tests/node/ai.mjs"),
    "langchain": (sys.executable, ROOT / "tests/conformance/ask_langchain.py"),
}
PROVIDERS = ["openai", "anthropic", "gemini"]
TEXT = "Hello to you."
SKY = {"sky": "clear"}

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def gateway(_upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that wants a key and stores responses, with a model for each dialect, named for it."""
    own = {"base_url": _upstream.base_url, "model": "up", "credential": "env:UPSTREAM_KEY"}
    config = models_config(**{provider: {**own, "provider": provider} for provider in PROVIDERS})
    config |= {"auth": {"required": True}, "responses": {"store": True}}
    with running_gateway(tmp_path_factory.mktemp("sdks"), config, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as running:
        yield running


def key_of(gateway: RunningGateway, user: str, **facts: Any) -> str:
    with closing(SqliteKeys(gateway.folder / "data" / "lexora.db")) as keys:
        _, secret = create(keys, new_key({"user_id": user, **facts}), 1.0, secrets.token_hex(6), secrets.token_hex(22))
    return secret


@pytest.fixture(scope="module")
def key(gateway: RunningGateway) -> str:
    return key_of(gateway, "ann")


@pytest.fixture(scope="module", params=["chat", "responses"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ask(sdk: str, api: str, gateway: RunningGateway, key: str) -> Iterator[Ask]:
    """Has an SDK ask `what` of a model, through one of OpenAI's two APIs."""
    assert (ROOT / "tests/node/node_modules").exists(), "make .venv/node-sdks"
    command = [*map(str, SDKS[sdk]), f"{gateway.url}/v1", api]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def asked(what: str, model: str = "openai", key: str = key) -> dict[str, Any]:
            print(json.dumps({"key": key, "model": model, "what": what}), file=questions, flush=True)
            found: dict[str, Any] = json.loads(answers.readline())
            return found

        yield asked


@pytest.mark.parametrize("provider", PROVIDERS)
class TestEveryDialect:
    def test_plain(self, ask: Ask, upstream: RecordedUpstream, provider: str) -> None:
        upstream.play(said(provider, TEXT, streamed=False))
        assert ask("plain", provider) == {"text": TEXT, "usage": [7, 3]}

    def test_streamed(self, ask: Ask, upstream: RecordedUpstream, provider: str) -> None:
        upstream.play(said(provider, TEXT, streamed=True))
        assert ask("streamed", provider) == {"text": TEXT, "usage": [7, 3], "pieces": 3}

    @pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
    def test_tools(self, ask: Ask, upstream: RecordedUpstream, provider: str, streamed: bool) -> None:
        """The model calls a tool, the SDK runs it and sends the result, the model answers."""
        upstream.play(called(provider, streamed=streamed), said(provider, TEXT, streamed=streamed))
        assert ask("streamed_tools" if streamed else "tools", provider) == {"text": TEXT, "cities": ["Oslo"]}
        asked, again = upstream.received
        assert b"get_weather" in asked.body
        assert "7 °C" in json.dumps(again.json(), ensure_ascii=False)

    def test_structured(self, ask: Ask, upstream: RecordedUpstream, provider: str) -> None:
        upstream.play(said(provider, json.dumps(SKY), streamed=False))
        assert ask("structured", provider) == {"value": SKY}
        (received,) = upstream.received
        assert b'"grey"' in received.body


KINDS = {
    "openai": {401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError", 503: "InternalServerError"},
    "ai": dict.fromkeys((401, 404, 429, 503), "AI_APICallError"),
}
KINDS["langchain"] = {
    401: "OpenAIAuthenticationError",
    404: "OpenAIModelNotFoundError",
    429: "OpenAIRateLimitError",
    503: "OpenAIAPIError",
}
IN_BOTH_WAYS = pytest.mark.parametrize("what", ["plain", "streamed"])


def refused(found: dict[str, Any], sdk: str) -> tuple[int, str]:
    """Status and code of an error that came as the SDK's own for that status."""
    assert found["error"] == KINDS[sdk][found["status"]]
    return found["status"], found["code"]


@IN_BOTH_WAYS
def test_a_wrong_key(ask: Ask, sdk: str, what: str) -> None:
    found = ask(what, key="sk-wrong")
    assert refused(found, sdk) == (401, "invalid_api_key")


@IN_BOTH_WAYS
def test_a_model_that_there_is_not(ask: Ask, sdk: str, what: str) -> None:
    found = ask(what, model="nope")
    assert refused(found, sdk) == (404, "model_not_found")
    assert "'nope'" in found["message"]


@IN_BOTH_WAYS
def test_more_requests_than_allowed(
    ask: Ask, sdk: str, what: str, gateway: RunningGateway, upstream: RecordedUpstream
) -> None:
    upstream.play(said("openai", TEXT, streamed=False))
    key = key_of(gateway, f"{sdk} {what}", requests_per_minute=1)
    assert ask("plain", key=key)["text"] == TEXT
    assert refused(ask(what, key=key), sdk) == (429, "rate_limit_exceeded")


@IN_BOTH_WAYS
def test_an_upstream_that_is_overloaded(ask: Ask, sdk: str, what: str, upstream: RecordedUpstream) -> None:
    overloaded = {"error": {"message": "Overloaded.", "type": "overloaded_error", "param": None, "code": "busy"}}
    upstream.play([json_response(overloaded, "503 Service Unavailable")])
    found = ask(what)
    assert refused(found, sdk) == (503, "busy")
    assert "Overloaded." in found["message"]


def test_a_stream_that_breaks_off_is_an_error(ask: Ask, upstream: RecordedUpstream) -> None:
    upstream.play(stream(token("Hello"), error_event("The GPU is gone.", code="gone"), DONE))
    assert "The GPU is gone." in json.dumps(ask("streamed"))
