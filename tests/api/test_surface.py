"""Completions, embeddings, rerank, transcriptions and images through a real gateway."""

import base64
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from lexora.core.model_map import Deployment
from tests.support.client import RawChat, events, sdk
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.recorded import (
    DONE,
    STREAM_HEAD,
    Close,
    RecordedUpstream,
    Script,
    Sleep,
    json_response,
    piece,
    recorded,
    recorded_upstream,
    stream,
)

PATHS = ["/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/images/generations"]
GIVEN: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a"},
    "/v1/embeddings": {"input": "a"},
    "/v1/rerank": {"query": "a", "documents": ["b", "c"]},
    "/v1/images/generations": {"prompt": "a"},
}
PNG = base64.b64encode(b"\x89PNG").decode()
USAGE = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "recorded",
    "choices": [{"index": 0, "text": "b", "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}
IMAGES = {
    "created": 1,
    "data": [{"b64_json": PNG}],
    "usage": {"input_tokens": 5, "output_tokens": 100, "total_tokens": 105, "input_tokens_details": {"text_tokens": 5}},
}
ANSWERS: dict[str, Any] = {
    "/v1/completions": COMPLETION,
    "/v1/embeddings": {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "model": "recorded"},
    "/v1/rerank": {"results": [{"index": 1, "relevance_score": 0.5}], "usage": {"total_tokens": 9}},
    "/v1/images/generations": IMAGES,
}


@pytest.fixture(scope="module")
def real(
    llamacpp: Deployment, embedder: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    """The SDK in front of a gateway with two llama.cpp: `tiny-chat` and `tiny-embed`."""
    config = models_config(
        **{
            name: {"provider": "llamacpp", "base_url": each.base_url, "model": each.model}
            for name, each in (("tiny-chat", llamacpp), ("tiny-embed", embedder))
        }
    )
    with running_gateway(tmp_path_factory.mktemp("real"), config) as gateway, sdk(gateway) as client:
        yield client


def post(
    gateway: RunningGateway, path: str, model: str = "m", *, key: str | None = None, **fields: Any
) -> httpx2.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx2.post(f"{gateway.url}{path}", json={"model": model, **fields}, headers=headers, timeout=30)


def text_event(text: str, finish: str | None = None, **extra: Any) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return b"data: " + json.dumps({**COMPLETION, "choices": [choice], "usage": None, **extra}).encode() + b"\n\n"


# Completions


def test_a_real_completion(real: openai.OpenAI) -> None:
    raw = real.completions.with_raw_response.create(model="tiny-chat", prompt="def main(", max_tokens=8, temperature=0)
    answer = raw.parse()
    assert (answer.object, answer.choices[0].finish_reason) == ("text_completion", "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 8)
    assert raw.headers["x-lexora-deployment"] == "llamacpp/tiny-chat"
    said = ""
    asked = real.completions.create(model="tiny-chat", prompt="def main(", max_tokens=8, temperature=0, stream=True)
    for chunk in asked:
        said += chunk.choices[0].text if chunk.choices else ""
        assert chunk.usage is None
    assert said == answer.choices[0].text


def test_real_completions_of_several_prompts_and_of_tokens(real: openai.OpenAI) -> None:
    several = real.completions.create(model="tiny-chat", prompt=["def a(", "class B"], max_tokens=2)
    assert [choice.index for choice in several.choices] == [0, 1]
    for prompt in ([5, 6, 7], [[5, 6, 7]]):
        answer = real.completions.create(model="tiny-chat", prompt=prompt, max_tokens=2)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 3


def test_echo_and_logprobs_arrive_as_they_came(upstream: RecordedUpstream, door: RunningGateway) -> None:
    script = recorded("http/vllm-completions-echo.http")
    upstream.play(script)
    with sdk(door) as client:
        raw = client.completions.with_raw_response.create(model="m", prompt="def main(", echo=True, logprobs=1)
    assert isinstance(script[0], bytes)
    assert raw.content == script[0].partition(b"\r\n\r\n")[2]
    logprobs = raw.parse().choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["def", " ma", "in", "(", "Co", ")\n\n"]
    assert upstream.received[0].json() == {"model": "up", "prompt": "def main(", "echo": True, "logprobs": 1}


@pytest.mark.parametrize("shown", [True, False])
def test_a_recorded_stream_of_completions(shown: bool, upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(recorded("http/vllm-completions-stream.http"))
    options = {"stream_options": {"include_usage": True}} if shown else {}
    response = post(door, "/v1/completions", prompt="def main(", stream=True, **options)
    *chunks, done = events(response)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"]).startswith("Co")
    assert [bool(chunk["choices"]) for chunk in chunks] == [True] * 8 + [False] * shown
    assert upstream.received[0].path == "/v1/completions"
    assert upstream.received[0].json()["stream_options"] == {"include_usage": True}
    record = door.record_of(response.headers["x-request-id"])
    assert (record["endpoint"], record["tokens_in"], record["tokens_out"]) == ("completions", 4, 8)
    assert record["ttft_ms"] is not None


def test_a_stream_of_completions_ends_when_every_choice_of_every_prompt_has(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    ends = [text_event("", "stop").replace(b'"index": 0', b'"index": %d' % index) for index in range(4)]
    fields = {"prompt": ["a", "b"], "n": 2, "stream": True}
    upstream.play(stream(*ends))
    assert events(post(door, "/v1/completions", **fields))[-1] == "[DONE]"
    upstream.play(stream(*ends[:3]))
    assert events(post(door, "/v1/completions", **fields))[-1]["error"]["code"] == "upstream_broken"


def test_a_broken_stream_of_completions_ends_in_an_error_and_nobody_goes_on_with_it(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([STREAM_HEAD, piece(text_event("one")), Close()])
    *chunks, error = events(post(door, "/v1/completions", "pair", prompt="a", stream=True))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["one"]
    assert error["error"]["code"] == "upstream_broken"
    assert len(upstream.received) == 1
    with sdk(door) as client, pytest.raises(openai.APIError):
        list(client.completions.create(model="m", prompt="a", stream=True))


def test_a_prompt_that_is_prepared_for_chat_is_completed_by_the_model(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([json_response(COMPLETION)])
    response = post(door, "/v1/completions", prompt="日本の首都はどこですか？")
    assert response.headers["x-lexora-origin"] == "own"


# Embeddings and rerank


def test_real_embeddings(real: openai.OpenAI) -> None:
    packed = real.embeddings.with_raw_response.create(model="tiny-embed", input=["a", "b c"])  # base64, unless told
    assert isinstance(json.loads(packed.content)["data"][0]["embedding"], str)
    plain = real.embeddings.create(model="tiny-embed", input=["a", "b c"], encoding_format="float")
    first, second = (each.embedding for each in packed.parse().data)
    assert len(first) == len(second) > 100
    assert first == pytest.approx(plain.data[0].embedding, abs=1e-5)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == 3
    tokens = real.embeddings.create(model="tiny-embed", input=[[1, 2, 3], [4]], encoding_format="float")
    assert (len(tokens.data), tokens.usage.prompt_tokens) == (2, 4)


def test_recorded_embeddings(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(recorded("http/vllm-embeddings-base64.http"), recorded("http/vllm-embeddings.http"))
    with sdk(door) as client:
        client.embeddings.create(model="m", input=["a", "b"], dimensions=64)
        raw = client.embeddings.with_raw_response.create(model="m", input="a", encoding_format="float")
    sent = [received.json() for received in upstream.received]
    assert sent[0] == {"model": "up", "input": ["a", "b"], "dimensions": 64, "encoding_format": "base64"}
    assert sent[1]["encoding_format"] == "float"
    assert len(raw.parse().data[0].embedding) == 64
    record = door.record_of(raw.headers["x-request-id"])
    assert (record["endpoint"], record["tokens_in"], record["tokens_out"]) == ("embeddings", 12, 0)
    assert (record["usage_estimated"], record["outcome"], record["upstream_model"]) == (0, "completed", "tiny-embed")


def test_a_large_batch(upstream: RecordedUpstream, door: RunningGateway) -> None:
    vector = base64.b64encode(struct.pack("<3072f", *[0.5] * 3072)).decode()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(512)]
    upstream.play([json_response({"object": "list", "data": data, "model": "up", "usage": {"total_tokens": 512}})])
    with sdk(door) as client:
        found = client.embeddings.create(model="m", input=["a"] * 512)
    assert [len(each.embedding) for each in found.data] == [3072] * 512


def test_a_recorded_ranking(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(recorded("http/vllm-rerank.http"))
    response = post(door, "/v1/rerank", query="a", documents=["a b", {"text": "c d"}], top_n=2)
    assert [each["index"] for each in response.json()["results"]] == [0, 1]
    assert upstream.received[0].path == "/v1/rerank"
    record = door.record_of(response.headers["x-request-id"])
    assert (record["endpoint"], record["tokens_in"]) == ("rerank", 12)


def test_where_nobody_counts_tokens_that_came_as_such_are_counted(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([json_response(ANSWERS["/v1/embeddings"])])
    for given, expected in (([1, 2, 3], 3), ([[1, 2], [3, 4]], 4), (["abcd", "efgh"], 2), ("", 0)):
        response = post(door, "/v1/embeddings", "paid", input=given)
        record = door.record_of(response.headers["x-request-id"])
        assert (record["tokens_in"], record["tokens_out"], record["usage_estimated"]) == (expected, 0, 1)
        assert float(response.headers["x-lexora-cost-usd"]) == expected * 2 / 1e6


# Images


def test_images(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(IMAGES)])
    with sdk(door) as client:
        raw = client.images.with_raw_response.generate(model="paid", prompt="a cat", n=1, size="1024x1024")
    data = raw.parse().data
    assert data is not None
    assert data[0].b64_json == PNG
    assert upstream.received[0].json() == {"model": "up", "prompt": "a cat", "n": 1, "size": "1024x1024"}
    assert upstream.received[0].path == "/v1/images/generations"
    record = door.record_of(raw.headers["x-request-id"])
    assert (record["endpoint"], record["tokens_in"], record["tokens_out"]) == ("images.generations", 5, 100)
    assert record["cost_usd"] == pytest.approx((5 * 2 + 100 * 8) / 1e6)


def test_a_stream_of_images(upstream: RecordedUpstream, door: RunningGateway) -> None:
    partial = {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": PNG}
    last = {"type": "image_generation.completed", "b64_json": PNG, "usage": IMAGES["usage"]}
    frames = [b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in (partial, last)]
    upstream.play(stream(*frames))
    response = post(door, "/v1/images/generations", prompt="a cat", stream=True, partial_images=1)
    assert response.content == b"".join(frames)
    assert "stream_options" not in upstream.received[0].json()
    record = door.record_of(response.headers["x-request-id"])
    assert (record["tokens_in"], record["tokens_out"], record["outcome"]) == (5, 100, "completed")
    with sdk(door) as client:
        found = list(client.images.generate(model="m", prompt="a cat", stream=True, partial_images=1))
    assert [event.type for event in found] == [partial["type"], last["type"]]
    for sent, n in ((frames[0], 1), (frames[1], 2)):
        upstream.play(stream(sent))
        broken = post(door, "/v1/images/generations", prompt="a cat", n=n, stream=True)
        assert b"upstream_broken" in broken.content


# Transcriptions


def test_a_transcription(upstream: RecordedUpstream, door: RunningGateway) -> None:
    sound = bytes(range(256)) * 4096 + b"\r\n--not-the-boundary\r\n"
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
    upstream.play([json_response({"text": "Hello.", "usage": usage})])
    with sdk(door) as client:
        raw = client.audio.transcriptions.with_raw_response.create(
            model="paid",
            file=("声.wav", sound),
            language="ja",
            timestamp_granularities=["word", "segment"],
            extra_body={"x_user_id": "u"},
        )
    assert raw.parse().text == "Hello."
    received = upstream.received[0]
    assert received.path == "/v1/audio/transcriptions"
    boundary = received.headers["content-type"].removeprefix("multipart/form-data; boundary=").strip('"').encode()
    parts = received.body.split(b"--" + boundary)
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    named = [part.partition(b'name="')[2].partition(b'"')[0] for part in parts[1:-1]]
    assert sorted(named) == [b"file", b"language", b"model", *[b"timestamp_granularities[]"] * 2]
    values = dict(
        zip(named, (part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:-1]), strict=True)
    )
    assert values[b"model"] == b"up"
    assert values[b"file"] == sound
    record = door.record_of(raw.headers["x-request-id"])
    assert (record["endpoint"], record["tokens_in"], record["tokens_out"]) == ("audio.transcriptions", 14, 3)


def test_the_form_is_whole_for_every_deployment(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response({}, "503 Service Unavailable")], [json_response({"text": "b"})])
    with sdk(door) as client:
        assert client.audio.transcriptions.create(model="pair", file=("a.wav", b"sound")).text == "b"
    first, second = upstream.received
    assert first.body == second.body
    assert b"sound" in second.body


def test_a_transcription_as_text(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 6\r\n\r\nHello\n"])
    with sdk(door) as client:
        raw = client.audio.transcriptions.with_raw_response.create(
            model="m", file=("a.wav", b"a"), response_format="text"
        )
    assert (raw.text, raw.headers["content-type"]) == ("Hello\n", "text/plain; charset=utf-8")
    assert raw.headers["x-lexora-deployment"] == "vllm/up"
    upstream.play([b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"])
    with sdk(door) as client, pytest.raises(openai.APIStatusError) as raised:
        client.audio.transcriptions.create(model="m", file=("a.wav", b"a"))
    assert raised.value.status_code == 502


def test_a_streamed_transcription(upstream: RecordedUpstream, door: RunningGateway) -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
    said = [
        {"type": "transcript.text.delta", "delta": "Hi"},
        {"type": "transcript.text.done", "text": "Hi", "usage": usage},
    ]
    frames = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in said]
    upstream.play(stream(*frames))
    with sdk(door) as client:
        found = list(client.audio.transcriptions.create(model="m", file=("a.wav", b"a"), stream=True))
    assert [event.type for event in found] == ["transcript.text.delta", "transcript.text.done"]
    # vLLM's has chunks, and an end of chat's.
    chunk = {"object": "transcription.chunk", "choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    upstream.play(stream(b"data: " + json.dumps(chunk).encode() + b"\n\n", DONE))
    form = {"model": "m", "stream": "true"}
    response = httpx2.post(f"{door.url}/v1/audio/transcriptions", data=form, files={"file": b"a"}, timeout=30)
    assert events(response) == [chunk, "[DONE]"]


def test_without_a_model_the_form_gets_that_of_the_default(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response({"text": "a"})])
    response = httpx2.post(f"{door.url}/v1/audio/transcriptions", files={"file": b"a"}, timeout=30)
    assert (response.status_code, upstream.received[0].body.count(b'name="model"')) == (200, 1)


FORM = b'--b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_form", None),
        (b"{}", "invalid_form", None),
        (b"--b\r\n", "invalid_form", None),
        (b"--b--\r\n", "invalid_form", None),
        (FORM.removesuffix(b"--\r\n") % (b"file", b"a"), "invalid_form", None),
        (b"--b\r\nx: y\r\n\r\na\r\n--b--\r\n", "invalid_form", None),
        (b"--b\r\ncontent-disposition: form-data\r\n\r\na\r\n--b--\r\n", "invalid_form", None),
        (b"--b\r\nno headers\r\n--b--\r\n", "invalid_form", None),
        (b"--b\r\n" + b"\r\n--b\r\n" * 300 + b"--b--\r\n", "invalid_form", None),
        (FORM % (b"f" * 5000, b"a"), "invalid_form", None),
        (FORM % (b"model", b"m"), "missing_required_field", "file"),
        (FORM % (b"model", b"\xff"), "invalid_utf8", "model"),
        (
            FORM.replace(b"--b--", b"--b") % (b"x_timeout", b"-1") + (FORM % (b"file", b"a"))[5:],
            "invalid_value",
            "x_timeout",
        ),
    ],
)
def test_a_form_that_is_none(
    body: bytes, code: str, param: str | None, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = httpx2.post(f"{door.url}/v1/audio/transcriptions", content=body, headers=headers, timeout=30)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param), error
    assert not upstream.received


def test_a_form_from_a_web_page_needs_a_credential(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response({"text": "a"})])

    def send(**headers: str) -> int:
        url = f"{door.url}/v1/audio/transcriptions"
        return httpx2.post(url, files={"file": b"a"}, headers={"origin": "https://a.example", **headers}).status_code

    assert send() == 403
    assert not upstream.received
    assert send(authorization="Bearer none") == 200


# All of them


@pytest.mark.parametrize("path", PATHS)
def test_unknown_fields_go_through_untouched_and_the_gateways_own_do_not(
    path: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([json_response(ANSWERS[path])])
    given = json.dumps(GIVEN[path])[1:-1].encode()
    extra = b'"big": 123456789012345678901234567890, "nested": {"x_a": [1.50]}, "x_user_id": "u", "x_own": 1'
    body = b'{"model": "m", ' + given + b", " + extra + b"}"
    headers = {"content-type": "application/json"}
    response = httpx2.post(f"{door.url}{path}", content=body, headers=headers, timeout=30)
    assert response.json() == ANSWERS[path]
    sent = upstream.received[0]
    assert b'"big":123456789012345678901234567890' in sent.body
    assert b'"nested":{"x_a": [1.50]}' in sent.body
    assert sent.json().keys() == {"model", "big", "nested", *GIVEN[path]}
    assert sent.headers["x-request-id"] == response.headers["x-request-id"]
    assert door.record_of(response.headers["x-request-id"])["user_id"] == "u"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("no body", "invalid_json"),
        ("nothing given", "missing_required_field"),
        ({"model": 5}, "invalid_value"),
        ({"model": "nope"}, "model_not_found"),
        ({"x_timeout": 0}, "invalid_value"),
        ({"x_priority": "urgent"}, "invalid_value"),
    ],
)
def test_bad_requests(path: str, change: Any, code: str, door: RunningGateway) -> None:
    body = {"model": "m", **GIVEN[path], **(change if isinstance(change, dict) else {})}
    content = b"{" if change == "no body" else b"{}" if change == "nothing given" else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    response = httpx2.post(f"{door.url}{path}", content=content, headers=headers, timeout=30)
    assert response.json()["error"]["code"] == code
    assert response.status_code == (404 if code == "model_not_found" else 400)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/completions", {"prompt": None}, "prompt"),
        ("/v1/completions", {"prompt": 5}, "prompt"),
        ("/v1/completions", {"prompt": "a", "n": 0}, "n"),
        ("/v1/completions", {"prompt": "a", "best_of": 129}, "best_of"),
        ("/v1/completions", {"prompt": "a", "stream": "yes"}, "stream"),
        ("/v1/embeddings", {"input": [1.5]}, "input[0]"),
        ("/v1/rerank", {"query": "a", "documents": "b"}, "documents"),
        ("/v1/images/generations", {"prompt": ["a"]}, "prompt"),
    ],
)
def test_the_field_at_fault_is_named(path: str, fields: dict[str, Any], param: str, door: RunningGateway) -> None:
    response = post(door, path, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.json()


@pytest.mark.parametrize("path", [*PATHS, "/v1/audio/transcriptions"])
def test_wrong_content_types_and_bodies_that_are_too_large(path: str, web: httpx2.Client) -> None:
    assert web.post(path, content=b"a", headers={"content-type": "text/plain"}).status_code == 415
    right = "application/json" if path in PATHS else "multipart/form-data; boundary=b"
    encoded = {"content-type": right, "content-encoding": "gzip"}
    assert web.post(path, content=b"a", headers=encoded).status_code == 415
    assert web.post(path, content=b" " * 20_000, headers={"content-type": right}).status_code == 413
    other = {"content-type": "application/json" if path not in PATHS else "multipart/form-data; boundary=b"}
    assert web.post(path, content=b"a", headers=other).status_code == 415
    assert web.get(path).status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_what_an_api_does_not_have_is_refused(path: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    response = post(door, path, "claude", **GIVEN[path])
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "not_offered", "model")
    assert "anthropic/up offers chat" in error["message"]
    assert not upstream.received


@pytest.mark.parametrize("path", PATHS)
def test_what_a_server_does_not_have_it_says_itself(
    path: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    said = {"error": {"code": 501, "message": "Start it with `--embeddings`", "type": "not_supported_error"}}
    upstream.play(
        [json_response(said, "501 Not Implemented")], [json_response({"detail": "Not Found"}, "404 Not Found")]
    )
    first, second = post(door, path, **GIVEN[path]), post(door, path, **GIVEN[path])
    for response, status, message in ((first, 400, "Start it with"), (second, 404, "Not Found")):
        error = response.json()["error"]
        assert response.status_code == status
        assert message in error["message"]
        assert f"vllm/up was asked for {path.removeprefix('/v1')}" in error["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "broken",
    [
        [json_response({}, "503 Service Unavailable")],
        [json_response({"detail": "Not Found"}, "404 Not Found")],
        [json_response({}, "501 Not Implemented")],
        [json_response({"object": "list"})],
        [json_response(b"[]")],
        [json_response({"error": {"message": "inside"}})],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{", Close()],
    ],
)
def test_the_next_deployment_is_asked(
    path: str, broken: Script, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play(broken, [json_response(ANSWERS[path])])
    response = post(door, path, "pair", **GIVEN[path])
    assert response.json() == ANSWERS[path]
    assert response.headers["x-lexora-deployment"] == "second"
    assert door.record_of(response.headers["x-request-id"])["attempts"] == 2


def test_a_deployment_whose_api_has_no_such_thing_is_passed_over(tmp_path: Path) -> None:
    with recorded_upstream([json_response(ANSWERS["/v1/embeddings"])]) as upstream:
        own = {"provider": "vllm", "base_url": upstream.base_url, "model": "up"}
        other = {**own, "provider": "anthropic", "origin": "own", "credential": None}
        config = {"models": {"m": {"deployments": [other, own]}}}
        with running_gateway(tmp_path / "gateway", config) as gateway:
            response = post(gateway, "/v1/embeddings", input="a")
            assert response.headers["x-lexora-deployment"] == "vllm/up"
            record = gateway.record_of(response.headers["x-request-id"])
            assert (record["attempts"], len(upstream.received)) == (2, 1)


@pytest.mark.parametrize("path", PATHS)
def test_the_deadline_holds(path: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([Sleep(float("inf"))])
    response = post(door, path, x_timeout=0.3, **GIVEN[path])
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    upstream.wait_until_left()


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_frees_the_upstream(path: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([Sleep(float("inf"))])
    with RawChat(door, GIVEN[path], path=path.encode()) as client:
        upstream.wait_until_received()
        time.sleep(0.05)
        client.leave()
        upstream.wait_until_left()


def test_a_client_that_leaves_a_stream_frees_the_upstream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([STREAM_HEAD, piece(text_event("one")), Sleep(float("inf"))])
    with RawChat(door, {"prompt": "a", "stream": True}, path=b"/v1/completions") as client:
        client.read_until(b"one")
        client.leave()
        upstream.wait_until_left()


def test_limits_and_keys_hold_for_all_of_them(tmp_path: Path) -> None:
    with recorded_upstream([b""]) as upstream:
        own = {"provider": "vllm", "base_url": upstream.base_url, "model": "up"}
        config = {**models_config(m=own), "rate_limits": {"default": {"tokens_per_minute": 400}}}
        with running_gateway(tmp_path / "gateway", config) as gateway:
            vector = {**ANSWERS["/v1/embeddings"], "usage": {"prompt_tokens": 150, "total_tokens": 150}}
            upstream.play([json_response(vector)])
            left = []
            for _ in range(2):
                response = post(gateway, "/v1/embeddings", input=[1] * 150, x_user_id="ann")
                assert response.status_code == 200
                left.append(response.headers["x-ratelimit-remaining-tokens"])
            # Tokens that come as such are reserved as they are, and no answer's with them.
            assert left == ["250", "100"]
            refused = post(gateway, "/v1/embeddings", input=[1] * 150, x_user_id="ann")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert len(upstream.received) == 2


def test_a_key_that_does_not_allow_the_model(tmp_path: Path) -> None:
    with recorded_upstream([b""]) as upstream:
        own = {"provider": "vllm", "base_url": upstream.base_url, "model": "up"}
        config = {**models_config(m=own), "auth": {"required": True}}
        with running_gateway(tmp_path / "gateway", config) as gateway:
            for path in PATHS:
                assert post(gateway, path, **GIVEN[path]).status_code == 401
                assert post(gateway, path, key="lx-nobody", **GIVEN[path]).status_code == 401
            form = httpx2.post(f"{gateway.url}/v1/audio/transcriptions", files={"file": b"a"}, timeout=30)
            assert form.status_code == 401
        assert not upstream.received
