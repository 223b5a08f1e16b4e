"""Whatever goes wrong is said in OpenAI's envelope, with a status that means it."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from starlette.types import Message, Receive, Scope, Send

from lexora.api.errors import ErrorLayer
from lexora.core.errors import PayloadTooLarge
from tests.support.client import UPSTREAM_KEY, post, sdk
from tests.support.gateway import RunningGateway
from tests.support.recorded import RecordedUpstream, json_response

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
MOST_BYTES = 10_485  # of `site`


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error in a response, once the envelope has been found complete."""
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert len(response.headers["x-request-id"]) == 32
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    return error


def raw(site: RunningGateway, *pieces: bytes) -> bytes:
    """Everything that comes back for bytes on a connection of their own, until the gateway closes it."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1/chat/completions/",
        "/v1/chat/completions/x",
        "/V1/models",
        "/v1/models/nope",
        "/responses",
        "/responses/q1_capital",
        "/responses/q1_capital/0",
        "/docs/",
        "/%E6%97%A5%E6%9C%AC",
        "/%00%0d%0a%ff",
        "/../../etc/passwd",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_that_there_is_not_is_a_404(web: httpx2.Client, path: str, method: str) -> None:
    response = web.request(method, path)
    if response.status_code == 405:
        assert method != "GET"  # /v1/models/nope may be asked for, but not written
        return
    error = error_of(response)
    assert (response.status_code, error["type"]) == (404, "invalid_request_error")
    assert error["code"] in ("not_found", "model_not_found")


ALLOWED = [
    (CHAT, {"POST"}),
    ("/chat/completions", {"POST"}),
    ("/v1/models", {"GET", "HEAD"}),
    ("/v1/models/chat", {"GET", "HEAD"}),
    ("/responses/q1_capital/0.json", {"GET", "HEAD"}),
    ("/responses/catalogue.json", {"GET", "HEAD"}),
    ("/try/", {"GET", "HEAD"}),
    ("/health", {"GET", "HEAD"}),
    ("/openapi.json", {"GET", "HEAD"}),
    ("/docs", {"GET", "HEAD"}),
    ("/", {"GET", "HEAD"}),
]


@pytest.mark.parametrize(("path", "allowed"), ALLOWED)
def test_a_method_that_a_path_does_not_take_is_a_405(web: httpx2.Client, path: str, allowed: set[str]) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
        response = web.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == allowed | {"OPTIONS"}
        if method != "HEAD":
            error = error_of(response)
            assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_allowed")
            assert method in error["message"]


@pytest.mark.parametrize(("path", "allowed"), ALLOWED)
def test_options_says_what_a_path_takes(web: httpx2.Client, path: str, allowed: set[str]) -> None:
    response = web.options(path)
    assert response.status_code == 200
    assert set(response.json()["allow"]) == allowed | {"OPTIONS"}
    assert response.headers["allow"].split(", ") == response.json()["allow"]
    assert not any(name.startswith("access-control") for name in response.headers) or path.startswith(
        ("/responses/", "/try/")
    )


def test_options_for_a_path_that_there_is_not(web: httpx2.Client) -> None:
    assert error_of(web.options("/nothing"))["code"] == "not_found"


@pytest.mark.parametrize(
    "path", [path for path, allowed in ALLOWED if "HEAD" in allowed] + ["/nothing", "/v1/models/nope"]
)
def test_head_is_get_without_the_body(web: httpx2.Client, path: str) -> None:
    get, head = web.get(path), web.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    varying = {"date", "x-request-id"}
    if path in ("/health", "/nothing"):  # the uptime; the method in the message
        varying.add("content-length")
    assert {name: value for name, value in head.headers.items() if name not in varying} == {
        name: value for name, value in get.headers.items() if name not in varying
    }
    # The connection is in order for what comes next.
    assert web.get("/health").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonl"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_a_body_that_is_not_json_by_its_type_is_a_415(web: httpx2.Client, headers: dict[str, str]) -> None:
    """A browser sends these to other sites without asking first."""
    response = web.post(CHAT, content=b'{"messages": [{"role": "user", "content": "Hello"}]}', headers=headers)
    assert response.status_code == 415
    assert error_of(response)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON ; charset=utf-8"])
def test_a_body_that_is_json_by_its_type_is_read(web: httpx2.Client, content_type: str) -> None:
    assert web.post(CHAT, content=b"{}", headers={"content-type": content_type}).status_code == 400


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_json"),
        (b"{", None, "invalid_json"),
        (b"[1]", None, "invalid_value"),
        (b'{"a":' * 1000 + b"1" + b"}" * 1000, None, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', None, "invalid_utf8"),
        (b"{}", "messages", "missing_required_field"),
        (b'{"messages": []}', "messages", "invalid_value"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "messages[0].content", "invalid_value"),
        (b'{"messages": [{"role": "user", "content": "a"}], "model": 5}', "model", "invalid_value"),
        (b'{"messages": [{"role": "user", "content": "a"}], "stream": "yes"}', "stream", "invalid_value"),
        (b'{"messages": [{"role": "user", "content": "a"}], "n": 0}', "n", "invalid_value"),
        (b'{"messages": [{"role": "user", "content": "a"}], "x_timeout": -1}', "x_timeout", "invalid_value"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/chat/completions"])
def test_a_request_that_cannot_be_understood_is_a_400_that_names_the_field(
    web: httpx2.Client, path: str, body: bytes, param: str | None, code: str
) -> None:
    response = web.post(path, content=body, headers=JSON)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code)
    assert param is None or f"'{param}'" in error["message"]


def test_a_priority_that_there_is_not_is_told_which_there_are(web: httpx2.Client) -> None:
    body = b'{"messages": [{"role": "user", "content": "a"}], "x_priority": "urgent"}'
    error = error_of(web.post(CHAT, content=body, headers=JSON))
    assert error["param"] == "x_priority"
    assert error["message"].endswith("'urgent'; send high, normal, low or leave it out.")


def test_a_failed_request_leaves_a_record_and_an_llm_error(site: RunningGateway, web: httpx2.Client) -> None:
    response = web.post(CHAT, content=b"{}", headers=JSON)
    request_id = response.headers["x-request-id"]
    record = site.record_of(request_id)
    assert (record["outcome"], record["status"]) == ("failed", 400)
    assert (record["error_code"], record["error_message"]) == (
        "missing_required_field",
        "The field 'messages' is required.",
    )
    line = site.log_line_of(request_id)
    assert (line["message"], line["level"], line["status"]) == ("llm_error", "WARNING", 400)


def test_the_sdk_raises_what_the_envelope_says(site: RunningGateway) -> None:
    with sdk(site) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="chat", messages=[])
        assert (bad.value.param, bad.value.type) == ("messages", "invalid_request_error")
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "Hello"}])
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        assert "gpt-4o-mini" in str(missing.value)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nope")
        with pytest.raises(openai.APIStatusError) as large:
            client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "a" * 20_000}])
        assert (large.value.status_code, large.value.code) == (413, "payload_too_large")
        with pytest.raises(openai.InternalServerError) as unreachable:
            client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hello"}])
        assert (unreachable.value.status_code, unreachable.value.code) == (502, "upstream_unreachable")


def chat_of(size: int) -> bytes:
    """A request of so many bytes."""
    frame = b'{"model": "nope", "messages": [{"role": "user", "content": "%b"}]}'
    return frame % (b"a" * (size - len(frame) + 2))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not(web: httpx2.Client, chunked: bool) -> None:
    def pieces(body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    for size, status in ((MOST_BYTES, 404), (MOST_BYTES + 1, 413)):
        body = chat_of(size)
        assert len(body) == size
        response = web.post(CHAT, content=pieces(body) if chunked else body, headers=JSON)
        assert response.status_code == status
        error = error_of(response)
        assert error["code"] == ("payload_too_large" if status == 413 else "model_not_found")
        if status == 413:
            assert f"{MOST_BYTES:,} bytes" in error["message"]
            assert response.headers["connection"] == "close"


def test_a_body_far_beyond_the_limit_gets_its_413_all_the_same(web: httpx2.Client) -> None:
    for _ in range(3):
        assert error_of(web.post(CHAT, content=chat_of(20_000_000), headers=JSON))["code"] == "payload_too_large"


def test_the_413_comes_before_the_body(site: RunningGateway) -> None:
    """An announced length is enough; of chunks, the one that goes too far."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    assert raw(site, head + b"content-length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    asked = raw(site, head + b"expect: 100-continue\r\ncontent-length: 20000\r\n\r\n")
    assert asked.startswith(b"HTTP/1.1 413 ")
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    assert raw(site, head + b"transfer-encoding: chunked\r\n\r\n", chunk, chunk).startswith(b"HTTP/1.1 413 ")


