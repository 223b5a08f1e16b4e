"""Bedrock's answers as OpenAI's, against OpenAI's types and botocore's reading of the same bytes.

What is in `tests/recorded/bedrock` is written to AWS's documentation and its model of the API; of a stream (`.jsonl`) a
line is one message, its name and its payload.
"""

import json
from typing import Any

import botocore.session
import pytest
from botocore.eventstream import EventStream
from botocore.parsers import EventStreamJSONParser, create_parser
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from lexora.core.chat import parse_chat_request
from lexora.core.errors import UpstreamBroken, UpstreamRefused
from lexora.core.usage import Usage
from lexora.providers.bedrock import BedrockDialect
from lexora.providers.bedrock_response import _FAILED, _FINISH_REASON
from lexora.providers.dialect import ChunkReader, MalformedEvent
from lexora.providers.eventstream import EventStreamDecoder
from tests.support.eventstream import failure, of
from tests.support.recorded import RECORDED

FOLDER = RECORDED / "bedrock"
ANSWERS = sorted(path.name for path in FOLDER.glob("*.json"))
STREAMS = sorted(path.name for path in FOLDER.glob("*.jsonl"))
NOW = 1_795_260_267
DIALECT = BedrockDialect(clock=lambda: NOW + 0.9)
OURS = {"reasoning_content", "thinking_blocks"}
USAGE = {
    "prompt_tokens": 3472,
    "completion_tokens": 120,
    "total_tokens": 3592,
    "prompt_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 1000},
}


def unknown_names(model: BaseModel) -> set[str]:
    """Names of fields that the SDK's types do not know, at any depth."""
    names = set(model.model_extra or ())
    for value in dict(model).values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                names |= unknown_names(inner)
    return names


def completed(body: bytes) -> dict[str, Any]:
    """The completion that `body` becomes, once OpenAI's types have found nothing wrong or unknown in it."""
    out = DIALECT.completion(body).named("up")
    checked = ChatCompletion.model_validate_json(out.body, strict=True)
    assert unknown_names(checked) <= OURS
    assert (out.id, out.model) == (checked.id, checked.model) == (out.id, "up")
    result: dict[str, Any] = json.loads(out.body)
    return result


def answer(*blocks: dict[str, Any], stop: str = "end_turn", **more: Any) -> bytes:
    message = {"role": "assistant", "content": list(blocks)}
    return json.dumps({"output": {"message": message}, "stopReason": stop, **more}).encode()


def framed(name: str) -> list[bytes]:
    """The messages of a recorded stream, as AWS frames them."""
    return [of(*json.loads(line)) for line in (FOLDER / name).read_text().splitlines()]


def chunks(found: bytes) -> list[dict[str, Any]]:
    """The chunks in `found`, once OpenAI's types have found nothing wrong or unknown in them."""
    out = []
    for block in found.decode().split("\n\n")[:-1]:
        data = block.removeprefix("data: ")
        assert data != block
        assert unknown_names(ChatCompletionChunk.model_validate_json(data, strict=True)) <= OURS
        out.append(json.loads(data))
    assert not found or found.endswith(b"\n\n")
    return out


def new_reader(include_usage: bool = False) -> ChunkReader:
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    body["stream_options"] = {"include_usage": include_usage}
    reader = DIALECT.chunk_reader(parse_chat_request(json.dumps(body).encode()))
    reader.model = "up"
    return reader


def read(reader: ChunkReader, *messages: bytes) -> list[dict[str, Any]]:
    decoder = EventStreamDecoder()
    return [chunk for data in decoder.feed(b"".join(messages)) for chunk in chunks(reader.read(data))]


def streamed(name: str, include_usage: bool = False) -> tuple[ChunkReader, list[dict[str, Any]]]:
    reader = new_reader(include_usage)
    return reader, read(reader, *framed(name))


def accumulated(said: list[dict[str, Any]]) -> dict[str, Any]:
    """What OpenAI's SDK makes of the chunks."""
    state = ChatCompletionStreamState()
    for chunk in said:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.current_completion_snapshot.model_dump(exclude_unset=True)


def operation(name: str) -> Any:
    return botocore.session.get_session().get_service_model("bedrock-runtime").operation_model(name)


class _Raw:
    """What botocore reads a stream from."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def stream(self) -> Any:
        yield from self._pieces

    def close(self) -> None:
        pass


def known(said: Any, original: Any) -> None:
    """Asserts that everything in `original` is known to AWS's model, which leaves out what it does not know."""
    if isinstance(original, dict):
        for name in original.keys() - {"p", "serverToolUsage"}:
            assert name in said, name
            known(said[name], original[name])
    elif isinstance(original, list):
        assert len(said) == len(original)
        for ours, theirs in zip(said, original, strict=True):
            known(ours, theirs)
    else:
        assert said == original


