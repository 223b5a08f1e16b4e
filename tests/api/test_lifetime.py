"""How long a request lives: clients that leave, deadlines, and clients that read slowly, through a real gateway."""

import json
import socket
import time

import openai
import psutil
import pytest

from lexora.api import chat
from lexora.entry import server
from tests.support.client import HELLO, RawChat, chat_body, events, post, sdk, text_of
from tests.support.gateway import RunningGateway
from tests.support.in_process import InProcess
from tests.support.recorded import (
    DONE,
    STREAM_END,
    STREAM_HEAD,
    Action,
    RecordedUpstream,
    Sleep,
    completion,
    finish,
    json_response,
    piece,
    stream,
    token,
    wait_until,
)

FOREVER = Sleep(float("inf"))
# Streams, and plain answers, that never come to their end; and what the client has of them before it leaves.
UNFINISHED: dict[str, tuple[bool, list[Action], bytes]] = {
    "stream before its headers": (True, [FOREVER], b""),
    "stream before its first token": (True, [STREAM_HEAD, FOREVER], b"\r\n\r\n"),
    "stream in the middle": (True, [STREAM_HEAD, piece(token("one")), FOREVER], b"one"),
    "plain before its headers": (False, [FOREVER], b""),
    "plain in the middle": (False, [json_response(completion())[:-20], FOREVER], b""),
}


