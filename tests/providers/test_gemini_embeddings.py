"""Embeddings of Gemini's through a real gateway, and what cannot be embedded."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.support.client import UPSTREAM_KEY, sdk
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.published import check
from tests.support.recorded import RecordedUpstream, json_response, recorded_upstream

ANSWER = {"embeddings": [{"values": [0.5, -0.25]}, {"values": [1, 0]}], "usageMetadata": {"promptTokenCount": 7}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordedUpstream]:
    with recorded_upstream([b""]) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    deployment = {
        "provider": "gemini",
        "base_url": upstream.base_url,
        "model": "gemini-embedding-001",
        "credential": "env:UPSTREAM_KEY",
        "price": {"input": 0.15},
    }
    config = models_config(m=deployment)
    with running_gateway(tmp_path_factory.mktemp("gemini"), config, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as running:
        yield running


def ask(gateway: RunningGateway, **fields: Any) -> httpx2.Response:
    return httpx2.post(f"{gateway.url}/v1/embeddings", json={"model": "m", **fields}, timeout=30)


def test_the_sdk_gets_vectors_in_either_form(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(ANSWER)])
    with sdk(gateway) as client:
        packed = client.embeddings.with_raw_response.create(model="m", input=["a", "b"], dimensions=2, user="u")
        plain = client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    assert isinstance(json.loads(packed.content)["data"][0]["embedding"], str)
    check("openai", "CreateEmbeddingResponse", ask(gateway, input=["a", "b"]).json())
    for answer in (packed.parse(), plain):
        assert [each.embedding for each in answer.data] == [[0.5, -0.25], [1, 0]]
        assert [each.index for each in answer.data] == [0, 1]
        assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("m", 7, 7)
    sent = upstream.received[0]
    assert sent.path == "/v1/models/gemini-embedding-001:batchEmbedContents"
    assert sent.headers["x-goog-api-key"] == UPSTREAM_KEY
    more = {"model": "models/gemini-embedding-001", "outputDimensionality": 2}
    assert sent.json() == {"requests": [{**more, "content": {"parts": [{"text": text}]}} for text in ("a", "b")]}
    record = gateway.record_of(packed.headers["x-request-id"])
    assert (record["tokens_in"], record["tokens_out"], record["usage_estimated"]) == (7, 0, 0)
    assert record["upstream_model"] == "gemini-embedding-001"
    assert record["cost_usd"] == pytest.approx(7 * 0.15 / 1e6)


def test_where_google_does_not_count_the_tokens_are_an_estimate(
    upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    upstream.play([json_response({"embeddings": ANSWER["embeddings"]})])
    response = ask(gateway, input="a text of 24 characters.", taskType="RETRIEVAL_QUERY")
    assert response.json()["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert upstream.received[0].json()["requests"][0]["taskType"] == "RETRIEVAL_QUERY"
    record = gateway.record_of(response.headers["x-request-id"])
    assert (record["tokens_in"], record["usage_estimated"]) == (6, 1)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2]}, "input[0]"),
        ({"input": ["a", [1, 2]]}, "input[1]"),
        ({"input": [{"image": "a"}]}, "input[0]"),
        ({"input": "a", "dimensions": "many"}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_cannot_be_done_is_refused(
    fields: dict[str, Any], param: str, upstream: RecordedUpstream, gateway: RunningGateway
) -> None:
    upstream.play([b""])
    response = ask(gateway, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not upstream.received


@pytest.mark.parametrize("answer", [{}, [], {"embeddings": [{}]}, {"embeddings": [{"values": [1e300]}]}])
def test_an_answer_that_is_none(answer: Any, upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(answer)])
    response = ask(gateway, input="a", encoding_format="base64")
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_broken")


def test_googles_errors_are_told(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    said = {"error": {"code": 400, "message": "at most 100 requests", "status": "INVALID_ARGUMENT"}}
    upstream.play([json_response(said, "400 Bad Request")])
    with sdk(gateway) as client, pytest.raises(openai.BadRequestError, match="at most 100 requests"):
        client.embeddings.create(model="m", input="a")