# --- what is recorded ---


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_recorded_is_of_awss_form(name: str) -> None:
    body = (FOLDER / name).read_bytes()
    response = {"status_code": 200, "headers": {}, "body": body}
    known(create_parser("rest-json").parse(response, operation("Converse").output_shape), json.loads(body))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_recorded_is_of_awss_form(name: str) -> None:
    shape = operation("ConverseStream").output_shape.members["stream"]
    found = list(EventStream(_Raw(framed(name)), shape, EventStreamJSONParser(), "ConverseStream"))
    originals = [dict([json.loads(line)]) for line in (FOLDER / name).read_text().splitlines()]
    known(found, originals)


# --- the plain answer ---


def test_a_plain_answer_with_everything_in_it() -> None:
    body = (FOLDER / "answer.json").read_bytes()
    found = completed(body)
    assert found.pop("id").startswith("chatcmpl-")
    assert found == {
        "object": "chat.completion",
        "created": NOW,
        "model": "up",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "I'll look both up.",
                    "refusal": None,
                    "reasoning_content": "Two cities, two calls.",
                    "thinking_blocks": [
                        {
                            "type": "thinking",
                            "thinking": "Two cities, two calls.",
                            "signature": "EqQBCkgIBRABGAIiQL",
                        }
                    ],
                    "tool_calls": [
                        {
                            "id": "tooluse_Ol8GSGSJR7Sh5PFyrVD5fg",
                            "type": "function",
                            "function": {
                                "name": "get_weather",
                                "arguments": '{"city":"San Francisco, CA","unit":"celsius"}',
                            },
                        },
                        {
                            "id": "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q",
                            "type": "function",
                            "function": {"name": "now", "arguments": "{}"},
                        },
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": USAGE,
    }
    counted = DIALECT.completion(body).usage
    assert counted == Usage(3472, 120, 2000, cache_write_tokens=1000, cache_write_1h_tokens=300)


def test_text_that_cites_is_text_and_awss_own_tools_are_no_calls() -> None:
    choice = completed((FOLDER / "citations.json").read_bytes())["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "By the report, sales grew.", "refusal": None}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("of_tomorrow", "stop"),
    ],
)
def test_why_an_answer_ended(reason: str, finish: str) -> None:
    assert completed(answer({"text": "a"}, stop=reason))["choices"][0]["finish_reason"] == finish
    (stop,) = read(new_reader(), of("messageStop", {"stopReason": reason}))
    assert stop["choices"][0]["finish_reason"] == finish


def test_every_reason_that_aws_knows_is_decided_upon() -> None:
    assert set(operation("Converse").output_shape.members["stopReason"].enum) == _FINISH_REASON.keys() | _FAILED


@pytest.mark.parametrize("reason", sorted(_FAILED))
def test_an_answer_that_the_model_has_botched_is_none(reason: str) -> None:
    for attempt in (
        lambda: DIALECT.completion(answer({"text": "a"}, stop=reason)),
        lambda: read(new_reader(), of("messageStop", {"stopReason": reason})),
    ):
        with pytest.raises(UpstreamRefused) as caught:
            attempt()
        assert (caught.value.status, caught.value.error_type) == (502, reason)
        assert reason in caught.value.message


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], {"content": ""}),
        ([{"text": ""}], {"content": ""}),
        ([{"ofTomorrow": {"a": 1}}, {"text": "a"}], {"content": "a"}),
        (
            [{"reasoningContent": {"redactedContent": "eHh4"}}, {"text": "a"}],
            {"content": "a", "thinking_blocks": [{"type": "redacted_thinking", "data": "eHh4"}]},
        ),
        ([{"reasoningContent": {"reasoningText": {"text": "Hm."}}}], {"content": "", "reasoning_content": "Hm."}),
    ],
)
def test_what_blocks_become(blocks: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    message = completed(answer(*blocks))["choices"][0]["message"]
    assert message == {"role": "assistant", "refusal": None, **expected}


def test_the_numbers_in_arguments_stay_as_they_are() -> None:
    body = answer({"toolUse": {"toolUseId": "t", "name": "f", "input": {"n": 0}}}, stop="tool_use")
    big = b"123456789012345678901234567890.00"
    found = completed(body.replace(b'{"n": 0}', b'{"n": %b}' % big))
    assert found["choices"][0]["message"]["content"] is None
    assert found["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == f'{{"n":{big.decode()}}}'


def test_an_image_is_no_chat_completion() -> None:
    for attempt in (
        lambda: DIALECT.completion(answer({"image": {"format": "png", "source": {"bytes": "AA=="}}})),
        lambda: read(
            new_reader(), of("contentBlockStart", {"contentBlockIndex": 0, "start": {"image": {"format": "png"}}})
        ),
    ):
        with pytest.raises(UpstreamRefused, match="image"):
            attempt()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"<html>", b'{"output": {"message": {}}}', b"\xff", b'{"output": {"message": null}}']
)
def test_what_is_no_answer_is_broken(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        DIALECT.completion(body)


# --- the stream ---


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_adds_up_to_the_plain_answer(name: str) -> None:
    body = (FOLDER / name.replace(".jsonl", ".json").replace("thinking-and-tools", "answer")).read_bytes()
    plain = completed(body)
    reader, said = streamed(name, include_usage=True)
    whole = accumulated(said)
    ours, theirs = whole["choices"][0]["message"], plain["choices"][0]["message"]
    calls = [
        {
            "id": call["id"],
            "type": "function",
            "function": {name: call["function"][name] for name in ("name", "arguments")},
        }
        for call in ours.get("tool_calls") or ()
    ]
    assert calls == theirs.get("tool_calls", [])
    for name in ("content", "reasoning_content"):
        assert ours.get(name) == theirs.get(name)
    assert whole["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"]
    assert said[-1]["usage"] == plain["usage"]
    assert reader.usage == DIALECT.completion(body).usage
    assert reader.ended
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in said} == {(reader.id, "up", NOW)}


