"""Both doors on AWS: real functions in processes of their own, in front of real upstreams, over an emulator."""

import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lexora.adapters import secrets_manager
from lexora.adapters.dynamodb_keys import DynamoKeys
from lexora.adapters.dynamodb_versions import DynamoVersions
from lexora.adapters.json_log import JsonFormatter
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.errors import CredentialMissing
from lexora.core.key_admin import create, new_key
from lexora.core.model_map import Deployment
from lexora.core.versions import Version
from lexora.entry import aws, aws_model_map
from lexora.entry.prepared import SHIPPED, load_prepared
from lexora.entry.publishing import plan
from lexora.providers.sigv4 import Identity
from tests.support.client import HELLO, chat_body, events, post, sdk, text_of
from tests.support.cloud import STAGE, Cloud, Function, running_function
from tests.support.emulator import Emulator
from tests.support.gateway import ROOT, RunningGateway, free_port, serving
from tests.support.recorded import (
    DONE,
    RECORDED,
    STREAM_END,
    STREAM_HEAD,
    Close,
    RecordedUpstream,
    Sleep,
    Until,
    completion,
    finish,
    json_response,
    piece,
    recorded_upstream,
    stream,
    token,
    wait_until,
)

CAPITAL = "日本の首都はどこですか？"
CAPITALS = {text for (prompt, _), text in load_prepared(SHIPPED)[1].items() if prompt == CAPITAL}
ASK_CAPITAL = {"messages": [{"role": "user", "content": CAPITAL}]}
CHAT = "/v1/chat/completions"
HELLO_JSON = json_response(completion("Hi"))
UNAUTHORIZED = json_response({"error": {"message": "No."}}, "401 Unauthorized")
SOON = 0.2
# Waits of half a minute, made short.
HASTY = {
    "lexora.entry.aws_catalogue.SOON_SECONDS": 0,
    "lexora.entry.aws_model_map.LOOK_AGAIN_SECONDS": SOON,
    "lexora.adapters.secrets_manager.REST_SECONDS": SOON,
}
IN_BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])

VARIABLES = aws.Variables(
    *("x",) * 9, allow_origins="", message_text=True, log_level="", max_seconds=1, record_ttl_days=1
)

Start = Callable[..., Function]


def vllm(url: str, **fields: Any) -> dict[str, Any]:
    return {"provider": "vllm", "base_url": url, "model": "up", **fields}


@pytest.fixture(scope="module")
def cloud(emulator: Emulator, _upstream: RecordedUpstream, llamacpp: Deployment) -> Cloud:
    """`m` is behind `upstream`, `tiny` is the real llama.cpp, and `paid` needs the secret UPSTREAM_KEY."""
    url = _upstream.base_url
    models = {
        "m": vllm(url),
        "tiny": {"provider": "llamacpp", "base_url": llamacpp.base_url, "model": "tiny-chat"},
        "paid": {"provider": "openai", "base_url": url, "model": "up", "credential": "env:UPSTREAM_KEY"},
    }
    return Cloud(emulator, models)


