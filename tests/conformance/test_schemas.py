"""Every answer, event and error against what OpenAI and Anthropic publish, from a gateway over real sockets.

What an OpenAI-like upstream says is relayed as it is, and is as good as the upstream: it is not looked at here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.conformance.upstreams import called, said
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.in_process import KNOWN_PROMPT
from tests.support.published import Publisher, check
from tests.support.recorded import RECORDED, RecordedUpstream, Script, error_event, json_response, stream, token

PROVIDERS = ["anthropic", "gemini", "openai"]
RECORDINGS = [
    path
    for provider in PROVIDERS
    for path in sorted((RECORDED / provider).iterdir())
    if not path.name.startswith("error-")
]
# Not among Anthropic's events for a message, but its documentation has them.
BESIDE_MESSAGES = {"ping", "error"}


class Api(NamedTuple):
    """One of the APIs that the gateway speaks: where it is, and what its schemas are called."""

    path: str
    publisher: Publisher
    whole: str
    event: str

    def ask(self, gateway: RunningGateway, model: str, prompt: str = "Hello", **fields: Any) -> httpx2.Response:
        turn = (
            {"input": prompt} if self.path == "/v1/responses" else {"messages": [{"role": "user", "content": prompt}]}
        )
        required = {"max_tokens": 99} if self.publisher == "anthropic" else {}
        return httpx2.post(gateway.url + self.path, json={"model": model, **turn, **required, **fields}, timeout=30)

    def check(self, response: httpx2.Response) -> list[Any]:
        """Checks a completion, plain or streamed. Gives its objects."""
        assert response.status_code == 200, response.text
        if response.headers["content-type"] == "application/json":
            check(self.publisher, self.whole, response.json())
            return [response.json()]
        found = [json.loads(data) for data in datas(response) if data != "[DONE]"]
        assert found
        for event in found:
            if event.get("type") not in BESIDE_MESSAGES:
                check(self.publisher, self.event, event)
        return found


CHAT = Api("/v1/chat/completions", "openai", "CreateChatCompletionResponse", "CreateChatCompletionStreamResponse")
MESSAGES = Api("/v1/messages", "anthropic", "Message", "MessageStreamEvent")
RESPONSES = Api("/v1/responses", "openai", "Response", "ResponseStreamEvent")
EVERY_API = pytest.mark.parametrize("api", [CHAT, MESSAGES, RESPONSES], ids=lambda api: api.path)
IN_BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


def datas(response: httpx2.Response) -> Iterator[str]:
    for line in response.text.splitlines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


@pytest.fixture(scope="module")
def gateway(_upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that stores responses, with a model for each dialect, named for it."""
    own = {"base_url": _upstream.base_url, "model": "up", "credential": None}
    config = models_config(**{provider: {**own, "provider": provider} for provider in PROVIDERS})
    config |= {"responses": {"store": True}, "server": {"max_body_mb": 0.01}, "circuit": {"failures": 1_000_000}}
    with running_gateway(tmp_path_factory.mktemp("schemas"), config) as running:
        yield running


@pytest.mark.parametrize(
    ("api", "recording"),
    [
        pytest.param(api, path, id=f"{api.path}-{path.parent.name}/{path.name}")
        for api in (CHAT, MESSAGES, RESPONSES)
        for path in RECORDINGS
        if (api, path.parent.name) != (CHAT, "openai")
    ],
)
def test_every_recording(gateway: RunningGateway, upstream: RecordedUpstream, recording: Path, api: Api) -> None:
    provider, streamed = recording.parent.name, recording.suffix == ".sse"
    data = recording.read_bytes()
    upstream.play(stream(data) if streamed else [json_response(data)])
    api.check(api.ask(gateway, provider, stream=streamed))
    if api is CHAT and streamed:
        *_, last = api.check(api.ask(gateway, provider, stream=True, stream_options={"include_usage": True}))
        assert last["choices"] == []


@EVERY_API
@IN_BOTH_WAYS
@pytest.mark.parametrize("provider", PROVIDERS)
def test_text_and_calls(
    gateway: RunningGateway, upstream: RecordedUpstream, provider: str, api: Api, streamed: bool
) -> None:
    for script in (said(provider, "Hello to you.", streamed=streamed), called(provider, streamed=streamed)):
        upstream.play(script)
        api.check(api.ask(gateway, provider, stream=streamed))