def test_usage_is_shown_only_if_asked_for() -> None:
    reader, said = streamed("text.jsonl")
    assert reader.usage == Usage(9, 8)
    assert all("usage" not in chunk for chunk in said)
    reader, said = streamed("text.jsonl", include_usage=True)
    assert [chunk["usage"] for chunk in said[:-1]] == [None] * (len(said) - 1)
    assert said[-1]["choices"] == []


def test_the_chunks_of_a_stream() -> None:
    reader, said = streamed("text.jsonl")
    deltas = [chunk["choices"][0]["delta"] for chunk in said]
    assert deltas == [
        {"role": "assistant", "content": None},
        {"content": "The capital"},
        {"content": " of Japan is "},
        {"content": "東京."},
        {},
    ]
    assert reader.tokens_seen == 3
    assert reader.transcript.text == "The capital of Japan is 東京."


def test_what_is_more_than_text_is_not_gone_on_with() -> None:
    assert streamed("thinking-and-tools.jsonl")[0].transcript.text is None


def test_an_answer_is_complete_with_its_stop() -> None:
    """The counts come after it; a stream that is cut between the two lacks nothing of the answer."""
    *begun, stop, metadata = framed("text.jsonl")
    reader = new_reader()
    read(reader, *begun)
    assert not reader.ended
    read(reader, stop)
    assert reader.ended
    assert reader.usage is None
    read(reader, metadata)
    assert reader.usage == Usage(9, 8)


@pytest.mark.parametrize(
    ("message", "status", "told"),
    [
        (of("throttlingException", {"message": "Too many tokens."}), 429, "Too many tokens."),
        (of("validationException", {"message": "Bad image."}), 400, "Bad image."),
        (of("serviceUnavailableException", {"message": "Later."}), 503, "Later."),
        (of("internalServerException", {"message": "Oh."}), 502, "Oh."),
        (of("modelTimeoutException", {"message": "Slow."}), 504, "Slow."),
        (
            of(
                "modelStreamErrorException", {"message": "m", "originalStatusCode": 500, "originalMessage": "Worn out."}
            ),
            502,
            "Worn out.",
        ),
        (of("ofTomorrowException", {"message": "New."}), 502, "New."),
        (of("throttlingException", b""), 429, "The upstream reported an error."),
        (of("throttlingException", b'["x"]'), 429, "The upstream reported an error."),
        (failure("InternalFailure", "Broken."), 502, "Broken."),
    ],
)
def test_errors_inside_a_stream(message: bytes, status: int, told: str) -> None:
    reader = new_reader()
    read(reader, *framed("text.jsonl")[:2])
    with pytest.raises(UpstreamRefused) as caught:
        read(reader, message)
    assert (caught.value.status, caught.value.upstream_status, caught.value.message) == (status, 0, told)
    assert caught.value.error_type.endswith(("Exception", "InternalFailure"))
    assert not reader.ended


@pytest.mark.parametrize(
    "message",
    [
        of("contentBlockDelta", b"no json"),
        of("contentBlockDelta", b"[]"),
        of("contentBlockDelta", b"\xff\xff"),
        of("contentBlockDelta", {"delta": {"text": "no index"}}),
        of("messageStop", {}),
        of("messageStop", b"1,2"),
    ],
)
def test_a_message_that_is_none_is_reported_as_such(message: bytes) -> None:
    (data,) = EventStreamDecoder().feed(message)
    with pytest.raises(MalformedEvent):
        new_reader().read(data)


@pytest.mark.parametrize(
    "message",
    [
        of("ofTomorrow", {"a": 1}),
        of("contentBlockStart", {"contentBlockIndex": 0, "start": {"ofTomorrow": {}}}),
        of("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"ofTomorrow": {}}}),
        of("contentBlockDelta", {"contentBlockIndex": 7, "delta": {"toolUse": {"input": "{}"}}}),
        of("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": ""}}),
        of("metadata", {"metrics": {"latencyMs": 1}}),
    ],
)
def test_what_is_not_known_is_passed_over(message: bytes) -> None:
    assert read(new_reader(), message) == []
