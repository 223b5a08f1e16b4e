"""The OpenAI dialect, on what vLLM, llama.cpp and transformers sent.

`tests/recorded/openai` holds bodies as they came from real servers with a tiny model.
"""

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from lexora.core.chat import parse_chat_request
from lexora.core.errors import InvalidRequest, UpstreamBroken, UpstreamRefused
from lexora.core.usage import Usage
from lexora.providers.dialect import MalformedEvent
from lexora.providers.openai import OpenAIChunkReader, OpenAIDialect
from lexora.providers.sse import EventDecoder
from lexora.providers.table import PROVIDERS
from tests.support.recorded import RECORDED

DIALECT = OpenAIDialect()
STREAMS = sorted(path.name for path in (RECORDED / "openai").glob("*.sse"))
HELLO = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "look"}}
COUNTED = {"stream_options": {"include_usage": True}}


def request(**fields: Any) -> Any:
    return parse_chat_request(json.dumps({"messages": [HELLO], **fields}).encode())


def reader(**fields: Any) -> OpenAIChunkReader:
    return DIALECT.chunk_reader(request(stream=True, **fields))


def recorded_events(name: str) -> list[bytes]:
    decoder = EventDecoder()
    return decoder.feed((RECORDED / "openai" / name).read_bytes()) + decoder.finish()


def chunk(**fields: Any) -> bytes:
    return json.dumps({"object": "chat.completion.chunk", **fields}).encode()


def text_chunk(text: str | None = "a", finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    return chunk(choices=[{"index": index, "delta": {"content": text}, "finish_reason": finish}], **fields)


def sent(**fields: Any) -> dict[str, Any]:
    path, body, _ = DIALECT.chat_request(request(**fields), "up")
    assert path == "/chat/completions"
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_credential_becomes_a_bearer_token() -> None:
    assert DIALECT.headers("sk-1") == {"authorization": "Bearer sk-1"}
    assert DIALECT.headers(None) == {}


def test_a_plain_request_gets_the_upstreams_model_and_nothing_else() -> None:
    odd = {"top_k": 5, "big": 10**30, "nested": {"日本": [1.5, None, True]}}
    assert sent(model="public", x_priority="high", **odd) == {"messages": [HELLO], "model": "up", **odd}
    assert sent() == {"messages": [HELLO], "model": "up"}


def test_the_clients_bytes_go_out_as_they_came() -> None:
    messages = b'[ {"role":"user","content":"\\u65e5"} ]'
    odd = parse_chat_request(b'{"messages": %b, "temperature": 1.0e-1, "model": "a"}' % messages)
    body = DIALECT.chat_request(odd, "up").body
    assert messages in body
    assert b"1.0e-1" in body


@pytest.mark.parametrize("provider", ["ollama", "mistral", "deepseek", "huggingface", "together", "nvidia"])
def test_who_knows_the_limit_by_its_older_name_is_told_it_by_that(provider: str) -> None:
    dialect = PROVIDERS[provider].dialect
    for fields in ({"max_completion_tokens": 5}, {"max_tokens": 5}, {"max_tokens": 6, "max_completion_tokens": 5}):
        body = json.loads(dialect.chat_request(request(**fields), "up").body)
        assert body == {"messages": [HELLO], "model": "up", "max_tokens": 5}
    assert "max_completion_tokens" in json.loads(DIALECT.chat_request(request(max_completion_tokens=5), "up").body)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "none"}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
    ],
)
def test_what_ollama_would_pass_over_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest, match="Ollama's models cannot do") as refusal:
        PROVIDERS["ollama"].dialect.chat_request(request(**fields), "up")
    assert (refusal.value.param, refusal.value.code) == (param, "unsupported_parameter")