def test_the_limit_leaves_a_record(site: RunningGateway, web: httpx2.Client) -> None:
    response = web.post(CHAT, content=chat_of(20_000), headers=JSON)
    assert site.record_of(response.headers["x-request-id"])["error_code"] == "payload_too_large"


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"BREW /coffee HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xe6\x97\xa5 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http_is_a_400_in_the_same_envelope(site: RunningGateway, data: bytes) -> None:
    head, _, body = raw(site, data).partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert b"content-type: application/json" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_number_that_is_no_number_is_no_error_of_ours(web: httpx2.Client) -> None:
    for number in ("1" * 5000, "-1", "٣", "1e3", "00"):
        assert error_of(web.get(f"/responses/q1_capital/{number}.json"))["code"] == "not_found"


def test_a_credential_that_an_upstream_repeats_goes_no_further(
    door: RunningGateway, upstream: RecordedUpstream
) -> None:
    for status, body in (
        ("401 Unauthorized", {"error": {"message": f"Incorrect API key provided: {UPSTREAM_KEY}"}}),
        ("400 Bad Request", {"error": {"message": f"Unknown header authorization: Bearer {UPSTREAM_KEY}"}}),
        ("500 Internal Server Error", {"detail": f"KeyError {UPSTREAM_KEY}"}),
    ):
        upstream.play([json_response(body, status)])
        response = post(door, model="paid")
        request_id = response.headers["x-request-id"]
        assert response.status_code in (400, 502)
        assert UPSTREAM_KEY not in response.text
        assert UPSTREAM_KEY not in json.dumps([door.record_of(request_id), door.log_line_of(request_id)])