@pytest.fixture(scope="module")
def function(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """A function that takes small bodies, otherwise as it is deployed."""
    folder = tmp_path_factory.mktemp("function")
    with running_function(cloud, folder, constants={"lexora.entry.aws.MAX_BODY_BYTES": 10_000}) as running:
        yield running
        assert running.stderr == ""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts functions of this test alone, whose waits are short."""
    with ExitStack() as stack:

        def start(cloud: Cloud, env: Mapping[str, str] | None = None) -> Function:
            running: AbstractContextManager[Function] = running_function(cloud, tmp_path, env, HASTY)
            return stack.enter_context(running)

        yield start


@pytest.fixture
def own_cloud(emulator: Emulator, upstream: RecordedUpstream) -> Cloud:
    """An environment of this test alone: model `m` is behind `upstream`, and so is `paid` with the secret KEY."""
    upstream.play([HELLO_JSON])
    url = upstream.base_url
    return Cloud(emulator, {"m": vllm(url), "paid": vllm(url, credential="env:KEY")})


def nowhere(service: str) -> dict[str, str]:
    """The environment in which an AWS service does not answer."""
    quickly = {"AWS_NEW_RETRIES_2026": "true"}  # botocore's pauses between tries are shorter then
    return {f"AWS_ENDPOINT_URL_{service}": f"http://127.0.0.1:{free_port()}", **quickly}


# --- the buffered door: paths and answers ---


@pytest.mark.parametrize("stage", [True, False], ids=["with the stage", "without"])
@pytest.mark.parametrize(
    ("path", "status", "content_type"),
    [
        ("/health", 200, "application/json"),
        ("/v1/models", 200, "application/json"),
        ("/v1/models/tiny", 200, "application/json"),
        ("/responses/q1/3.json", 200, "application/json"),
        ("/docs", 200, "text/html; charset=utf-8"),
        ("/openapi.json", 200, "application/json"),
        ("/v1", 404, "application/json"),
    ],
)
def test_a_path_may_begin_with_the_stage(
    function: Function, path: str, status: int, content_type: str, stage: bool
) -> None:
    answer = function.call("GET", path, stage=stage)
    assert (answer.status, answer.headers["content-type"]) == (status, content_type)


@pytest.mark.parametrize("path", ["/", f"/{STAGE}", f"/{STAGE}/"])
def test_the_front_door_leads_to_the_page_wherever_it_is(function: Function, path: str) -> None:
    answer = function.call("GET", path, stage=False)
    assert (answer.status, answer.headers["location"]) == (307, "docs")


@pytest.mark.parametrize("path", [CHAT, "/chat/completions"])
@pytest.mark.parametrize("stage", [True, False], ids=["with the stage", "without"])
def test_a_prepared_answer(function: Function, path: str, stage: bool) -> None:
    answer = function.call("POST", path, json.dumps(ASK_CAPITAL), stage=stage)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert ChatCompletion.model_validate_json(answer.body).choices[0].message.content in CAPITALS
    assert answer.headers["x-lexora-origin"] == "fixed"
    assert re.fullmatch(r"fixed/q1_capital/[0-4]", answer.headers["x-lexora-deployment"])


def test_a_prepared_answer_streamed(function: Function) -> None:
    answer = function.chat(**ASK_CAPITAL, stream=True)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *chunks, done = events(answer.body)
    assert done == "[DONE]"
    assert text_of(chunks) in CAPITALS
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)


def test_a_prepared_answers_file(function: Function) -> None:
    answer = function.call("GET", "/responses/q1/3.json")
    assert answer.json() == {"response": load_prepared(SHIPPED)[1][CAPITAL, 3]}
    same = function.call("GET", "/responses/q1_capital/3.json", headers={"if-none-match": answer.headers["etag"]})
    assert (same.status, same.body) == (304, b"")


def test_an_answer_of_llamacpp(function: Function) -> None:
    answer = function.chat(model="tiny", max_tokens=3)
    assert answer.status == 200
    parsed = ChatCompletion.model_validate_json(answer.body)
    assert parsed.usage is not None
    assert parsed.usage.completion_tokens == 3
    assert (answer.headers["x-lexora-origin"], answer.headers["x-lexora-deployment"]) == ("own", "llamacpp/tiny-chat")


def test_an_answer_of_llamacpp_streamed(function: Function) -> None:
    answer = function.chat(model="tiny", max_tokens=3, stream=True)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *chunks, done = events(answer.body)
    assert done == "[DONE]"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_responses_are_stored_where_there_is_a_table_for_them(
    function: Function, cloud: Cloud, start: Start, upstream: RecordedUpstream
) -> None:
    upstream.play([HELLO_JSON])

    def respond(door: Function, **fields: Any) -> Any:
        body = json.dumps({"model": "m", "input": "Hello", **fields})
        return door.call("POST", "/v1/responses", body).json()

    storing = start(cloud, {"RESPONSES_TABLE": cloud.responses})
    one = respond(storing)
    two = respond(storing, input="And?", previous_response_id=one["id"])
    said = [message["content"] for message in upstream.received[-1].json()["messages"]]
    assert (said, two["store"]) == (["Hello", "Hi", "And?"], True)
    assert storing.call("GET", f"/v1/responses/{one['id']}").json() == one
    assert storing.call("GET", f"/v1/responses/{two['id']}/input_items").json()["data"][-1]["role"] == "user"
    assert storing.call("DELETE", f"/v1/responses/{one['id']}").status == 200
    assert storing.call("GET", f"/v1/responses/{one['id']}").status == 404
    assert respond(function)["store"] is False
    nowhere = function.call("GET", f"/v1/responses/{two['id']}")
    assert (nowhere.status, "store_responses" in nowhere.body.decode()) == (404, True)


def test_a_body_may_come_as_base64(function: Function, upstream: RecordedUpstream) -> None:
    upstream.play([HELLO_JSON])
    body = json.dumps(chat_body(messages=[{"role": "user", "content": "東京"}]), ensure_ascii=False).encode()
    assert function.call("POST", CHAT, body).status == 200
    assert upstream.received[0].json()["messages"][0]["content"] == "東京"


def test_a_connection_that_was_closed_while_the_function_slept_costs_nobody_an_error(
    function: Function, upstream: RecordedUpstream
) -> None:
    upstream.play([HELLO_JSON, Sleep(0.1), Close()], [HELLO_JSON])
    assert function.chat().status == 200
    time.sleep(0.2)
    assert function.chat().status == 200
    assert upstream.connections == 2


def test_a_connection_outlives_a_request(function: Function, upstream: RecordedUpstream) -> None:
    upstream.play([HELLO_JSON])
    for _ in range(3):
        assert function.chat().status == 200
    assert upstream.connections == 1


# --- errors ---


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "not_found"),
        ("GET", "/responses/q1/5.json", None, 404, "not_found"),
        ("GET", "/v1/models/nope", None, 404, "model_not_found"),
        ("GET", CHAT, None, 405, "method_not_allowed"),
        ("DELETE", "/health", None, 405, "method_not_allowed"),
        ("POST", CHAT, '{"messages": [', 400, "invalid_json"),
        ("POST", CHAT, b"\xff", 400, "invalid_utf8"),
        ("POST", CHAT, "", 400, "invalid_json"),
        ("POST", CHAT, "x" * 10_001, 413, "payload_too_large"),
        ("POST", CHAT, b"x" * 10_001, 413, "payload_too_large"),
        ("POST", CHAT, None, 415, "unsupported_media_type"),
        ("POST", CHAT, json.dumps(chat_body(model="nope")), 404, "model_not_found"),
    ],
)
def test_an_error_has_the_envelope(
    function: Function, method: str, path: str, body: str | bytes | None, status: int, code: str
) -> None:
    answer = function.call(method, path, body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert answer.error_code == code
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_body_of_a_megabyte(cloud: Cloud, start: Start, upstream: RecordedUpstream) -> None:
    upstream.play([HELLO_JSON])
    text = "0123456789 東京" * 70_000
    assert start(cloud).chat(messages=[{"role": "user", "content": text}]).status == 200
    assert upstream.received[0].json()["messages"][0]["content"] == text


def test_a_site_that_is_configured_may_ask(function: Function) -> None:
    """API Gateway answers preflights itself where origins are set; a door without that leaves them to us."""
    for origin in ("https://app.example.com", "http://localhost:5173"):
        asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x-a"}
        answer = function.call("OPTIONS", CHAT, headers=asked)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)
        assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"
        assert answer.headers["access-control-allow-headers"] == "x-a"
        answer = function.call("GET", "/health", headers={"origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
    answer = function.call("GET", "/health", headers={"origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(("streamed", "x_timeout"), [(False, None), (True, 20)])
def test_no_answer_takes_longer_than_the_door(
    cloud: Cloud, start: Start, upstream: RecordedUpstream, streamed: bool, x_timeout: float | None
) -> None:
    """So that the client hears of it from us, and not from an API Gateway that gave up."""
    function = start(cloud, {"MAX_SECONDS": "0.4"})
    function.call("GET", "/health")
    upstream.play([Sleep(float("inf"))])
    asked_at = time.monotonic()
    answer = function.chat(stream=streamed, x_timeout=x_timeout)
    assert 0.4 < time.monotonic() - asked_at < 1.4
    assert (answer.status, answer.error_code) == (504, "deadline_exceeded")
    assert cloud.records()[answer.headers["x-request-id"]]["error_code"] == "deadline_exceeded"


# --- records, log, metrics ---


@IN_BOTH_WAYS
def test_a_request_is_in_the_table_when_it_is_answered(
    function: Function, cloud: Cloud, upstream: RecordedUpstream, streamed: bool
) -> None:
    upstream.play(stream(token("Hi"), finish(), DONE) if streamed else [HELLO_JSON])
    answer = function.chat(stream=streamed, x_user_id="takahito")
    record = cloud.records()[answer.headers["x-request-id"]]
    facts = {"user_id": "takahito", "model": "m", "provider": "vllm", "origin": "own", "outcome": "completed"}
    assert {name: record[name] for name in facts} == facts
    assert record["stream"] is streamed
    assert record["tokens_out"] == (1 if streamed else 3)
    assert record["expires_at"] == pytest.approx(time.time() + 90 * 86_400, abs=60)
    assert "Hello" not in str(record)


def test_every_answer_of_a_model_or_store_has_its_record(function: Function, cloud: Cloud) -> None:
    answers = [
        function.chat(**ASK_CAPITAL),
        function.chat(**ASK_CAPITAL, stream=True),
        function.call("GET", "/responses/q1/0.json"),
        function.chat(model="nope"),
        function.call("POST", CHAT, "{"),
    ]
    records = cloud.records()
    found = [records[answer.headers["x-request-id"]] for answer in answers]
    assert [(record.get("origin"), record["status"]) for record in found] == [
        ("fixed", 200), ("fixed", 200), ("edge", 200), (None, 404), (None, 400),
    ]  # fmt: skip


def test_the_log_has_the_fields_that_it_has_on_one_machine(
    function: Function, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    scripts = {"well": [HELLO_JSON], "not": [json_response(b"", "500 Internal Server Error")]}
    for name in scripts:
        upstream.play(scripts[name])
        there, here = function.chat(), post(door)
        line, local = function.line_of(there), door.log_line_of(here.headers["x-request-id"])
        assert list(line) == list(local)
        assert line["message"] == ("chat_completion" if name == "well" else "llm_error")
        different = {"timestamp", "requestId", "upstreamMs", "ttftMs", "durationMs"}
        assert {**line, **dict.fromkeys(different)} == {**local, **dict.fromkeys(different)}
    notices = [line for line in function.log() if "requestId" not in line]
    assert notices[0]["message"].startswith("model map loaded: m, tiny, paid")
    local = json.loads(
        JsonFormatter().format(logging.makeLogRecord({"msg": notices[0]["message"], "levelname": "INFO"}))
    )
    assert list(notices[0]) == list(local)
    assert {**notices[0], "timestamp": ""} == {**local, "timestamp": ""}
    assert len(notices[0]["timestamp"]) == len(local["timestamp"])


def test_the_words_of_users_may_be_kept_out_of_the_log(
    own_cloud: Cloud, start: Start, upstream: RecordedUpstream
) -> None:
    function = start(own_cloud, {"MESSAGE_TEXT": "false"})
    line = function.line_of(function.chat())
    assert line["latestUserMessageLength"] == 5
    assert "Hello" not in function.stdout


def test_every_request_is_counted(own_cloud: Cloud, start: Start) -> None:
    function = start(own_cloud, {"LEXORA_ENVIRONMENT": "blue"})
    function.chat()
    function.chat(**ASK_CAPITAL, model="made up by a client")
    function.chat(model="made up by a client")
    counted = [
        {name: line[name] for name in ("environment", "model", "provider", "origin", "outcome")}
        for line in function.metrics()
    ]
    none = {"environment": "blue", "model": "none", "provider": "none"}
    assert counted == [
        {"environment": "blue", "model": "m", "provider": "vllm", "origin": "own", "outcome": "completed"},
        {**none, "origin": "fixed", "outcome": "completed"},
        {**none, "origin": "none", "outcome": "failed"},
    ]


# --- the model map ---


def test_a_change_of_the_model_map_is_in_force_within_a_minute() -> None:
    assert aws_model_map.LOOK_AGAIN_SECONDS <= 60
    assert secrets_manager.REST_SECONDS <= 60


def test_a_changed_model_map_is_loaded_once(own_cloud: Cloud, start: Start, upstream: RecordedUpstream) -> None:
    function = start(own_cloud)
    assert function.chat(model="new").status == 404
    own_cloud.put_models({"new": vllm(upstream.base_url)})
    wait_until(lambda: function.chat(model="new").status == 200, "the new model")
    assert function.chat(model="m").status == 404
    for _ in range(3):
        time.sleep(SOON)
        assert function.chat(model="new").status == 200
    loaded = [message for message in function.messages() if "model map" in message]
    assert loaded == ["model map loaded: m, paid", "model map loaded: new"]


BROKEN = {
    "no JSON": ("{", "model_map.json: not valid JSON"),
    "a misspelt key": ('{"models": {"m": {"deployment": []}}}', "models.m"),
    "an unknown provider": (
        json.dumps({"models": {"m": {"deployments": [{"provider": "vlm", "model": "x"}]}}}),
        "models.m.deployments[0].provider: unknown provider 'vlm'; did you mean 'vllm'?",
    ),
    "none": (None, "there is no such object"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_model_map_is_refused_and_the_last_good_one_serves(own_cloud: Cloud, start: Start, how: str) -> None:
    text, said = BROKEN[how]
    function = start(own_cloud)
    assert function.chat().status == 200
    if text is None:
        own_cloud.emulator.client("s3").delete_object(Bucket=own_cloud.bucket, Key="config/model_map.json")
    else:
        own_cloud.put_map(text)

    def refused() -> list[dict[str, Any]]:
        assert function.chat().status == 200
        return [line for line in function.log() if "refused" in line["message"]]

    wait_until(refused, "the refusal")
    line = refused()[0]
    assert line["level"] == "ERROR"
    assert line["message"].startswith("the model map is refused, the last good one serves: ")
    assert said in line["message"]
    counted = next(line for line in function.metrics() if "ModelMapRefused" in line)
    assert (counted["environment"], counted["ModelMapRefused"]) == ("dev", [1.0])
    wait_until(lambda: len(refused()) > 2, "the refusal again, as long as the map is broken")
    assert len([line for line in function.metrics() if "ModelMapRefused" in line]) > 2
    own_cloud.put_models({"mended": vllm("http://127.0.0.1:9")})
    wait_until(lambda: function.call("GET", "/v1/models/mended").status == 200, "the mended map")


@pytest.mark.parametrize("how", BROKEN)
def test_a_new_function_serves_by_the_last_version_that_was_good(own_cloud: Cloud, start: Start, how: str) -> None:
    own_cloud.keep_versions()
    own_cloud.put_models({"good": vllm("http://127.0.0.1:9")})
    own_cloud.put_map("[]")
    text, _ = BROKEN[how]
    if text is None:
        own_cloud.emulator.client("s3").delete_object(Bucket=own_cloud.bucket, Key="config/model_map.json")
    else:
        own_cloud.put_map(text)
    function = start(own_cloud)
    assert [model["id"] for model in function.call("GET", "/v1/models").json()["data"]] == ["good"]
    (line,) = [line for line in function.log() if "refused" in line["message"]]
    assert line["message"].startswith("the model map is refused, the last good one serves: ")
    own_cloud.put_models({"mended": vllm("http://127.0.0.1:9")})
    wait_until(lambda: function.call("GET", "/v1/models/mended").status == 200, "the mended map")


@pytest.mark.parametrize("how", ["missing", "broken"])
def test_without_a_model_map_prepared_answers_are_served(emulator: Emulator, start: Start, how: str) -> None:
    cloud = Cloud(emulator)
    if how == "broken":
        cloud.put_map("[]")
    function = start(cloud)
    answer = function.chat()
    assert (answer.status, answer.error_code) == (503, "no_model_connected")
    assert "make config-push ENV=dev" in answer.json()["error"]["message"]
    assert function.chat(**ASK_CAPITAL).status == 200
    assert any(line["level"] == "ERROR" for line in function.log() if "refused" in line["message"])
    assert function.call("GET", "/health").json()["models"] == 0


def publish(cloud: Cloud, entry: PreparedPrompt, text: str) -> None:
    """Publishes one prompt with one answer, as the only one."""
    store = DynamoVersions(
        cloud.emulator.client("dynamodb"), cloud.emulator.client("s3"), cloud.answers, cloud.limits, cloud.bucket
    )
    content = Version.of(Catalogue([entry]), {(entry.prompt, 0): text})
    plan_ = plan(store, content, "ann", "")
    store.add(plan_.version)
    begun = store.begin(plan_.version.id, 1, plan_.seen)
    assert begun is not None
    store.finish(store.switch(plan_.version, begun))


def test_a_function_serves_what_was_published(own_cloud: Cloud, start: Start) -> None:
    publish(own_cloud, PreparedPrompt("q11_hours", "When are you open?", ["opening hours"], 1), "From ten.")
    function = start(own_cloud)
    answer = function.chat(messages=[{"role": "user", "content": "Opening hours?"}])
    assert answer.json()["choices"][0]["message"]["content"] == "From ten."
    assert function.call("GET", "/responses/q11/0.json").json() == {"response": "From ten."}
    assert function.call("GET", "/responses/q1/0.json").error_code == "not_found"
    assert function.chat(**ASK_CAPITAL, model="m").headers["x-lexora-origin"] == "own"


def test_a_warm_function_learns_at_once_that_an_answer_is_gone(own_cloud: Cloud, start: Start) -> None:
    """The table has the prompt under another wording, of which its catalogue does not know yet."""
    function = start(own_cloud)
    assert function.chat(**ASK_CAPITAL).headers["x-lexora-origin"] == "fixed"
    publish(own_cloud, PreparedPrompt("q1_capital", "What is Japan's capital?", [CAPITAL], 1), "Tokyo.")
    answer = function.chat(**ASK_CAPITAL)
    assert answer.json()["choices"][0]["message"]["content"] == "Tokyo."
    publish(own_cloud, PreparedPrompt("q1_capital", "The capital of Japan?", [], 1), "Tokyo!")
    assert function.call("GET", "/responses/q1/0.json").json() == {"response": "Tokyo!"}
    assert [line for line in function.log() if line["level"] == "ERROR"] == []


def test_a_warm_function_looks_for_new_prompts(own_cloud: Cloud, tmp_path: Path) -> None:
    constants = {"lexora.entry.aws_catalogue.LOOK_AGAIN_SECONDS": 0}
    with running_function(own_cloud, tmp_path, constants=constants) as function:
        assert function.call("GET", "/responses/q11/0.json").error_code == "not_found"
        publish(own_cloud, PreparedPrompt("q11_hours", "When are you open?", [], 1), "From ten.")
        entry = {"id": "q11_hours", "prompt": "When are you open?", "aliases": [], "variants": 1}
        assert function.call("GET", "/responses/catalogue.json").json() == {"prompts": [entry]}
        assert function.call("GET", "/responses/q11/0.json").json() == {"response": "From ten."}


def test_a_broken_catalogue_is_logged_and_the_one_before_serves(own_cloud: Cloud, tmp_path: Path) -> None:
    publish(own_cloud, PreparedPrompt("q11_hours", "When are you open?", [], 1), "From ten.")
    constants = {"lexora.entry.aws_catalogue.LOOK_AGAIN_SECONDS": 0}
    with running_function(own_cloud, tmp_path, constants=constants) as function:
        assert function.call("GET", "/responses/q11/0.json").status == 200
        own_cloud.emulator.client("dynamodb").update_item(
            TableName=own_cloud.limits,
            Key={"pk": {"S": "answers"}, "sk": {"S": "in force"}},
            UpdateExpression="SET catalogue = :broken",
            ExpressionAttributeValues={":broken": {"S": "{"}},
        )
        assert function.call("GET", "/responses/q11/0.json").status == 200
        assert "the published catalogue: Input data was truncated" in function.log()[-2]["message"]


def test_while_the_bucket_is_down_prepared_answers_are_served(own_cloud: Cloud, start: Start) -> None:
    function = start(own_cloud, nowhere("S3"))
    answer = function.chat()
    assert (answer.status, answer.error_code) == (503, "no_model_connected")
    assert "cannot be read at the moment" in answer.json()["error"]["message"]
    assert function.chat(**ASK_CAPITAL).status == 200
    assert any("cannot be read" in line["message"] for line in function.log())
    assert not any("ModelMapRefused" in line for line in function.metrics())


# --- secrets ---


@IN_BOTH_WAYS
def test_a_missing_secret_is_told_and_one_that_is_set_later_is_used(
    own_cloud: Cloud, start: Start, upstream: RecordedUpstream, streamed: bool
) -> None:
    function = start(own_cloud)
    answer = function.chat(model="paid", stream=streamed)
    assert (answer.status, answer.error_code) == (503, "credential_missing")
    assert answer.json()["error"]["message"].endswith("Set it with: make secrets-set ENV=dev NAME=KEY")
    assert upstream.received == []
    assert function.chat(model="m").status == 200  # what needs none is not held up
    own_cloud.put_secret("KEY", "sk-first")
    upstream.play(stream(token("Hi"), finish(), DONE) if streamed else [HELLO_JSON])
    wait_until(lambda: function.chat(model="paid", stream=streamed).status == 200, "the secret")
    assert upstream.received[0].headers["authorization"] == "Bearer sk-first"
    assert "sk-first" not in function.stdout


@pytest.mark.parametrize("value", ["two\nlines", "日本"])
def test_a_secret_that_no_header_can_hold_is_none(own_cloud: Cloud, start: Start, value: str) -> None:
    own_cloud.put_secret("KEY", value)
    function = start(own_cloud)
    assert function.chat(model="paid").error_code == "credential_missing"
    assert value not in function.stdout


def test_a_rotated_secret_is_looked_up_when_the_old_one_is_refused(
    own_cloud: Cloud, start: Start, upstream: RecordedUpstream
) -> None:
    own_cloud.put_secret("KEY", "sk-old")
    function = start(own_cloud)
    assert function.chat(model="paid").status == 200
    own_cloud.put_secret("KEY", "sk-new")
    time.sleep(SOON)
    assert function.chat(model="paid").status == 200
    upstream.play([UNAUTHORIZED], [HELLO_JSON])
    assert function.chat(model="paid").status == 200
    assert [got.headers["authorization"] for got in upstream.received] == ["Bearer sk-old", "Bearer sk-new"]
    upstream.play([UNAUTHORIZED])
    answer = function.chat(model="paid")
    assert (answer.status, answer.error_code) == (502, "upstream_credential_refused")
    assert len(upstream.received) == 1
    assert "sk-" not in function.stdout


def test_secrets_that_cannot_be_read_are_told_apart(own_cloud: Cloud, start: Start) -> None:
    function = start(own_cloud, nowhere("SECRETS_MANAGER"))
    answer = function.chat(model="paid")
    assert (answer.status, answer.error_code) == (503, "credential_missing")
    assert "cannot be read at the moment" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "2"
    assert any(message.startswith("the secret KEY cannot be read: ") for message in function.messages())


@IN_BOTH_WAYS
def test_the_functions_role_signs_requests_to_bedrock(
    emulator: Emulator, start: Start, upstream: RecordedUpstream, streamed: bool
) -> None:
    answer = json_response((RECORDED / "bedrock" / "text.json").read_bytes())
    refusal = json_response({"message": "Too many requests."}, "429 Too Many Requests")
    upstream.play([refusal if streamed else answer])
    one = {"provider": "bedrock", "base_url": upstream.base_url, "model": "amazon.nova-pro-v1:0"}
    function = start(Cloud(emulator, {"m": one}), {"AWS_SESSION_TOKEN": "of-the-role"})
    assert function.chat(model="m", stream=streamed).status == (429 if streamed else 200)
    headers = upstream.received[0].headers
    variables = emulator.environment({})
    scope = f"/{variables['AWS_DEFAULT_REGION']}/bedrock/aws4_request, SignedHeaders="
    assert headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={variables['AWS_ACCESS_KEY_ID']}/")
    assert scope in headers["authorization"]
    assert headers["x-amz-security-token"] == "of-the-role"
    assert "of-the-role" not in function.stdout


@pytest.fixture
def roleless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """This process without any keys of AWS's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return monkeypatch


def test_a_role_whose_keys_are_handed_out_by_an_address(
    roleless: pytest.MonkeyPatch, upstream: RecordedUpstream
) -> None:
    """As in a function that was restored from a snapshot: such keys are in no variable, and run out."""
    keys = {"AccessKeyId": "ASIA1", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}
    upstream.about = json_response(keys)
    roleless.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{upstream.base_url}/credentials")
    roleless.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert aws._Aws(VARIABLES).identity() == Identity("ASIA1", "s", "t", "eu-west-1")


def test_a_function_without_a_role_says_so(roleless: pytest.MonkeyPatch) -> None:
    with pytest.raises(CredentialMissing, match="no keys at the moment"):
        aws._Aws(VARIABLES).identity()


# --- DynamoDB down ---


def test_without_its_tables_it_forwards_and_says_what_is_lost(own_cloud: Cloud, start: Start) -> None:
    function = start(own_cloud, nowhere("DYNAMODB"))
    answer = function.chat(**ASK_CAPITAL, model="m")
    assert (answer.status, answer.headers["x-lexora-origin"]) == (200, "own")
    request_id = answer.headers["x-request-id"]
    said = [line for line in function.log() if line["level"] == "ERROR"]
    assert [line["message"].partition(": ")[0] for line in said] == [
        "the catalogue of prepared answers cannot be read",
        f"request {request_id}",
        f"record {request_id} is not in DynamoRecords",
    ]
    assert said[1]["message"].startswith(f"request {request_id}: the prepared answers cannot be read: table ")
    assert function.line_of(answer)["outcome"] == "completed"
    file = function.call("GET", "/responses/q1/0.json")
    assert (file.status, file.error_code) == (503, "answers_unavailable")
    assert file.headers["retry-after"] == "2"


def test_what_nobody_expects_is_logged_without_a_stack_trace(own_cloud: Cloud, start: Start) -> None:
    spoilt = {"prompt": {"S": "日本の首都はどこですか？"}, "variant": {"N": "0"}}
    own_cloud.emulator.client("dynamodb").put_item(TableName=own_cloud.answers, Item=spoilt)
    function = start(own_cloud)
    file = function.call("GET", "/responses/q1/0.json")
    assert (file.status, file.error_code) == (500, "internal_error")
    unexpected = function.log()[-1]
    assert list(unexpected) == ["timestamp", "level", "service", "message", "exception", "location"]
    assert unexpected["exception"] == "KeyError"
    assert re.fullmatch(r"(\w+\.py:\d+ > )+dynamodb\.py:\d+", unexpected["location"])
    assert "Traceback" not in function.stdout + function.stderr


# --- only through the edge ---


@pytest.mark.parametrize("name", ["EDGE_SECRET", "in full"])
def test_only_the_edge_may_ask_where_that_is_set(own_cloud: Cloud, start: Start, name: str) -> None:
    own_cloud.put_secret("EDGE_SECRET", "known-to-cloudfront")
    function = start(own_cloud, {"EDGE_SECRET": f"{own_cloud.prefix}EDGE_SECRET" if name == "in full" else name})
    for given in ({}, {"x-lexora-edge": ""}, {"x-lexora-edge": "wrong"}, {"x-lexora-edge": "日本"}):
        for answer in (function.chat(given, **ASK_CAPITAL), function.call("GET", "/v1/models", headers=given)):
            assert (answer.status, answer.error_code) == (403, "host_not_allowed")
    assert function.chat({"X-Lexora-Edge": "known-to-cloudfront"}, **ASK_CAPITAL).status == 200
    assert function.call("GET", "/health", stage=False).status == 403
    assert "known-to-cloudfront" not in function.stdout


def test_nobody_may_ask_while_the_edges_secret_is_not_there(own_cloud: Cloud, start: Start) -> None:
    function = start(own_cloud, {"EDGE_SECRET": "EDGE_SECRET"})
    answer = function.chat({"x-lexora-edge": ""}, **ASK_CAPITAL)
    assert (answer.status, answer.error_code) == (503, "credential_missing")
    assert "Traceback" not in function.stdout + function.stderr


# --- settings ---


@pytest.mark.parametrize(
    ("name", "value"),
    [("ANSWERS_TABLE", None), ("MAX_SECONDS", "soon"), ("MESSAGE_TEXT", "perhaps"), ("RECORD_TTL_DAYS", "1.5")],
)
def test_a_setting_that_is_missing_or_wrong_is_named(own_cloud: Cloud, name: str, value: str | None) -> None:
    env = own_cloud.variables({name: value} if value else None)
    if value is None:
        del env[name]
    command = [sys.executable, "-c", "import lambdas.chat.handler"]
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert name in ended.stderr.splitlines()[-1]


# --- the streaming door ---


@pytest.fixture(scope="module")
def streaming(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with _streaming_door(cloud, tmp_path_factory.mktemp("streaming")) as running:
        yield running


def _streaming_door(
    cloud: Cloud, folder: Path, env: Mapping[str, str] | None = None
) -> AbstractContextManager[RunningGateway]:
    """The command of the function's zip, started as the Lambda Web Adapter does."""
    port = free_port()
    path = f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin"
    variables = cloud.variables({"PATH": path, "AWS_LWA_PORT": str(port), "MAX_SECONDS": "870", **(env or {})})
    variables.pop("LAMBDA_RUNTIME_DIR", None)
    return serving([str(ROOT / "lambdas" / "stream" / "run.sh")], port, folder, env=variables, working_folder=folder)


def test_a_stream_arrives_as_it_comes(streaming: RunningGateway, upstream: RecordedUpstream) -> None:
    go_on = threading.Event()
    last = finish(usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
    upstream.play([STREAM_HEAD, piece(token("one")), Until(go_on), piece(token("two")), piece(last + DONE), STREAM_END])
    with sdk(streaming) as client:
        answer = client.chat.completions.create(model="m", messages=[HELLO], stream=True)  # type: ignore[list-item]
        assert next(answer).choices[0].delta.content == "one"
        go_on.set()
        assert [chunk.choices[0].delta.content for chunk in answer] == ["two", None]


def test_the_sdk_streams_llamacpp_and_prepared_answers(streaming: RunningGateway) -> None:
    with sdk(streaming) as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[HELLO],  # type: ignore[list-item]
            max_tokens=3,
            stream=True,
        )
        assert list(answer)[-1].choices[0].finish_reason == "length"
        prepared = client.chat.completions.create(model="m", **ASK_CAPITAL, stream=True)  # type: ignore[call-overload]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in prepared) in CAPITALS


@IN_BOTH_WAYS
def test_a_record_is_written_before_its_response_ends(
    cloud: Cloud, tmp_path: Path, upstream: RecordedUpstream, streamed: bool
) -> None:
    """After it Lambda may freeze the process. The table is slow here, and both ways of an end wait for it."""
    upstream.play(stream(token("Hi"), finish(), DONE) if streamed else [HELLO_JSON])
    taken = json_response({"UnprocessedItems": {}})
    with (
        recorded_upstream([json_response({})], [Sleep(0.5), taken]) as table,
        _streaming_door(cloud, tmp_path, {"AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{table.port}"}) as gateway,
    ):
        asked_at = time.monotonic()
        response = post(gateway, stream=streamed)
        assert time.monotonic() - asked_at >= 0.5
        assert response.status_code == 200
        assert response.headers["x-request-id"] in table.received[-1].body.decode()


def test_a_request_is_in_the_table_when_its_stream_has_ended(
    streaming: RunningGateway, cloud: Cloud, upstream: RecordedUpstream
) -> None:
    upstream.play(stream(token("Hi"), finish(), DONE))
    response = post(streaming, stream=True)
    assert events(response)[-1] == "[DONE]"
    assert cloud.records()[response.headers["x-request-id"]]["outcome"] == "completed"
    assert streaming.log_line_of(response.headers["x-request-id"])["message"] == "chat_completion"


def test_the_streaming_door_ends_when_it_is_told_to(cloud: Cloud, tmp_path: Path) -> None:
    with _streaming_door(cloud, tmp_path) as gateway:
        post(gateway, model="tiny", max_tokens=1)
        assert gateway.stop(signal.SIGTERM, seconds=3) == 0
        assert gateway.stderr == ""


def test_a_stream_that_is_stopped_with_its_door_is_recorded(
    cloud: Cloud, tmp_path: Path, upstream: RecordedUpstream
) -> None:
    upstream.play([STREAM_HEAD, piece(token("one")), Sleep(float("inf"))])
    with _streaming_door(cloud, tmp_path) as gateway, sdk(gateway) as client:
        answer = client.chat.completions.create(model="m", messages=[HELLO], stream=True)  # type: ignore[list-item]
        next(answer)
        request_id = answer.response.headers["x-request-id"]
        assert gateway.stop(signal.SIGTERM, seconds=aws.SHUTDOWN_SECONDS + 3) == 0
        answer.close()
    assert cloud.records()[request_id]["error_code"] == "shutdown"


# --- who asks, and for how much ---


def make_key(cloud: Cloud, **fields: Any) -> str:
    """A new key, as `make keys` makes it."""
    keys = DynamoKeys(cloud.emulator.client("dynamodb"), cloud.limits)
    new = new_key({"user_id": "ann", **fields})
    _, plain = create(keys, new, time.time(), secrets.token_hex(6), secrets.token_urlsafe(32))
    return plain


def test_a_model_needs_a_key_and_a_prepared_answer_does_not(own_cloud: Cloud, start: Start) -> None:
    function = start(own_cloud, {"AUTH_REQUIRED": "true"})
    assert function.chat(**ASK_CAPITAL).status == 200
    refused = function.chat()
    assert (refused.status, refused.error_code) == (401, "invalid_api_key")
    assert function.chat({"authorization": "Bearer sk-lexora-000000000000-wrong"}).status == 401
    answer = function.chat({"authorization": f"Bearer {make_key(own_cloud)}"})
    assert answer.status == 200
    record = own_cloud.records()[answer.headers["x-request-id"]]
    assert (record["user_id"], len(record["key_id"])) == ("ann", 12)


def test_limits_are_counted_in_the_table(own_cloud: Cloud, start: Start) -> None:
    key = {"authorization": f"Bearer {make_key(own_cloud)}"}
    functions = [start(own_cloud, {"REQUESTS_PER_MINUTE": "3", "TOKENS_PER_MINUTE": "100000"}) for _ in range(2)]
    time.sleep(max(0, 5 - (60 - time.time() % 60)))  # all within a minute
    answers = [functions[n % 2].chat(key, max_tokens=5) for n in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert answers[3].error_code == "rate_limit_exceeded"


@pytest.mark.parametrize("missing", [False, True])
def test_an_answer_is_kept_for_every_copy_of_the_function(
    own_cloud: Cloud, start: Start, upstream: RecordedUpstream, missing: bool
) -> None:
    """Where the table is not, a model is asked each time."""
    price = {"input": 2, "output": 8}
    own_cloud.put_models({"m": vllm(upstream.base_url, origin="paid", price=price)})
    env = {"CACHE_TABLE": "nowhere"} if missing else {}
    functions = [start(own_cloud, env) for _ in range(2)]
    answers = [functions[n].chat(x_cache=True) for n in (0, 1, 1)]
    again = "miss" if missing else "hit"
    assert [answer.headers["x-lexora-cache"] for answer in answers] == ["miss", again, again]
    assert len(upstream.received) == (3 if missing else 1)
    assert ("the cache cannot be read" in functions[1].stdout) == missing
    if not missing:
        assert answers[1].headers["x-lexora-saved-usd"] == "0.000038000"
        assert own_cloud.records()[answers[1].headers["x-request-id"]]["saved_usd"] == 0.000038
        assert '"SavedUsd":[3.8e-05]' in functions[1].stdout


def test_answers_of_all_users_may_be_shared(own_cloud: Cloud, start: Start, upstream: RecordedUpstream) -> None:
    settings = ({}, {"CACHE_PER_USER": "false"}, {"CACHE_BY_REQUEST": "false"})
    for env, states in zip(settings, (["miss", "miss"], ["miss", "hit"], [None, None]), strict=True):
        function = start(own_cloud, env)
        answers = [function.chat(x_cache=True, x_user_id=user) for user in ("ann", "bob")]
        assert [answer.headers.get("x-lexora-cache") for answer in answers] == states
    assert len(upstream.received) == 5


def test_the_longest_answer_that_anthropic_is_asked_for_is_reserved(
    own_cloud: Cloud, start: Start, upstream: RecordedUpstream
) -> None:
    own_cloud.put_models({"m": vllm(upstream.base_url, provider="anthropic", credential=None)})
    refused = start(own_cloud, {"TOKENS_PER_MINUTE": "16000"}).chat()
    assert (refused.status, refused.error_code) == (429, "rate_limit_exceeded")
    assert not upstream.received


def test_a_budget_holds(own_cloud: Cloud, start: Start, upstream: RecordedUpstream) -> None:
    own_cloud.put_models({"m": vllm(upstream.base_url, origin="paid", price={"output": 1000})})
    function = start(own_cloud, {"USD_PER_DAY": "0.008"})  # an answer has 3 tokens, and so costs $0.003
    answers = [function.chat(max_tokens=3) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].error_code == "insufficient_quota"


def test_operators_see_what_became_of_requests(own_cloud: Cloud, start: Start) -> None:
    function = start(own_cloud, {"AUTH_REQUIRED": "true"})
    user, admin = ({"authorization": f"Bearer {make_key(own_cloud, admin=is_admin)}"} for is_admin in (False, True))
    assert function.chat(user).status == 200
    for path in ("/stats", "/admin/keys"):
        assert [function.call("GET", path, headers=headers).status for headers in (None, user, admin)] == [
            401,
            403,
            200,
        ]
    stats = function.call("GET", "/stats", headers=admin).json()
    assert (stats["total_requests"], stats["total_tokens"], stats["users"]["ann"]["requests"]) == (1, 10, 1)
    listed = function.call("GET", "/admin/keys", headers=admin)
    assert "hash" not in listed.body.decode()
    assert function.call("GET", "/metrics", headers=admin).status == 404
    reloaded = function.call("POST", "/admin/reload", "{}", admin)
    assert (reloaded.status, reloaded.json()["status"]) == (200, "reloaded")