def test_what_asks_ollama_for_nothing_is_not_refused() -> None:
    asked = {"n": 1, "tool_choice": "auto", "parallel_tool_calls": True, "logit_bias": None}
    body = PROVIDERS["ollama"].dialect.chat_request(request(**asked), "up").body
    assert json.loads(body) == {"messages": [HELLO], "model": "up", **asked}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": True}, {"include_usage": True}),
        ({"include_usage": None, "more": 1}, {"include_usage": True, "more": 1}),
    ],
)
def test_a_stream_is_always_asked_for_its_usage(options: Any, expected: dict[str, Any]) -> None:
    fields = {} if options is None else {"stream_options": options}
    assert sent(stream=True, **fields)["stream_options"] == expected


@pytest.mark.parametrize("name", ["vllm.json", "llamacpp.json", "transformers.json"])
def test_a_real_completion_is_relayed_byte_for_byte(name: str) -> None:
    body = (RECORDED / "openai" / name).read_bytes()
    said = json.loads(body)
    completion = DIALECT.completion(body)
    assert completion.body is body
    assert completion.model == said["model"]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == said["usage"]["prompt_tokens"] == 19
    assert completion.usage.completion_tokens == 8


def test_details_of_the_usage_are_read() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    body = json.dumps({"choices": [], "usage": usage}).encode()
    assert DIALECT.completion(body).usage == Usage(100, 50, 80, 30)
    nothing = {"prompt_tokens": None, "prompt_tokens_details": None, "completion_tokens_details": {}}
    assert DIALECT.completion(json.dumps({"choices": [], "usage": nothing}).encode()).usage == Usage()
    assert DIALECT.completion(b'{"choices": [], "usage": null}').usage is None


def test_thoughts_that_are_counted_in_the_total_alone_are_paid_for() -> None:
    """xAI's chat completions; Google's door for OpenAI's clients has no details."""
    counts = {"prompt_tokens": 10_120, "completion_tokens": 1_499, "total_tokens": 14_428}
    details = {"completion_tokens_details": {"reasoning_tokens": 2_809}}
    for usage, reasoning in ((counts | details, 2_809), (counts, 0)):
        body = json.dumps({"choices": [], "usage": usage}).encode()
        assert DIALECT.completion(body).usage == Usage(10_120, 4_308, reasoning_tokens=reasoning)
    wrong = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 0}
    assert DIALECT.completion(json.dumps({"choices": [], "usage": wrong}).encode()).usage == Usage(5, 3)


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
@pytest.mark.parametrize(("count", "most"), [(2**60, 2**53), (-1, 0)])
def test_counts_beyond_reason_are_bounded(name: str, count: int, most: int) -> None:
    usage = DIALECT.completion(json.dumps({"choices": [], "usage": {name: count}}).encode()).usage
    assert usage is not None
    assert usage.prompt_tokens + usage.completion_tokens == most


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"<html>", b'{"choices": null}', b'{"choices": 5}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_completion_is_a_broken_upstream(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        DIALECT.completion(body)


def test_an_error_inside_a_200_is_an_error() -> None:
    with pytest.raises(UpstreamRefused) as caught:
        DIALECT.completion(b'{"error": {"message": "no", "code": 429}}')
    assert (caught.value.status, caught.value.message) == (429, "no")


@pytest.mark.parametrize("name", STREAMS)
def test_a_real_stream_adds_up_to_the_same_with_and_without_the_gateway(name: str) -> None:
    events = recorded_events(name)
    two = {"n": 2} if "two" in name else {}
    reading = reader(**COUNTED, **two)
    direct, through = ChatCompletionStreamState(), ChatCompletionStreamState()
    for data in events:
        frame = reading.read(data)
        if data == b"[DONE]":
            assert frame == b""  # the gateway frames its own, at a true end
            continue
        direct.handle_chunk(ChatCompletionChunk.model_validate_json(data))
        assert frame == b"data: " + data + b"\n\n"
        through.handle_chunk(ChatCompletionChunk.model_validate_json(frame[6:]))
    assert reading.ended
    assert through.current_completion_snapshot == direct.current_completion_snapshot
    assert reading.tokens_seen > 0
    assert reading.model == direct.current_completion_snapshot.model


