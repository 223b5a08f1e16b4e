"""Whatever upstreams answer with, and what the client is told, through a real gateway."""

import json
from typing import Any

import openai
import pytest

from tests.support.client import HELLO, UPSTREAM_KEY, RawChat, events, post, sdk, text_of
from tests.support.gateway import RunningGateway
from tests.support.in_process import InProcess
from tests.support.recorded import (
    DONE,
    STREAM_HEAD,
    Action,
    Close,
    RecordedUpstream,
    Reset,
    Sleep,
    completion,
    error_event,
    finish,
    json_response,
    piece,
    recorded,
    stream,
    token,
)

FOREVER = Sleep(float("inf"))
IN_BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."


# --- errors that real servers sent ---


@IN_BOTH_WAYS
@pytest.mark.parametrize(
    ("name", "status", "error_type", "param", "code", "message"),
    [
        (
            "vllm-context-too-long",
            400,
            "BadRequestError",
            "input_tokens",
            "context_length_exceeded",
            "This model's max",
        ),
        ("vllm-queue-full", 503, "Service Unavailable", None, "upstream_error", BUSY),
        ("vllm-unknown-route", 404, "upstream_error", None, "upstream_error", "Not Found"),
        ("vllm-unauthorized", 502, "upstream_error", None, "upstream_credential_refused", "The upstream refused the"),
        ("vllm-engine-killed-plain", 502, "InternalServerError", None, "upstream_error", "EngineCore encountered"),
        ("vllm-messages-unknown-model", 404, "NotFoundError", None, "upstream_error", "The model `nope` does not"),
        ("llamacpp-context-too-long", 400, "exceed_context_size_error", None, "context_length_exceeded", "request (15"),
        ("llamacpp-loading", 503, "unavailable_error", None, "upstream_error", "Loading model"),
        ("llamacpp-no-images", 502, "server_error", None, "upstream_error", "image input is not supported"),
        ("transformers-unexpected-field", 422, "upstream_error", None, "upstream_error", "Unexpected fields in the"),
        ("transformers-crashed", 502, "upstream_error", None, "upstream_error", "The upstream answered with status"),
    ],
)
def test_recorded_errors(
    name: str,
    status: int,
    error_type: str,
    param: str | None,
    code: str,
    message: str,
    streamed: bool,
    upstream: RecordedUpstream,
    door: RunningGateway,
) -> None:
    upstream.play(recorded(f"http/{name}.http"))
    response = post(door, stream=streamed)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.pop("message").startswith(message)
    assert error == {"type": error_type, "param": param, "code": code}
    assert response.headers["x-lexora-deployment"] == "vllm/up"
    assert len(upstream.received) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (413, openai.APIStatusError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
@IN_BOTH_WAYS
def test_the_sdk_raises_what_the_upstream_said(
    status: int, kind: type[openai.APIStatusError], streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    said = {"message": "It cannot be.", "type": "a_type", "param": "a_param", "code": "a_code"}
    upstream.play([json_response({"error": said}, f"{status} No", "retry-after: 7\r\n")])
    with pytest.raises(kind) as caught:
        sdk(door).chat.completions.create(model="m", messages=[HELLO], stream=streamed)  # type: ignore[call-overload]
    error = caught.value
    assert (error.status_code, error.type, error.param, error.code) == (status, "a_type", "a_param", "a_code")
    assert error.body == said
    assert error.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("status", "told"), [(302, 502), (402, 502), (408, 504), (418, 502), (500, 502), (504, 504), (529, 503), (201, 502)]
)
def test_a_status_that_is_not_the_clients_affair_is_translated(
    status: int, told: int, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([json_response({"error": {"message": "No."}}, f"{status} No")])
    response = post(door)
    assert (response.status_code, response.json()["error"]["message"]) == (told, "No.")
    record = door.record_of(response.headers["x-request-id"])
    assert (record["outcome"], record["status"], record["error_message"]) == ("failed", told, "No.")
    assert (record["tokens_in"], record["tokens_out"], record["cost_usd"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("wait", "told"), [("7", "7"), ("0.5", "1"), ("Sat, 21 Nov 2020 09:30:11 GMT", "0"), ("soon", None)]
)
@IN_BOTH_WAYS
def test_retry_after_is_handed_on_in_whole_seconds(
    wait: str, told: str | None, streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([json_response(b"", "429 Too Many Requests", f"Retry-After: {wait}\r\n")])
    response = post(door, stream=streamed)
    assert response.status_code == 429
    assert response.headers.get("retry-after") == told


def test_without_a_retry_after_none_is_made_up(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(b"", "503 Service Unavailable")])
    assert "retry-after" not in post(door).headers


# --- the gateway's credential ---

LEAKS: dict[str, tuple[str, object]] = {
    "401": ("401 Unauthorized", {"error": {"message": f"Incorrect API key provided: {UPSTREAM_KEY}"}}),
    "403": ("403 Forbidden", {"detail": f"no {UPSTREAM_KEY}"}),
    "400, in the message": ("400 Bad Request", {"error": {"message": f"a header: Bearer {UPSTREAM_KEY}!"}}),
    "400, in the code": ("400 Bad Request", {"error": {"message": "No.", "code": f"no-{UPSTREAM_KEY}"}}),
    "400, in the type": ("400 Bad Request", {"error": {"message": "No.", "type": f"no-{UPSTREAM_KEY}"}}),
    "400, in the param": ("400 Bad Request", {"error": {"message": "No.", "param": f"no-{UPSTREAM_KEY}"}}),
    "500, no envelope": ("500 Internal Server Error", f"KeyError: {UPSTREAM_KEY}".encode()),
    "an error inside a 200": ("200 OK", {"error": {"message": f"no {UPSTREAM_KEY}"}}),
}


@IN_BOTH_WAYS
@pytest.mark.parametrize("model", ["paid", "claude"])
@pytest.mark.parametrize("where", LEAKS)
def test_a_refused_credential_is_told_of_but_not_told(
    where: str, model: str, streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    status, body = LEAKS[where]
    upstream.play([json_response(body, status)])
    response = post(door, model=model, stream=streamed)
    sent = upstream.received[0].headers
    assert sent["x-api-key" if model == "claude" else "authorization"].endswith(UPSTREAM_KEY)
    assert response.status_code == (400 if status.startswith("400") else 502)
    assert UPSTREAM_KEY not in response.text + str(response.headers)
    if status[:3] in ("401", "403"):
        assert response.json()["error"]["code"] == "upstream_credential_refused"
        assert "check the deployment's `credential`" in response.json()["error"]["message"]


def test_an_error_inside_a_stream_does_not_tell_the_credential(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    error = {"error": {"message": f"expired: {UPSTREAM_KEY}", "code": UPSTREAM_KEY}}
    upstream.play([STREAM_HEAD, piece(token("one") + b"data: " + json.dumps(error).encode() + b"\n\n"), FOREVER])
    response = post(door, model="paid", stream=True)
    assert events(response)[-1]["error"]["message"] == "expired: ***"
    assert UPSTREAM_KEY not in response.text
    request_id = response.headers["x-request-id"]
    assert UPSTREAM_KEY not in json.dumps([door.record_of(request_id), door.log_line_of(request_id)])


def test_a_clients_key_never_reaches_the_upstream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """Nor does any other of its headers; the gateway's own key goes only where it belongs."""
    upstream.play([json_response(completion())])
    client = openai.OpenAI(base_url=f"{door.url}/v1", api_key="sk-of-the-client", max_retries=0)
    for model in ("m", "paid"):
        client.chat.completions.create(model=model, messages=[HELLO], extra_headers={"x-mine": "1", "cookie": "a=b"})  # type: ignore[list-item]
    own, paid = (received.headers for received in upstream.received)
    assert "authorization" not in own
    assert paid["authorization"] == f"Bearer {UPSTREAM_KEY}"
    for headers in (own, paid):
        assert set(headers) <= {
            "host", "content-type", "content-length", "accept-encoding", "user-agent", "x-request-id", "authorization",
        }  # fmt: skip
        assert headers["host"] == f"127.0.0.1:{upstream.port}"
        assert headers["content-type"] == "application/json"


# --- secrets that change ---

SECRET = {"provider": "openai", "credential": "env:KEY"}
UNAUTHORIZED = json_response({"error": {"message": "No."}}, "401 Unauthorized")
BY_SECRET: dict[str, dict[str, Any]] = {
    "credential": SECRET,
    "header": {"headers": {"authorization": "env:KEY"}},
    "both": {**SECRET, "headers": {"x-tunnel": "env:KEY"}},
}


class Vault:
    """Secrets as a store keeps them: `value` is what holds now, and what was looked up is remembered.

    `asked` are the readings, whether each was for a fresh one.
    """

    def __init__(self, value: str) -> None:
        self.value = value
        self.asked: list[bool] = []
        self._known: dict[str, str] = {}

    def __call__(self, reference: str, *, fresh: bool = False) -> str:
        self.asked.append(fresh)
        if fresh or reference not in self._known:
            self._known[reference] = self.value
        return self._known[reference]


@IN_BOTH_WAYS
@pytest.mark.parametrize("where", BY_SECRET)
def test_a_secret_that_is_refused_is_looked_up_again_and_the_call_repeated(
    where: str, streamed: bool, upstream: RecordedUpstream
) -> None:
    answer: list[Action] = stream(token("Hi"), finish(), DONE) if streamed else [json_response(completion("Hi"))]
    vault = Vault("sk-old")
    with InProcess(upstream, credentials=vault, **BY_SECRET[where]) as gateway:
        upstream.play(answer, [UNAUTHORIZED], answer)
        assert post(gateway, stream=streamed).status_code == 200
        vault.value = "sk-new"
        response = post(gateway, stream=streamed)
        assert response.status_code == 200
        assert (text_of(events(response)) if streamed else response.json()) == ("Hi" if streamed else completion("Hi"))
        sent = [received.headers["authorization"].removeprefix("Bearer ") for received in upstream.received]
        assert sent == ["sk-old", "sk-old", "sk-new"]
        assert upstream.received[1].json() == upstream.received[2].json()
        assert vault.asked == [False, True]
        # From then on the new one is known to be the right one.
        assert post(gateway, stream=streamed).status_code == 200
        assert upstream.received[-1].headers["authorization"].endswith("sk-new")
        assert vault.asked == [False, True]
    assert [record.outcome for record in gateway.records] == ["completed"] * 3


@IN_BOTH_WAYS
def test_a_call_is_repeated_once_however_often_the_secret_changes(streamed: bool, upstream: RecordedUpstream) -> None:
    upstream.play([UNAUTHORIZED])
    vault = Vault("sk-0")

    def changing(reference: str, *, fresh: bool = False) -> str:
        vault.value = f"sk-{len(vault.asked)}"
        return vault(reference, fresh=fresh)

    with InProcess(upstream, credentials=changing, **SECRET) as gateway:
        response = post(gateway, stream=streamed)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_credential_refused")
    assert [received.headers["authorization"] for received in upstream.received] == ["Bearer sk-0", "Bearer sk-1"]
    assert vault.asked == [False, True]


@IN_BOTH_WAYS
@pytest.mark.parametrize("fields", [SECRET, {}], ids=["the same secret", "no secret"])
def test_where_there_is_no_other_secret_the_upstream_is_asked_once(
    fields: dict[str, Any], streamed: bool, upstream: RecordedUpstream
) -> None:
    upstream.play([UNAUTHORIZED])
    with InProcess(upstream, credentials=Vault("sk-1"), **fields) as gateway:
        response = post(gateway, stream=streamed)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_credential_refused")
    assert len(upstream.received) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "429 Too Many Requests", "500 Oh"])
def test_another_refusal_does_not_make_the_secret_doubtful(status: str, upstream: RecordedUpstream) -> None:
    upstream.play([json_response({"error": {"message": "No."}}, status)])
    vault = Vault("sk-1")
    with InProcess(upstream, credentials=vault, **SECRET) as gateway:
        assert post(gateway).status_code >= 400
    assert vault.asked == [False]
    assert len(upstream.received) == 1


# --- secrets in headers ---

TUNNEL = {"headers": {"X-Tunnel-Secret": "env:TUNNEL_SECRET", "x-plain": "as it is", "x-env": "env: no reference"}}


@IN_BOTH_WAYS
def test_a_header_may_be_a_secret(streamed: bool, upstream: RecordedUpstream) -> None:
    upstream.play(stream(token("Hi"), finish(), DONE) if streamed else [json_response(completion())])
    asked: list[str] = []

    def credentials(reference: str, *, fresh: bool = False) -> str:
        asked.append(reference)
        return f"value of {reference}"

    with InProcess(upstream, credentials=credentials, **SECRET, **TUNNEL) as gateway:
        assert post(gateway, stream=streamed).status_code == 200
    sent = upstream.received[0].headers
    assert sent["x-tunnel-secret"] == "value of env:TUNNEL_SECRET"
    assert sent["authorization"] == "Bearer value of env:KEY"
    assert (sent["x-plain"], sent["x-env"]) == ("as it is", "env: no reference")
    assert asked == ["env:KEY", "env:TUNNEL_SECRET"]


@IN_BOTH_WAYS
@pytest.mark.parametrize("where", LEAKS)
def test_a_header_that_is_a_secret_is_not_told(where: str, streamed: bool, upstream: RecordedUpstream) -> None:
    status, body = LEAKS[where]
    upstream.play([json_response(body, status)])
    with InProcess(upstream, credentials=Vault(UPSTREAM_KEY), **TUNNEL) as gateway:
        response = post(gateway, stream=streamed)
    assert upstream.received[0].headers["x-tunnel-secret"] == UPSTREAM_KEY
    assert response.status_code >= 400
    assert UPSTREAM_KEY not in response.text + str(response.headers) + str(gateway.records)


def test_an_error_inside_a_stream_does_not_tell_it_either(upstream: RecordedUpstream) -> None:
    upstream.play([STREAM_HEAD, piece(token("one") + error_event(f"expired: {UPSTREAM_KEY}")), FOREVER])
    with InProcess(upstream, credentials=Vault(UPSTREAM_KEY), **TUNNEL) as gateway:
        response = post(gateway, stream=True)
    assert events(response)[-1]["error"]["message"] == "expired: ***"


# --- answers that are none ---

NO_ANSWERS: dict[str, list[Action]] = {
    "HTML": [b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>"],
    "nothing": [json_response(b"")],
    "half of one": [json_response(json.dumps(completion()).encode()[:-30])],
    "no object": [json_response([completion()])],
    "null": [json_response(None)],
    "without choices": [json_response({"id": "x", "object": "chat.completion"})],
    "choices that are no list": [json_response({"choices": {}})],
    "invalid UTF-8": [json_response(json.dumps(completion("here")).encode().replace(b"recorded", b"rec\xffrded"))],
    "nested too deeply": [json_response(b'{"choices": ' + b"[" * 50_000 + b"]" * 50_000 + b"}")],
    "compressed": [json_response(b"\x1f\x8b\x08\x00", headers="content-encoding: gzip\r\n")],
    "no HTTP": [b"220 smtp ready\r\n", FOREVER],
    "closed": [Close()],
    "reset": [Reset()],
    "cut in its headers": [b"HTTP/1.1 200 OK\r\ncontent-type: app", Close()],
    "cut in its body": [json_response(completion())[:-30], Close()],
}


@pytest.mark.parametrize("what", NO_ANSWERS)
def test_an_answer_that_is_none_is_a_502(what: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    responses = []
    for streamed in (False, True):
        upstream.play(NO_ANSWERS[what])
        responses.append(post(door, stream=streamed))
        assert len(upstream.received) == 1
    plain, stream = responses
    assert plain.status_code == 502
    # That HTML is no stream is only known at its end; by then the headers have gone out.
    assert stream.status_code == (200 if what == "HTML" else 502)
    for error in (plain.json(), *(events(stream) if what == "HTML" else [stream.json()])):
        assert (error["error"]["type"], error["error"]["code"]) == ("upstream_error", "upstream_broken")
    for response in responses:
        record = door.record_of(response.headers["x-request-id"])
        assert (record["outcome"], record["status"], record["error_code"]) == ("failed", 502, "upstream_broken")


def test_a_plain_answer_to_a_stream_is_a_502(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())])
    response = post(door, stream=True)
    assert response.status_code == 502
    assert response.json()["error"]["message"] == "The upstream was asked for a stream and did not stream."


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"message": "No.", "code": 400, "type": "BadRequestError"}, 400, "upstream_error"),
        ({"message": "No.", "code": 503}, 503, "upstream_error"),
        ({"message": "No.", "code": "rate_limited", "type": "rate_limit_error"}, 429, "rate_limited"),
        ({"message": "No.", "type": "overloaded_error"}, 503, "upstream_error"),
        ({"message": "No."}, 502, "upstream_error"),
        ("No.", 502, "upstream_error"),
    ],
)
@IN_BOTH_WAYS
def test_an_error_inside_a_200_is_an_error(
    error: object, status: int, code: str, streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([json_response({"error": error})])
    response = post(door, stream=streamed)
    assert response.status_code == status
    assert (response.json()["error"]["message"], response.json()["error"]["code"]) == ("No.", code)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", "", "x"])
def test_the_content_type_of_an_answer_does_not_matter(
    content_type: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    """Servers of many kinds name it in many ways; what the body is, is seen by reading it."""
    body = json.dumps(completion()).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    upstream.play([head + body])
    response = post(door)
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["content-type"] == "application/json"
    upstream.play(
        [
            head.replace(b"application/json", b"text/event-stream").replace(b"content-length", b"x"),
            token("Hi") + finish() + DONE,
            Close(),
        ]
    )
    response = post(door, stream=True)
    assert text_of(events(response)) == "Hi"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"


# --- which deployment ---


@IN_BOTH_WAYS
def test_the_next_deployment_answers_where_the_first_cannot_be_reached(
    streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play(stream(token("Hi"), finish(), DONE) if streamed else [json_response(completion("Hi"))])
    response = post(door, model="spare", stream=streamed)
    assert response.status_code == 200
    assert response.headers["x-lexora-deployment"] == "second"
    record = door.record_of(response.headers["x-request-id"])
    assert (record["deployment"], record["outcome"]) == ("second", "completed")
    assert record["attempts"] in (1, 2)  # it may be known already that the first is down


@IN_BOTH_WAYS
def test_nobody_to_be_reached_is_a_502(streamed: bool, door: RunningGateway) -> None:
    response = post(door, model="dead", stream=streamed)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_unreachable"
    assert door.record_of(response.headers["x-request-id"])["attempts"] == 1


# --- pooled connections ---


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["FIN", "RST"])
@IN_BOTH_WAYS
def test_a_connection_that_the_upstream_closed_costs_no_user_an_error(
    end: Action, streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    answer: list[Action] = stream(token("Hi"), finish(), DONE) if streamed else [json_response(completion("Hi"))]
    upstream.play(answer, [end], answer, [*answer, end], answer)
    for _ in range(4):
        assert post(door, stream=streamed).status_code == 200
    connections = [received.connection for received in upstream.received]
    assert connections == [0, 0, 1, 1, 2]


def test_llamacpp_closes_after_streams_and_nobody_notices(gateway: RunningGateway) -> None:
    """It announces keep-alive and closes: the real one, many times, streams and plain answers in turn."""
    for number in range(40):
        response = post(gateway, model="tiny", stream=number % 3 != 0, max_tokens=2)
        assert response.status_code == 200, response.text
        if number % 3:
            assert events(response)[-1] == "[DONE]"


def test_a_connection_goes_back_to_the_pool_after_a_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(stream(token("Hi"), finish(), DONE))
    for _ in range(3):
        post(door, stream=True)
    assert [received.connection for received in upstream.received] == [0, 0, 0]


def test_an_interim_response_is_not_the_answer(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n", json_response(completion())])
    assert post(door).status_code == 200


def test_a_large_answer(upstream: RecordedUpstream, door: RunningGateway) -> None:
    answer: dict[str, Any] = completion("x" * 20_000_000)
    upstream.play([json_response(answer)])
    assert post(door).json() == answer
    with RawChat(door, {}) as client:
        assert client.read_to_end().count(b"x") > 20_000_000