def _through_the_layer(app: Any) -> tuple[list[Message], Scope]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope: Scope = {"type": "http", "method": "GET", "path": "/health", "headers": []}
    asyncio.run(ErrorLayer(app)(scope, receive, send))
    return sent, scope


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("the password is hunter2"), 500, "internal_error"),
        (KeyError("hunter2"), 500, "internal_error"),
        (PayloadTooLarge("Too large."), 413, "payload_too_large"),
    ],
)
def test_an_error_that_nobody_expected_is_a_500_that_tells_nothing(
    error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    (start, body), _ = _through_the_layer(app)
    assert start["status"] == status
    assert json.loads(body["body"])["error"]["code"] == code
    assert b"hunter2" not in body["body"]
    assert ("unexpected error at GET /health" in caplog.text) == (status == 500)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "127.0.0.1.evil.example"])
def test_a_name_that_was_made_to_point_here_is_refused(site: RunningGateway, host: str) -> None:
    """DNS rebinding: for the browser such a page and the gateway are one site, so CORS would not stop it."""
    refused = httpx2.get(f"{site.url}/v1/models", headers={"host": host})
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "host_not_allowed"
    for own in ("localhost", "localhost:9", "127.0.0.1:9", "[::1]:9"):
        assert httpx2.get(f"{site.url}/v1/models", headers={"host": own}).status_code == 200


def test_every_method_of_a_path_is_named(web: httpx2.Client) -> None:
    assert web.options("/admin/keys").headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert web.options("/admin/keys/x").headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert web.put("/admin/keys").status_code == 405