@pytest.mark.parametrize("name", STREAMS)
def test_usage_that_was_not_asked_for_is_counted_and_not_shown(name: str) -> None:
    events = recorded_events(name)
    reading = reader(**({"n": 2} if "two" in name else {}))
    frames = [json.loads(frame[6:]) for data in events if (frame := reading.read(data))]
    assert all("usage" not in frame for frame in frames)
    told = [json.loads(data).get("usage") for data in events if data != b"[DONE]"]
    if any(told):
        assert reading.usage is not None
        assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == (19, 8)
    # Nothing else is lost.
    shown = [json.loads(data) for data in events if data != b"[DONE]"]
    assert frames == [
        {name: value for name, value in fields.items() if name != "usage"}
        for fields in shown
        if fields["choices"] or "usage" not in fields
    ]


def test_the_streams_of_real_servers_hold_what_they_are_for() -> None:
    """Else the two tests above would say little."""
    together = b"".join((RECORDED / "openai" / name).read_bytes() for name in STREAMS)
    for what in (b'"usage":{', b'"tool_calls"', b'"logprobs":{', b'"index":1', b'"finish_reason":"length"'):
        assert what in together, what
    assert b"[DONE]" not in (RECORDED / "openai" / "transformers.sse").read_bytes()


def test_the_end_is_done_or_that_every_choice_has_finished() -> None:
    reading = reader(n=2)
    reading.read(text_chunk(finish="stop", index=1))
    assert not reading.ended
    reading.read(text_chunk(finish="stop", index=0))
    assert reading.ended
    other = reader()
    other.read(text_chunk())
    assert not other.ended
    other.read(b"[DONE]")
    assert other.ended


@pytest.mark.parametrize(
    ("delta", "counts"),
    [
        ({"content": "a"}, 1),
        ({"content": ""}, 0),
        ({"content": None}, 0),
        ({"role": "assistant"}, 0),
        ({"reasoning_content": "a"}, 1),
        ({"reasoning": "a"}, 1),
        ({"refusal": "a"}, 1),
        ({"tool_calls": [{"index": 0}]}, 1),
        ({"tool_calls": []}, 0),
        (None, 0),
    ],
)
def test_chunks_that_carry_part_of_an_answer_are_counted(delta: Any, counts: int) -> None:
    reading = reader()
    reading.read(chunk(choices=[{"index": 0, "delta": delta}]))
    assert reading.tokens_seen == counts


@pytest.mark.parametrize("data", [b"", b"{", b"not json", b"[1]", b"null", b"5", b'"a"', b"[" * 100_000, b"\xff"])
def test_an_event_that_is_no_object_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvent):
        reader().read(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": "none"},
        {"choices": [{"index": "0", "delta": {"content": "a"}}]},
        {"choices": [{"delta": {"content": ["a"]}}]},
        {"model": 5, "choices": []},
        {"usage": "none", "choices": []},
    ],
)
def test_a_chunk_of_strange_types_is_relayed_as_it_is(fields: dict[str, Any]) -> None:
    assert reader(**COUNTED).read(chunk(**fields)) == b"data: " + chunk(**fields) + b"\n\n"


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b'{"error": {"message": "Engine died.", "type": "InternalServerError", "code": 500}}', 502, "Engine died."),
        (b'{"error": {"message": "Too many.", "code": 429}, "choices": []}', 429, "Too many."),
        (b'{"error": "Out of memory."}', 502, "Out of memory."),
        (b'{"error": "Strange.", "choices": "none"}', 502, "Strange."),
    ],
)
def test_an_error_inside_a_stream_is_an_error(data: bytes, status: int, message: str) -> None:
    reading = reader()
    reading.read(text_chunk())
    with pytest.raises(UpstreamRefused) as caught:
        reading.read(data)
    assert (caught.value.status, caught.value.message) == (status, message)
    assert not reading.ended


def test_error_null_is_no_error() -> None:
    assert reader().read(text_chunk(error=None)) != b""