@pytest.mark.parametrize("what", UNFINISHED)
@pytest.mark.parametrize("moment", ["at once", "later"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_client_that_leaves_frees_the_upstream_within_100_ms(
    what: str, moment: str, reset: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    streamed, script, seen = UNFINISHED[what]
    for attempt in (1, 2):  # once more, should the machine have been busy with something else
        upstream.play(script)
        user = f"{what} {moment} {reset} {attempt}"
        with RawChat(door, {"stream": streamed, "x_user_id": user}) as client:
            upstream.wait_until_received()
            client.read_until(seen)
            if moment == "later":
                time.sleep(0.15)  # long enough to be watched
            left = client.leave(reset=reset)
        took = upstream.wait_until_left() - left
        if took < 0.1:
            break
    else:
        pytest.fail(f"the upstream was let go after {took:.3f} s")
    record = record_of_user(door, user)
    assert (record["outcome"], record["status"], record["error_code"]) == ("client_left", 499, None)
    # What it had of the answer counts: somebody will be asked to pay for it.
    assert (record["tokens_in"], record["usage_estimated"]) == (2, 1)
    assert record["tokens_out"] == (1 if seen == b"one" else 0)


def record_of_user(gateway: RunningGateway, user: str) -> dict[str, object]:
    found: list[dict[str, object]] = []

    def written() -> bool:
        found[:] = [record for record in gateway.records() if record["user_id"] == user]
        return bool(found)

    wait_until(written, f"the record of {user}")
    (record,) = found
    return record


def test_the_sdk_closes_a_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([STREAM_HEAD, piece(token("one")), FOREVER])
    with sdk(door).chat.completions.create(model="m", messages=[HELLO], stream=True) as answer:  # type: ignore[list-item]
        assert next(iter(answer)).choices[0].delta.content == "one"
    upstream.wait_until_left()


def test_a_client_that_leaves_while_it_does_not_read(upstream: RecordedUpstream, door: RunningGateway) -> None:
    big = piece(token("x" * 50_000))
    for _attempt in (1, 2):
        upstream.play([STREAM_HEAD, *[big] * 4000, FOREVER])
        with RawChat(door, {"stream": True}, receive_buffer=4096) as client:
            client.read_until(b"\r\n\r\n")
            wait_until_it_stands(upstream)
            left = client.leave()
        took = upstream.wait_until_left() - left
        if took < 0.1:
            break
    assert took < 0.1


def test_a_client_that_leaves_in_the_middle_of_its_request(upstream: RecordedUpstream, door: RunningGateway) -> None:
    started = time.time()
    with socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b'content-length: 1000\r\n\r\n{"model": "m"'
        )
        port = client.getsockname()[1]
        wait_until(lambda: port in {at.raddr.port for at in door.sockets()}, "the gateway to take the connection")
    wait_until(lambda: door.records()[-1]["created_at"] >= started, "a record")
    record = door.records()[-1]
    assert (record["outcome"], record["status"], record["attempts"]) == ("client_left", 499, 0)
    assert upstream.received == []


def test_a_client_that_left_does_not_disturb_the_next(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """The connection to the upstream was in use, so it is closed and not used again."""
    upstream.play([STREAM_HEAD, piece(token("one")), FOREVER], stream(token("two"), finish(), DONE))
    with RawChat(door, {"stream": True}) as client:
        client.read_until(b"one")
    upstream.wait_until_left()
    assert text_of(events(post(door, stream=True))) == "two"
    first, second = (received.connection for received in upstream.received)
    assert first != second


# --- deadlines ---


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"model": "m", "x_timeout": 0.3}, id="of the request"),
        pytest.param({"model": "brief"}, id="of the deployment"),
        pytest.param({"model": "brief", "x_timeout": 0.3}, id="of both, the request's is shorter"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_a_deadline_before_the_answer_begins(
    fields: dict[str, object], streamed: bool, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([FOREVER])
    response = post(door, stream=streamed, **fields)
    assert response.status_code == 504
    seconds = fields.get("x_timeout", 0.5)
    assert response.json() == {
        "error": {
            "message": f"The answer was not complete within the request's {seconds:g} s.",
            "type": "timeout_error",
            "param": None,
            "code": "deadline_exceeded",
        }
    }
    assert response.headers["x-lexora-deployment"] == "vllm/up"
    upstream.wait_until_left()
    record = door.record_of(response.headers["x-request-id"])
    assert (record["outcome"], record["status"], record["error_code"]) == ("failed", 504, "deadline_exceeded")
    assert record["duration_ms"] >= 990 * seconds  # type: ignore[operator]


def test_a_deadline_in_the_middle_of_a_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """However lively the stream is: it is about the whole answer."""
    upstream.play([STREAM_HEAD, *[piece(token("tick")), Sleep(0.02)] * 1000])
    response = post(door, stream=True, x_timeout=0.4)
    *chunks, last = events(response)
    assert last["error"]["code"] == "deadline_exceeded"
    assert "[DONE]" not in chunks
    assert set(text_of(chunks).split("tick")) == {""}
    upstream.wait_until_left()
    record = door.record_of(response.headers["x-request-id"])
    assert (record["outcome"], record["status"]) == ("failed", 504)
    assert 0 < record["tokens_out"] == len(chunks)
    assert record["usage_estimated"] == 1


def test_a_deadline_in_the_middle_of_a_plain_answer(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())[:-20], FOREVER])
    response = post(door, x_timeout=0.3)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    upstream.wait_until_left()


def test_a_request_may_take_longer_than_its_deployment_allows_if_it_says_so(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play([Sleep(0.8), json_response(completion())])
    assert post(door, model="brief", x_timeout=20).status_code == 200


@pytest.mark.parametrize("x_timeout", [None, 20, 0.2])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_no_deadline_is_later_than_the_longest(
    x_timeout: float | None, streamed: bool, upstream: RecordedUpstream
) -> None:
    """Whatever the request and the deployment (600 s) say: some doors close by themselves."""
    upstream.play([FOREVER])
    with InProcess(upstream, max_seconds=0.4) as gateway:
        response = post(gateway, stream=streamed, x_timeout=x_timeout)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    seconds = 0.2 if x_timeout == 0.2 else 0.4
    assert f"within the request's {seconds:g} s" in response.json()["error"]["message"]
    assert 990 * seconds <= gateway.records[0].duration_ms < 1000 * seconds + 500
    upstream.wait_until_left()


def test_the_longest_deadline_of_a_plain_answer_may_be_earlier(upstream: RecordedUpstream) -> None:
    upstream.play([Sleep(0.6), json_response(completion())], [Sleep(0.6), STREAM_HEAD, piece(token("late")), DONE])
    with InProcess(upstream, max_seconds=20, max_plain_seconds=0.3) as gateway:
        assert post(gateway).json()["error"]["code"] == "deadline_exceeded"
        upstream.wait_until_left()
        assert text_of(events(post(gateway, stream=True))[:-1]) == "late"


def test_a_stream_ends_with_the_longest_deadline_too(upstream: RecordedUpstream) -> None:
    upstream.play([STREAM_HEAD, *[piece(token("tick")), Sleep(0.02)] * 1000])
    with InProcess(upstream, max_seconds=0.4) as gateway:
        *chunks, last = events(post(gateway, stream=True, x_timeout=20))
    assert last["error"]["code"] == "deadline_exceeded"
    assert set(text_of(chunks).split("tick")) == {""}


def test_the_sdk_sees_the_deadline(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([FOREVER])
    with pytest.raises(openai.InternalServerError) as caught:
        sdk(door).chat.completions.create(
            model="m",
            messages=[HELLO],  # type: ignore[list-item]
            extra_body={"x_timeout": 0.2},
        )
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")


@pytest.mark.parametrize("seconds", [0, -1, 100_000, "5", True])
def test_a_timeout_that_is_none_is_refused(seconds: object, upstream: RecordedUpstream, door: RunningGateway) -> None:
    response = post(door, x_timeout=seconds)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x_timeout"
    assert upstream.received == []


# --- slow readers ---


def wait_until_it_stands(upstream: RecordedUpstream) -> int:
    """Waits until the upstream cannot send any more, and says how much it has sent."""
    sent = -1
    while sent != upstream.sent or not sent:
        sent = upstream.sent
        time.sleep(0.2)
    return sent


def test_a_slow_reader_slows_its_upstream_down_and_costs_no_memory(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    event = token("x" * 50_000)
    count = 2000
    upstream.play([STREAM_HEAD, *[piece(event)] * count, piece(finish() + DONE), STREAM_END])
    process = psutil.Process(door.process.pid)
    before = process.memory_info().rss
    # The silence is our client's, not the upstream's: `hasty` must not take it for a stall.
    with RawChat(door, {"stream": True, "model": "hasty"}, receive_buffer=4096) as client:
        client.read_until(b"\r\n\r\n")
        stood_at = wait_until_it_stands(upstream)
        time.sleep(1)
        assert upstream.sent == stood_at
        assert stood_at < count * len(event) / 4
        assert process.memory_info().rss - before < 10_000_000
        # Others are not held up by it.
        assert post(door, model="nobody").status_code == 404
        answer = client.read_to_end()
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert answer.count(b"x" * 50_000) == count
    assert process.memory_info().rss - before < 20_000_000


def test_a_client_that_reads_nothing_is_cut_off(upstream: RecordedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the deadline the upstream is freed; the client gets some seconds to take what is left, then it is cut."""
    monkeypatch.setattr(chat, "LAST_WORD_SECONDS", 0.2)
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.2)
    upstream.play([STREAM_HEAD, *[piece(token("x" * 50_000))] * 2000, FOREVER])
    with (
        InProcess(upstream) as gateway,
        RawChat(gateway, {"stream": True, "x_timeout": 0.5}, receive_buffer=4096) as client,
    ):
        client.read_until(b"\r\n\r\n")
        assert client.port in gateway.connections()
        upstream.wait_until_left()
        wait_until(lambda: client.port not in gateway.connections(), "the end of the connection")
        (record,) = gateway.records
        assert (record.outcome, record.error_code) == ("failed", "deadline_exceeded")


def test_a_client_that_reads_slowly_is_not_cut_off(upstream: RecordedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain answer is given to the connection at once; the client may take its time as long as it takes."""
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.5)
    upstream.play([json_response(completion("x" * 20_000_000))])
    with InProcess(upstream) as gateway, RawChat(gateway, {}) as client:
        while client.read_some():
            time.sleep(0.02)
        assert client.received.count(b"x") >= 20_000_000


def test_a_slow_writer_is_waited_for(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play([json_response(completion())])
    body = json.dumps(chat_body()).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", door.port)) as client:
        for position, byte in enumerate(head % len(body) + body):
            client.sendall(bytes([byte]))
            if position % 50 == 0:
                time.sleep(0.01)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