@EVERY_API
@IN_BOTH_WAYS
def test_prepared_answers(gateway: RunningGateway, api: Api, streamed: bool) -> None:
    response = api.ask(gateway, "openai", KNOWN_PROMPT, stream=streamed)
    assert response.headers["x-lexora-origin"] == "fixed"
    api.check(response)
    if api is CHAT and streamed:
        api.check(api.ask(gateway, "openai", KNOWN_PROMPT, stream=True, stream_options={"include_usage": True}))


def test_a_stored_response(gateway: RunningGateway, upstream: RecordedUpstream) -> None:
    upstream.play(said("openai", "Hello.", streamed=False))
    (created,) = RESPONSES.check(RESPONSES.ask(gateway, "openai"))
    (stored,) = RESPONSES.check(httpx2.get(f"{gateway.url}/v1/responses/{created['id']}"))
    assert stored == created


def test_embeddings_of_another_dialect(gateway: RunningGateway, upstream: RecordedUpstream) -> None:
    upstream.play([json_response({"embeddings": [{"values": [0.5, -1]}], "usageMetadata": {"promptTokenCount": 2}})])
    asked = {"model": "gemini", "input": "Hello", "encoding_format": "float"}
    response = httpx2.post(f"{gateway.url}/v1/embeddings", json=asked, timeout=30)
    assert response.status_code == 200, response.text
    check("openai", "CreateEmbeddingResponse", response.json())


@pytest.mark.parametrize("path", ["completions", "embeddings"])
def test_errors_of_other_endpoints(gateway: RunningGateway, path: str) -> None:
    for model, status in (("nope", 404), (5, 400)):
        asked = {"model": model, "prompt": "Hello", "input": "Hello"}
        response = httpx2.post(f"{gateway.url}/v1/{path}", json=asked, timeout=30)
        assert response.status_code == status
        check("openai", "ErrorResponse", response.json())


def test_counted_tokens(gateway: RunningGateway) -> None:
    asked = {"model": "gemini", "messages": [{"role": "user", "content": "Hello"}]}
    response = httpx2.post(f"{gateway.url}/v1/messages/count_tokens", json=asked, timeout=30)
    check("anthropic", "CountMessageTokensResponse", response.json())


def test_models(gateway: RunningGateway) -> None:
    listed = httpx2.get(f"{gateway.url}/v1/models").json()
    check("openai", "ListModelsResponse", listed)
    assert [model["id"] for model in listed["data"]] == PROVIDERS
    check("openai", "Model", httpx2.get(f"{gateway.url}/v1/models/openai").json())


OVERLOADED: Script = [json_response({"error": {"message": "Busy."}}, "503 Service Unavailable")]


@EVERY_API
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "nope"}, 404),
        ({"model": 5}, 400),
        ({"messages": 5, "input": 5}, 400),
        ({"stream": "yes"}, 400),
        ({"metadata": {"a": "a" * 20_000}}, 413),
        ({}, 503),
        ({"stream": True}, 503),
    ],
)
def test_errors(
    gateway: RunningGateway, upstream: RecordedUpstream, api: Api, fields: dict[str, Any], status: int
) -> None:
    upstream.play(OVERLOADED)
    response = api.ask(gateway, **{"model": "openai", **fields})
    assert response.status_code == status
    # Of 413 Anthropic's document knows nothing: its servers are never asked so much.
    if (api, status) != (MESSAGES, 413):
        check(api.publisher, "ErrorResponse", response.json())


@EVERY_API
def test_a_body_that_is_not_json(gateway: RunningGateway, api: Api) -> None:
    for content_type, status in (("application/json", 400), ("text/plain", 415)):
        response = httpx2.post(gateway.url + api.path, content=b"{", headers={"content-type": content_type})
        assert response.status_code == status
        check(api.publisher, "ErrorResponse", response.json())


@EVERY_API
def test_an_error_inside_a_stream(gateway: RunningGateway, upstream: RecordedUpstream, api: Api) -> None:
    upstream.play(stream(token("Hello"), error_event("The GPU is gone.")))
    response = api.ask(gateway, "openai", stream=True)
    *_, last = [json.loads(data) for data in datas(response) if data != "[DONE]"]
    assert "The GPU is gone." in json.dumps(last)
    if api is RESPONSES:
        assert last["type"] == "response.failed"
        check("openai", "ResponseStreamEvent", last)
    else:
        check(api.publisher, "ErrorResponse", last)


@pytest.mark.parametrize("path", ["/nothing", "/v1/models/nope", "/v1/chat/completions", "/v1/responses/resp_1"])
def test_other_errors(gateway: RunningGateway, path: str) -> None:
    response = httpx2.get(gateway.url + path)
    assert response.status_code in (404, 405)
    check("openai", "ErrorResponse", response.json())
