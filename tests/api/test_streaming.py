"""Streams, whole and broken, through a real gateway: what the client is told, and when, and what the record says."""

import json
import threading
import time
from typing import Any

import httpx2
import openai
import pytest

from tests.support.client import RawChat, comments, events, post, sdk, text_of
from tests.support.gateway import RunningGateway
from tests.support.recorded import (
    DONE,
    STREAM_END,
    STREAM_HEAD,
    Action,
    Close,
    RecordedUpstream,
    Reset,
    Sleep,
    Until,
    error_event,
    finish,
    piece,
    recorded,
    stream,
    token,
    usage,
)

FOREVER = Sleep(float("inf"))
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def record_of(gateway: RunningGateway, response: httpx2.Response) -> dict[str, Any]:
    return gateway.record_of(response.headers["x-request-id"])


# --- when ------------------------------------------------------------------------------------------------------------


def test_every_byte_goes_on_as_soon_as_it_has_come(upstream: RecordedUpstream, door: RunningGateway) -> None:
    first, second = threading.Event(), threading.Event()
    upstream.play([STREAM_HEAD, Until(first), piece(token("one")), Until(second), piece(finish() + DONE), STREAM_END])
    with RawChat(door, {"stream": True}) as client:
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-type: text/event-stream; charset=utf-8\r\n" in head
        first.set()
        assert b"one" in client.read_until(b"one")
        assert b"finish_reason" not in client.received.partition(b"one")[2].partition(b"\n\n")[2]
        second.set()
        assert client.read_to_end().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_silence_is_broken_by_a_comment_every_15_seconds(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """At once, as it takes its time: before the upstream's headers, in mid-stream, and where nothing is silent.

    Headers that went out so early name who was asked by then, so a comment says who answers in the end.
    """
    end = threading.Event()
    queued = [Until(end), STREAM_HEAD, piece(token("late")), piece(finish() + DONE), STREAM_END]
    refused = [Until(end), b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"]
    silent = [STREAM_HEAD, piece(token("first")), Until(end), piece(finish() + DONE), STREAM_END]
    lively = [STREAM_HEAD, *[piece(token("tick")), Sleep(4)] * 4, piece(finish() + DONE), STREAM_END]
    upstream.play(queued, refused, silent, lively, refused, stream(token("spare"), finish(), DONE))
    clients = []
    for number, model in enumerate(("m", "m", "m", "m", "pair"), 1):
        clients.append(RawChat(door, {"model": model, "stream": True}))
        upstream.wait_until_received(number)
    started = time.monotonic()
    first, second, third, fourth, fifth = clients
    with first, second, third, fourth, fifth:
        for client in (first, second, third, fifth):
            client.read_until(b": keep-alive\n\n")
            assert time.monotonic() - started > 14.5
        end.set()
        assert text_of(events(body_of(first))) == "late"
        assert text_of(events(body_of(third))) == "first"
        for client in (first, third):
            assert client.received.count(b": keep-alive\n\n") == 1
            assert client.received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        # The headers were out when the upstream refused, so the refusal is an event.
        assert second.read_to_end().startswith(b"HTTP/1.1 200 OK\r\n")
        (error,) = events(body_of(second))
        assert error["error"]["message"] == "The upstream answered with status 503."
        assert b": keep-alive" not in fourth.read_to_end()
        assert text_of(events(body_of(fourth))) == "tick" * 4
        assert b"x-lexora-deployment: first\r\n" in fifth.read_to_end()
        frames = body_of(fifth).decode().split("\n\n")
        assert frames[:2] == [": keep-alive", ": x-lexora-deployment: second"]
        assert text_of(events(body_of(fifth))) == "spare"


def body_of(client: RawChat) -> bytes:
    """The body of a chunked response that has been read to its end."""
    head, _, body = bytes(client.read_to_end()).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            assert body == b"\r\n"
            return whole
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


# --- a true end ------------------------------------------------------------------------------------------------------

ENDS: dict[str, list[Action]] = {
    "as OpenAI ends": stream(token("Hi"), finish(), usage(7, 1), DONE),
    "all in one piece": [STREAM_HEAD, piece(token("Hi") + finish() + usage(7, 1) + DONE), STREAM_END],
    "without [DONE]": stream(token("Hi"), finish(), usage(7, 1)),
    "without [DONE], the connection closed": [STREAM_HEAD, piece(token("Hi") + finish() + usage(7, 1)), Close()],
    "without [DONE], the connection reset": [
        STREAM_HEAD,
        piece(token("Hi") + finish() + usage(7, 1)),
        Sleep(0.1),
        Reset(),
    ],
    "without [DONE], and the response goes on for ever": [
        STREAM_HEAD,
        piece(token("Hi") + finish() + usage(7, 1)),
        FOREVER,
    ],
    "without a finish_reason": stream(token("Hi"), usage(7, 1), DONE),
    "without a blank line at the end": stream(token("Hi"), finish(), usage(7, 1), DONE.rstrip()),
    "usage with the finish_reason": stream(
        token("Hi"), finish(usage={"prompt_tokens": 7, "completion_tokens": 1}), DONE
    ),
    "a body without a length": [
        PLAIN_HEAD + b"\r\n" + token("Hi") + finish() + usage(7, 1) + DONE,
        Close(),
    ],
    "[DONE], and the response goes on for ever": [
        STREAM_HEAD,
        piece(token("Hi") + finish() + usage(7, 1) + DONE),
        FOREVER,
    ],
    "more after [DONE]": stream(token("Hi"), finish(), usage(7, 1), DONE, token("no answer"), error_event("too late")),
}


@pytest.mark.parametrize("ending", ENDS)
def test_done_comes_at_every_true_end(ending: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(ENDS[ending])
    response = post(door, stream=True, model="hasty")
    *chunks, last = events(response)
    assert last == "[DONE]"
    assert "[DONE]" not in chunks
    assert text_of(chunks) == "Hi"
    record = record_of(door, response)
    assert (record["outcome"], record["status"], record["error_code"]) == ("completed", 200, None)
    assert (record["tokens_in"], record["tokens_out"], record["usage_estimated"]) == (7, 1, 0)


@pytest.mark.parametrize("name", ["vllm-stream", "llamacpp-stream", "transformers-stream"])
def test_recorded_streams_arrive_whole(name: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    script = recorded(f"http/{name}.http")
    upstream.play(script)
    response = post(door, stream=True, stream_options={"include_usage": True})
    sent = b"".join(action.partition(b"\r\n")[2] for action in script[1:-1] if isinstance(action, bytes))
    data = [line.removeprefix(b"data: ") for line in sent.split(b"\n") if line.startswith(b"data: {")]
    assert data
    assert events(response) == [*map(json.loads, data), "[DONE]"]
    record = record_of(door, response)
    assert record["outcome"] == "completed"
    assert record["malformed_events"] == 0


SPELLINGS = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR": lambda data: data.replace(b"\n", b"\r"),
    "no space after the colon": lambda data: data.replace(b"data: ", b"data:"),
    "other fields": lambda data: data.replace(b"data: ", b"event: delta\nid: 7\nretry: 10\ndata: "),
    "comments": lambda data: b": ping\n\n:\n\n" + data.replace(b"data: ", b": between\ndata: "),
    "data over several lines": lambda data: data.replace(b', "', b',\ndata: "'),
    "blank lines": lambda data: data.replace(b"\n\n", b"\n\n\n\n"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_events_may_be_written_in_any_way(
    spelling: str, size: int, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    """In every spelling of the standard, and cut anywhere, in the middle of a character too."""
    data = SPELLINGS[spelling](token("日本") + token("🗻!") + finish() + DONE)
    upstream.play([STREAM_HEAD + b"".join(piece(data[i : i + size]) for i in range(0, len(data), size)) + STREAM_END])
    response = post(door, stream=True)
    *chunks, last = events(response)
    assert last == "[DONE]"
    assert text_of(chunks) == "日本🗻!"
    assert comments(response) == []


def test_every_choice_must_have_ended(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(stream(token("a"), token("b", 1), finish(), finish(index=1)))
    assert events(post(door, stream=True, n=2))[-1] == "[DONE]"
    upstream.play(stream(token("a"), token("b", 1), finish()))
    assert events(post(door, stream=True, n=2))[-1]["error"]["code"] == "upstream_broken"


def test_an_upstream_that_hangs_after_done_is_let_go(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """After [DONE] the rest is waited for no longer than for any other piece, and junk not at all."""
    upstream.play([STREAM_HEAD, piece(token("Hi") + finish() + DONE), FOREVER])
    assert events(post(door, stream=True, model="hasty"))[-1] == "[DONE]"
    upstream.wait_until_left()
    junk = piece(b"x" * 60_000)
    upstream.play([STREAM_HEAD, piece(token("Hi") + finish() + DONE), *[junk] * 2000, FOREVER])
    assert events(post(door, stream=True))[-1] == "[DONE]"
    upstream.wait_until_left()


# --- a stream that breaks --------------------------------------------------------------------------------------------

TWO = piece(token("one")) + piece(token("two"))
BREAKS: dict[str, tuple[list[Action], str]] = {
    "closed": ([STREAM_HEAD, TWO, Close()], "upstream_broken"),
    "reset": ([STREAM_HEAD, TWO, Sleep(0.1), Reset()], "upstream_broken"),
    "closed in the middle of an event": ([STREAM_HEAD, TWO, piece(token("three")[:40]), Close()], "upstream_broken"),
    "closed in the middle of a piece": ([STREAM_HEAD, TWO, piece(token("three"))[:40], Close()], "upstream_broken"),
    "ended in order, the answer not": ([STREAM_HEAD, TWO, STREAM_END], "upstream_broken"),
    "a body without a length": ([PLAIN_HEAD + b"\r\n" + token("one") + token("two"), Close()], "upstream_broken"),
    "a body shorter than its length": (
        [PLAIN_HEAD + b"content-length: 99999\r\n\r\n" + token("one") + token("two"), Close()],
        "upstream_broken",
    ),
    "a body as long as its length": (
        [PLAIN_HEAD + b"content-length: %d\r\n\r\n" % len(token("one") * 2) + token("one") + token("two")],
        "upstream_broken",
    ),
    "no HTTP": ([STREAM_HEAD, TWO, b"this is no size of a piece\r\n"], "upstream_broken"),
    "a stall": ([STREAM_HEAD, TWO, FOREVER], "upstream_timeout"),
    "an error": ([STREAM_HEAD, TWO, piece(error_event("Out of memory.", code="oom")), FOREVER], "oom"),
    "an error, then [DONE]": (
        [STREAM_HEAD, TWO, piece(error_event("No.", code=500) + DONE), STREAM_END],
        "upstream_error",
    ),
    "an error in the same piece": (
        [STREAM_HEAD, piece(token("one") + token("two") + error_event("No.")), FOREVER],
        "upstream_error",
    ),
    "an error that is a string": ([STREAM_HEAD, TWO, piece(b'data: {"error": "No."}\n\n'), FOREVER], "upstream_error"),
    "an error after the finish_reason": (
        [STREAM_HEAD, TWO, piece(finish() + error_event("No.")), FOREVER],
        "upstream_error",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_stream_ends_with_an_error_and_never_as_if_complete(
    how: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    script, code = BREAKS[how]
    upstream.play(script)
    response = post(door, stream=True, model="hasty")
    *chunks, last = events(response)
    assert text_of(chunks) == "onetwo"
    assert set(last) == {"error"}
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["error"]["code"] == code
    assert "[DONE]" not in chunks
    record = record_of(door, response)
    assert (record["outcome"], record["error_code"]) == ("failed", code)
    assert record["status"] == (504 if code == "upstream_timeout" else 502)
    assert record["error_message"] == last["error"]["message"]
    assert (record["tokens_in"], record["tokens_out"], record["usage_estimated"]) == (2, 2, 1)
    if any(isinstance(action, Sleep) and action == FOREVER for action in script):
        upstream.wait_until_left()


@pytest.mark.parametrize("how", ["closed", "a stall", "an error"])
def test_the_sdk_raises_what_broke_a_stream(how: str, upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(BREAKS[how][0])
    answer = sdk(door).chat.completions.create(
        model="hasty", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    seen = []
    with pytest.raises(openai.APIError) as caught:
        seen.extend(chunk.choices[0].delta.content for chunk in answer)
    assert seen == ["one", "two"]
    assert caught.value.code == BREAKS[how][1]


def test_vllm_whose_engine_was_killed(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """Recorded: 200, tokens, an error event, [DONE] and a clean end."""
    upstream.play(recorded("http/vllm-engine-killed.http"))
    response = post(door, stream=True)
    *chunks, last = events(response)
    assert last == {
        "error": {
            "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
            "type": "InternalServerError",
            "param": None,
            "code": "upstream_error",
        }
    }
    assert len(chunks) == 167
    record = record_of(door, response)
    assert (record["outcome"], record["status"]) == ("failed", 502)
    assert record["usage_estimated"] == 1
    assert record["tokens_out"] == sum(bool(text_of([chunk])) for chunk in chunks)


def test_an_event_without_an_end_is_given_up(upstream: RecordedUpstream, door: RunningGateway) -> None:
    line = piece(b"data: " + b"x" * 1_000_000)
    upstream.play([STREAM_HEAD, piece(token("one")), *[line] * 100, FOREVER])
    response = post(door, stream=True)
    assert events(response)[-1]["error"]["code"] == "upstream_broken"
    upstream.wait_until_left()
    assert upstream.sent < 60_000_000


@pytest.mark.parametrize(
    "events_of_anthropic",
    [
        pytest.param([], id="cut"),
        pytest.param([b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'], id="error"),
    ],
)
def test_a_broken_stream_of_anthropic(
    events_of_anthropic: list[bytes], upstream: RecordedUpstream, door: RunningGateway
) -> None:
    start = b'{"type":"message_start","message":{"id":"msg_1","model":"claude-1","usage":{"input_tokens":9}}}'
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}'
    upstream.play(stream(*[b"data: " + data + b"\n\n" for data in (start, delta, *events_of_anthropic)]))
    response = post(door, stream=True, model="claude")
    *chunks, last = events(response)
    assert text_of(chunks) == "Hel"
    assert last["error"]["type"] == ("overloaded_error" if events_of_anthropic else "upstream_error")
    record = record_of(door, response)
    assert record["outcome"] == "failed"
    assert record["status"] == (503 if events_of_anthropic else 502)
    assert (record["tokens_in"], record["upstream_model"]) == (9, "claude-1")


# --- malformed events ------------------------------------------------------------------------------------------------

MALFORMED = {
    "no JSON": b"data: {oops\n\n",
    "cut JSON": token("lost")[:-20] + b"\n\n",
    "not an object": b"data: 7\n\n",
    "invalid UTF-8": token("lost").replace(b"lost", b"lo\xffst"),
    "a NUL": b"data: \0\n\n",
    "nested too deeply": b"data: " + b"[" * 50_000 + b"]" * 50_000 + b"\n\n",
    "nested too deeply beside a strange field": b'data: {"choices": 1, "error": '
    + b"[" * 50_000
    + b"]" * 50_000
    + b"}\n\n",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_event_is_left_out_and_the_stream_goes_on(
    kind: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play(stream(token("one"), MALFORMED[kind], token("two"), finish(), usage(7, 2), DONE))
    response = post(door, stream=True)
    *chunks, last = events(response)
    assert last == "[DONE]"
    assert text_of(chunks) == "onetwo"
    assert comments(response) == [": the upstream sent an event that is not JSON; it was left out"]
    record = record_of(door, response)
    assert (record["outcome"], record["malformed_events"], record["tokens_out"]) == ("completed", 1, 2)


def test_the_sdk_reads_on_after_a_malformed_event(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(stream(token("one"), b"data: {oops\n\n", token("two"), finish(), DONE))
    answer = sdk(door).chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == "onetwo"


def test_a_chunk_of_an_unknown_form_is_passed_on(upstream: RecordedUpstream, door: RunningGateway) -> None:
    odd = {"choices": [{"index": "first", "delta": {"content": ["?"]}}], "model": 7}
    upstream.play(stream(b"data: " + json.dumps(odd).encode() + b"\n\n", token("two"), finish(), DONE))
    response = post(door, stream=True)
    assert events(response)[0] == odd
    assert record_of(door, response)["malformed_events"] == 0


# --- usage -----------------------------------------------------------------------------------------------------------

NOTHING_YET = {"usage": None}
WITH_USAGE = {
    "a chunk of its own": stream(token("Hi"), finish(), usage(7, 1), DONE),
    "null until then, as OpenAI sends it": stream(token("Hi", **NOTHING_YET), finish(**NOTHING_YET), usage(7, 1), DONE),
    "in the last chunk": stream(token("Hi"), finish(usage={"prompt_tokens": 7, "completion_tokens": 1}), DONE),
    "in every chunk": stream(
        token("Hi", usage={"prompt_tokens": 7, "completion_tokens": 0}),
        finish(usage={"prompt_tokens": 7, "completion_tokens": 1}),
        usage(7, 1),
        DONE,
    ),
}


@pytest.mark.parametrize("form", WITH_USAGE)
def test_usage_is_obtained_but_not_shown_to_a_client_that_did_not_ask(
    form: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play(WITH_USAGE[form])
    asked: list[dict[str, object] | None] = [None, {}, {"include_usage": False}, {"include_usage": False, "other": 1}]
    responses = [post(door, stream=True, stream_options=options, model="paid") for options in asked]
    sent = [received.json()["stream_options"] for received in upstream.received]
    assert sent == [{**(options or {}), "include_usage": True} for options in asked]
    for response in responses:
        *chunks, last = events(response)
        assert last == "[DONE]"
        assert text_of(chunks) == "Hi"
        assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)
        record = record_of(door, response)
        assert (record["tokens_in"], record["tokens_out"], record["usage_estimated"]) == (7, 1, 0)
        assert record["cost_usd"] == pytest.approx((7 * 2 + 1 * 8) / 1e6)


@pytest.mark.parametrize("form", WITH_USAGE)
def test_usage_is_shown_as_it_came_to_a_client_that_asked(
    form: str, upstream: RecordedUpstream, door: RunningGateway
) -> None:
    upstream.play(WITH_USAGE[form])
    response = post(door, stream=True, stream_options={"include_usage": True})
    body = b"".join(part for part in WITH_USAGE[form][1:-1] if isinstance(part, bytes))
    sent = [json.loads(line.removeprefix(b"data: ")) for line in body.split(b"\n") if line.startswith(b"data: {")]
    assert events(response) == [*sent, "[DONE]"]


def test_where_the_upstream_does_not_count_the_record_says_so(upstream: RecordedUpstream, door: RunningGateway) -> None:
    upstream.play(stream(token("one"), token("two"), token("three"), finish(), DONE))
    record = record_of(door, post(door, stream=True))
    assert (record["tokens_in"], record["tokens_out"], record["usage_estimated"]) == (2, 3, 1)


# --- what kind of stream ---------------------------------------------------------------------------------------------


def test_headers_and_cost_of_a_stream(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """The cost is in the headers where it is known by then; where tokens decide, a comment at the end tells it."""
    upstream.play(stream(token("Hi"), finish(), usage(1000, 50), DONE))
    free = post(door, stream=True)
    assert free.headers["x-lexora-origin"] == "own"
    assert free.headers["x-lexora-deployment"] == "vllm/up"
    assert free.headers["x-lexora-cost-usd"] == "0"
    assert comments(free) == []
    paid = post(door, stream=True, model="paid")
    assert paid.headers["x-lexora-origin"] == "paid"
    assert "x-lexora-cost-usd" not in paid.headers
    assert comments(paid) == [": x-lexora-cost-usd: 0.002400000"]
    assert record_of(door, paid)["cost_usd"] == pytest.approx(0.0024)
    unpriced = post(door, stream=True, model="unpriced")
    assert "x-lexora-cost-usd" not in unpriced.headers
    assert comments(unpriced) == []
    assert record_of(door, unpriced)["cost_usd"] is None


def test_chunks_are_the_upstreams_own_bytes(upstream: RecordedUpstream, door: RunningGateway) -> None:
    odd = b'data: {"choices" :[ {"index":0,"delta":{"content":"\\u0041"},"x":1e400}],"n":0.10000000000000000001}\n\n'
    upstream.play(stream(odd, finish(), DONE))
    assert post(door, stream=True).content.startswith(odd)


def test_the_record_of_a_stream_has_the_time_of_its_first_token(
    upstream: RecordedUpstream, door: RunningGateway
) -> None:
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    upstream.play([STREAM_HEAD, piece(role), Sleep(0.3), piece(token("Hi")), Sleep(0.6), piece(finish()), STREAM_END])
    record = record_of(door, post(door, stream=True))
    assert 300 <= record["ttft_ms"] <= record["duration_ms"] - 300


def test_a_real_stream_says_what_the_plain_answer_says(gateway: RunningGateway) -> None:
    """llama.cpp, by the SDK: text, finish_reason and usage."""
    client = sdk(gateway)
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 20, "temperature": 0}
    plain = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert plain.usage.completion_tokens == 20
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as streamed:
        for _ in streamed:
            answer = streamed.current_completion_snapshot
    assert answer.choices[0].message.content == plain.choices[0].message.content
    assert answer.choices[0].finish_reason == plain.choices[0].finish_reason == "length"
    assert answer.model == plain.model == "tiny-chat"
    assert answer.usage.completion_tokens == 20
    assert answer.usage.prompt_tokens == plain.usage.prompt_tokens


def test_a_real_stream_without_usage_is_counted_all_the_same(gateway: RunningGateway) -> None:
    response = post(gateway, model="tiny", stream=True, max_tokens=20, temperature=0)
    *chunks, last = events(response)
    assert last == "[DONE]"
    assert not any("usage" in chunk for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1
    record = record_of(gateway, response)
    assert (record["tokens_out"], record["usage_estimated"]) == (20, 0)
    assert record["tokens_in"] > 5
