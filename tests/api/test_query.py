"""/api/v1/llm: one prompt in, one text out, errors as `{"detail": …}`."""

from typing import Any

import httpx2
import pytest

from tests.support.client import RawChat
from tests.support.gateway import RunningGateway
from tests.support.in_process import KNOWN_PROMPT
from tests.support.recorded import RecordedUpstream, Sleep, completion, json_response

QUERY = "/api/v1/llm/query"


def ask(gateway: RunningGateway, body: Any = None, **fields: Any) -> httpx2.Response:
    body = {"model": "m", "prompt": "Hello", **fields} if body is None else body
    return httpx2.post(f"{gateway.url}{QUERY}", json=body, timeout=30)


def test_a_real_query(gateway: RunningGateway) -> None:
    response = ask(gateway, model="tiny", max_tokens=5)
    assert response.status_code == 200
    answer = response.json()
    assert answer.keys() == {"model", "text", "usage"}
    assert answer["model"] == "tiny"
    assert answer["text"]
    assert answer["usage"]["completion_tokens"] == 5
    record = gateway.record_of(response.headers["x-request-id"])
    assert (record["endpoint"], record["tokens_out"], record["outcome"]) == ("llm.query", 5, "completed")


def test_what_arrives_upstream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion("Hi."))])
    for fields, limit in (({}, 100), ({"max_tokens": 7}, 7)):
        response = ask(door, **fields, x_user_id="u", other=1)
        assert response.json() == {"model": "m", "text": "Hi.", "usage": completion()["usage"]}
        message = {"role": "user", "content": "Hello"}
        sent = upstream.received[-1].json()
        assert sent == {"model": "up", "messages": [message], "max_completion_tokens": limit}
    assert door.record_of(response.headers["x-request-id"])["user_id"] == "u"


def test_a_prepared_answer(upstream: RecordedUpstream, door: RunningGateway) -> None:
    response = ask(door, prompt=KNOWN_PROMPT)
    assert response.headers["x-lexora-origin"] == "fixed"
    assert "東京" in response.json()["text"]
    assert not upstream.received


def test_a_refusal_is_the_text(upstream: RecordedUpstream, door: RunningGateway) -> None:
    refusal = {"index": 0, "message": {"role": "assistant", "content": None, "refusal": "No."}, "finish_reason": "stop"}
    upstream.play([json_response({**completion(), "choices": [refusal], "usage": None})])
    assert ask(door).json() == {"model": "m", "text": "No.", "usage": {}}


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, [("missing", ["body", "model"]), ("missing", ["body", "prompt"])]),
        ({"model": 1, "prompt": "a"}, [("string_type", ["body", "model"])]),
        ({"model": "m", "prompt": None}, [("string_type", ["body", "prompt"])]),
        ({"model": "m", "prompt": "a", "max_tokens": "x"}, [("int_parsing", ["body", "max_tokens"])]),
        ([], [("model_type", ["body"])]),
    ],
)
def test_what_is_wrong_with_a_query(body: Any, problems: list[tuple[str, list[str]]], door: RunningGateway) -> None:
    response = ask(door, body)
    assert response.status_code == 422
    assert response.json().keys() == {"detail"}
    detail = response.json()["detail"]
    assert [(each["type"], each["loc"]) for each in detail] == problems
    assert all(each["msg"] and "input" in each for each in detail)
    record = door.record_of(response.headers["x-request-id"])
    assert (record["status"], record["error_code"]) == (422, "validation_error")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"model": NaN}'])
def test_a_body_that_is_no_json(content: bytes, door: RunningGateway) -> None:
    headers = {"content-type": "application/json"}
    response = httpx2.post(f"{door.url}{QUERY}", content=content, headers=headers, timeout=30)
    (problem,) = response.json()["detail"]
    assert (response.status_code, problem["type"], problem["loc"]) == (422, "json_invalid", ["body"])
    assert len(response.content) < 1000


def test_other_errors_have_one_detail(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response({"error": {"message": "too hot"}}, "400 Bad Request")])
    refused = ask(door)
    assert (refused.status_code, refused.json()) == (400, {"detail": "too hot"})
    unknown = ask(door, model="nope")
    assert unknown.status_code == 404
    assert unknown.json()["detail"].startswith("The model 'nope' does not exist here.")
    upstream.play([json_response({**completion(), "choices": []})])
    broken = ask(door)
    assert (broken.status_code, broken.json()) == (502, {"detail": "The upstream's answer holds no text."})
    assert httpx2.get(f"{door.url}{QUERY}").json()["detail"].startswith(f"{QUERY} does not take GET")
    assert httpx2.get(f"{door.url}/api/v1/llm/nothing").json().keys() == {"detail"}
    late = ask(door, x_timeout=-1)
    assert (late.status_code, "x_timeout" in late.json()["detail"]) == (400, True)


def test_the_wrong_content_type_and_a_body_that_is_too_large(web: httpx2.Client) -> None:
    assert web.post(QUERY, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    large = web.post(QUERY, json={"model": "chat", "prompt": "a" * 20_000})
    assert (large.status_code, large.json().keys()) == (413, {"detail"})


def test_a_client_that_leaves(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([Sleep(float("inf"))])
    with RawChat(door, {"prompt": "a"}, path=QUERY.encode()) as client:
        upstream.wait_until_received()
        client.leave()
        upstream.wait_until_left()


def test_the_models(web: httpx2.Client) -> None:
    response = web.get("/api/v1/llm/models")
    assert (response.status_code, response.json()) == (200, ["chat", "gpt-4o-mini", "日本語", "org/chat"])
