"""What clients of Anthropic's API are answered, held against Anthropic's schema and the types of its SDK."""

import json
from pathlib import Path
from typing import Any

import anthropic.types as wire
import httpx2
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types.shared import ErrorResponse
from pydantic import BaseModel, TypeAdapter

from lexora.core import errors
from lexora.core.chat import ChatRequest
from lexora.core.completion import chunks, completion
from lexora.core.errors import LexoraError, UpstreamBroken
from lexora.core.model_map import Deployment
from lexora.core.usage import Usage
from lexora.providers.anthropic import AnthropicDialect
from lexora.providers.dialect import Dialect
from lexora.providers.messages_door import MessagesDoor
from lexora.providers.openai import OpenAIDialect
from lexora.providers.sse import EventDecoder, event
from tests.support import recorded
from tests.support.published import check

DOOR = MessagesDoor()
RECORDED = Path(__file__).parents[1] / "recorded"
EVENT = TypeAdapter[Any](wire.RawMessageStreamEvent)
KINDS = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
}


def request(**fields: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello there"}], **fields}
    return DOOR.request(json.dumps(body).encode())


def nothing_unknown(value: Any) -> None:
    """Nothing in a validated value is unknown to the SDK."""
    if isinstance(value, BaseModel):
        assert not value.model_extra, value
        for inner in dict(value).values():
            nothing_unknown(inner)
    elif isinstance(value, list):
        for inner in value:
            nothing_unknown(inner)


# --- plain answers -------------------------------------------------------------------------------------------------


def answered(body: Any) -> dict[str, Any]:
    """The message that a completion becomes, once the SDK's types have found nothing wrong or unknown in it."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    out = DOOR.completion(request(), data, "r1")
    nothing_unknown(wire.Message.model_validate_json(out, strict=True))
    message: dict[str, Any] = json.loads(out)
    check("anthropic", "Message", message)
    return message


def completed(message: dict[str, Any], finish_reason: str = "stop", **choice: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **choice}
    return recorded.completion(choices=[choice])


def call(arguments: str, **fields: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}, **fields}


TEXT = {"type": "text", "text": "Hi", "citations": None}
DIRECT = {"type": "direct"}
TOOL_USE = {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": [1.0]}, "caller": DIRECT}
NOT_COUNTED = {"output_tokens_details": None, "server_tool_use": None}
# What gets lost on the way through a chat completion, or was never there.
NOT_KNOWN = {"cache_creation": None, "inference_geo": None, "service_tier": None}


def test_a_message() -> None:
    assert answered(recorded.completion("Hi")) == {
        "id": "msg_r1",
        "type": "message",
        "role": "assistant",
        "model": "recorded",
        "content": [TEXT],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 3,
            **NOT_COUNTED,
            **NOT_KNOWN,
        },
    }


@pytest.mark.parametrize(
    ("body", "content", "stop_reason"),
    [
        (completed({"content": "Hi"}, "length"), [TEXT], "max_tokens"),
        (completed({"content": "Hi"}, "content_filter"), [TEXT], "refusal"),
        (completed({"content": None, "refusal": "Hi"}), [TEXT], "refusal"),
        (completed({"content": "Hi"}, "new_reason"), [TEXT], "end_turn"),
        (completed({"content": ""}), [], "end_turn"),
        (completed({"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}), [TEXT], "end_turn"),
        (completed({"content": None, "tool_calls": [call('{"a":[1.0]}')]}, "tool_calls"), [TOOL_USE], "tool_use"),
        (completed({"content": None, "tool_calls": [call(' {"a": [1.0]} ')]}), [TOOL_USE], "tool_use"),
        (completed({"content": "Hi", "tool_calls": [call("")]}), [TEXT, {**TOOL_USE, "input": {}}], "tool_use"),
        (
            completed({"content": None, "tool_calls": [call("{}", id=None), call("{}")]}),
            [{**TOOL_USE, "id": "toolu_r1_0", "input": {}}, {**TOOL_USE, "input": {}}],
            "tool_use",
        ),
        # Cut off: what there is of the call is no input.
        (completed({"content": "Hi", "tool_calls": [call('{"a":')]}, "length"), [TEXT], "max_tokens"),
        (
            completed({"content": "Hi", "reasoning_content": "Hm."}),
            [{"type": "thinking", "thinking": "Hm.", "signature": ""}, TEXT],
            "end_turn",
        ),
        (
            completed({"content": "Hi", "reasoning": "Hm."}),
            [{"type": "thinking", "thinking": "Hm.", "signature": ""}, TEXT],
            "end_turn",
        ),
    ],
)
def test_content_and_stop_reason(body: dict[str, Any], content: list[Any], stop_reason: str) -> None:
    message = answered(body)
    assert message["content"] == content
    assert message["stop_reason"] == stop_reason
    assert (message["stop_details"] is not None) == (stop_reason == "refusal")


def test_the_stop_sequence_that_vllm_tells() -> None:
    message = answered(completed({"content": "Hi"}, stop_reason="###"))
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "###")
    assert answered(completed({"content": "Hi"}, stop_reason=2045))["stop_reason"] == "end_turn"


def test_cached_and_reasoning_tokens() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert answered(recorded.completion(usage=usage))["usage"] == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 60,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
        "server_tool_use": None,
        **NOT_KNOWN,
    }


def test_usage_that_the_upstream_has_not_counted_is_estimated() -> None:
    usage = answered(recorded.completion("Hello there!", usage=None))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (3, 3)


def test_the_model_asked_for_stands_in_for_one_not_said() -> None:
    assert answered(recorded.completion(model=""))["model"] == "m"


@pytest.mark.parametrize("name", ["openai/llamacpp.json", "openai/transformers.json", "openai/vllm.json"])
def test_recorded_answers(name: str) -> None:
    body = (RECORDED / name).read_bytes()
    said = json.loads(body)
    message = answered(body)
    assert "".join(block["text"] for block in message["content"]) == said["choices"][0]["message"]["content"]
    usage = message["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == said["usage"]["prompt_tokens"]
    assert usage["output_tokens"] == said["usage"]["completion_tokens"]


@pytest.mark.parametrize("name", ["message.json", "llamacpp.json", "vllm.json"])
def test_what_anthropics_servers_say_comes_back_as_they_said_it(name: str) -> None:
    body = (RECORDED / "anthropic" / name).read_bytes()
    said = json.loads(body)
    message = answered(AnthropicDialect().completion(body).body)
    shown = [{k: v for k, v in block.items() if v not in (None, DIRECT)} for block in message["content"]]
    assert shown == said["content"]
    assert message["stop_reason"] == said["stop_reason"]
    counted = {k: v for k, v in said["usage"].items() if k in message["usage"].keys() - NOT_KNOWN}
    assert counted.items() <= message["usage"].items()


def test_prepared_answers() -> None:
    body = completion(request_id="r1", created=1, model="lexora/fixed", text="Hi", usage=Usage(1, 2))
    assert answered(body)["content"] == [TEXT]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 1}}]}',
        json.dumps(completed({"tool_calls": [call("ffalse")]})).encode(),
        json.dumps(completed({"tool_calls": [call("[1]")]})).encode(),
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        DOOR.completion(request(), body, "r1")


# --- streams -------------------------------------------------------------------------------------------------------


class Read:
    """A stream as a client reads it. Every event is named and known to the SDK, and blocks come in order."""

    def __init__(self, body: bytes) -> None:
        *frames, rest = body.decode().split("\n\n")
        assert rest == ""
        self.events: list[dict[str, Any]] = []
        for frame in frames:
            if frame.startswith(":"):
                continue
            name, data = frame.split("\n")
            said = json.loads(data.removeprefix("data: "))
            assert name == f"event: {said['type']}"
            self.events.append(said)
        self.kinds = [said["type"] for said in self.events]
        self.message: Any = None
        bufs: dict[int, bytes] = {}
        open_block, next_block = None, 0
        for said in self.events:
            kind = said["type"]
            if kind not in KINDS:
                assert kind in ("ping", "error")
                continue
            check("anthropic", "MessageStreamEvent", said)
            validated = EVENT.validate_json(json.dumps(said), strict=True)
            nothing_unknown(validated)
            self.message = accumulate_event(event=validated, current_snapshot=self.message, json_bufs=bufs)
            if kind == "content_block_start":
                assert (open_block, said["index"]) == (None, next_block)
                open_block, next_block = said["index"], next_block + 1
            elif kind == "content_block_delta":
                assert said["index"] == open_block
            elif kind == "content_block_stop":
                assert said["index"] == open_block
                open_block = None
            elif kind == "message_delta":
                assert open_block is None

    @property
    def content(self) -> list[Any]:
        content: list[Any] = self.message.to_dict()["content"]
        return content


def streamed(*frames: bytes, **fields: Any) -> Read:
    stream = DOOR.stream(request(stream=True, **fields), "r1")
    *before, last = frames
    out = [stream.start(), *map(stream.feed, before), stream.end(last)]
    read = Read(b"".join(out))
    assert [read.kinds[0], *read.kinds[-2:]] == ["message_start", "message_delta", "message_stop"]
    return read


def delta(**fields: Any) -> bytes:
    return recorded.token("", choices=[{"index": 0, "delta": fields, "finish_reason": None}])


def piece(index: int | None, arguments: str | None, **function: Any) -> bytes:
    """A chunk with a piece of a tool call: its beginning if `id` and `name` are given."""
    call: dict[str, Any] = {"function": {}}
    if index is not None:
        call["index"] = index
    if "id" in function:
        call["id"] = function.pop("id")
    call["function"] = {**function, **({} if arguments is None else {"arguments": arguments})}
    return delta(tool_calls=[call])


def tool_use(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments, "caller": DIRECT}


FINISH = recorded.finish("tool_calls")


def test_a_stream() -> None:
    read = streamed(
        delta(role="assistant", content=""),
        recorded.token("He"),
        b": keep-alive\n\n" + recorded.token("llo"),
        recorded.finish(),
        recorded.usage(7, 2) + b"data: [DONE]\n\n",
    )
    start = {
        "id": "msg_r1",
        "type": "message",
        "role": "assistant",
        "model": "recorded",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
            **NOT_COUNTED,
            **NOT_KNOWN,
        },
    }
    assert read.events == [
        {"type": "message_start", "message": start},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": "", "citations": None},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "He"}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None, "container": None},
            "usage": {
                "input_tokens": 7,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 2,
                **NOT_COUNTED,
            },
        },
        {"type": "message_stop"},
    ]


def test_comments_pass() -> None:
    stream = DOOR.stream(request(stream=True), "r1")
    assert stream.feed(b": keep-alive\n\n") == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert stream.feed(b": x-lexora-cost-usd: 0.1\n\n") == b": x-lexora-cost-usd: 0.1\n\n"


def test_thinking_then_text_then_a_call() -> None:
    read = streamed(
        delta(reasoning_content="Hm"),
        delta(reasoning="."),
        recorded.token("Let me see."),
        piece(0, "", id="call_1", name="f"),
        piece(0, '{"a":'),
        piece(0, "1}"),
        FINISH,
    )
    assert read.content == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "Let me see.", "citations": None},
        tool_use("call_1", "f", a=1),
    ]
    deltas = [said["delta"]["partial_json"] for said in read.events if said.get("delta", {}).get("partial_json")]
    assert deltas == ['{"a":', "1}"]
    assert read.message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    "frames",
    [
        # one after the other
        [piece(0, "", id="a", name="f"), piece(0, '{"x":1}'), piece(1, "", id="b", name="g"), piece(1, '{"y":2}')],
        # mixed
        [
            piece(0, "", id="a", name="f"),
            piece(1, "", id="b", name="g"),
            piece(1, '{"y"'),
            piece(0, '{"x":'),
            piece(1, ":2}"),
            piece(0, "1}"),
        ],
        # each whole, in one chunk or two
        [
            delta(
                tool_calls=[
                    {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
                    {"index": 1, "id": "b", "function": {"name": "g", "arguments": '{"y":2}'}},
                ]
            )
        ],
        [piece(None, '{"x":1}', id="a", name="f"), piece(None, '{"y":2}', id="b", name="g")],
        [piece(0, '{"x":1}', id="a", name="f"), piece(0, '{"y":2}', id="b", name="g")],
        # the id again in every piece, blanks behind the end, the name later than the id
        [
            piece(0, None, id="a"),
            piece(0, '{"x":1', id="a", name="f"),
            piece(0, "}", id="a"),
            piece(1, '{"y":2}', id="b", name="g"),
            piece(0, "\n"),
        ],
    ],
)
def test_two_calls(frames: list[bytes]) -> None:
    assert streamed(*frames, FINISH).content == [tool_use("a", "f", x=1), tool_use("b", "g", y=2)]


def test_thinking_that_is_signed_or_encrypted() -> None:
    def thought(**block: str) -> bytes:
        return delta(thinking_blocks=[block])

    read = streamed(
        delta(reasoning_content="Hm."),
        thought(type="thinking", thinking="", signature="sig-1"),
        thought(type="redacted_thinking", data="xyz"),
        thought(type="thinking", thinking="", signature="sig-2"),
        delta(reasoning_content="So."),
        thought(type="thinking", thinking="", signature="sig-3"),
        recorded.token("Hi"),
        recorded.finish(),
    )
    assert read.content == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig-1"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "", "signature": "sig-2"},
        {"type": "thinking", "thinking": "So.", "signature": "sig-3"},
        TEXT,
    ]


def test_the_first_call_is_streamed_while_the_second_waits() -> None:
    stream = DOOR.stream(request(stream=True), "r1")
    stream.feed(piece(0, "", id="a", name="f") + piece(1, '{"y":2}', id="b", name="g"))
    assert b'"partial_json":"{' in stream.feed(piece(0, '{"x":'))
    assert b'"name":"g"' in stream.feed(piece(0, "1}"))


def test_calls_without_ids_or_arguments() -> None:
    read = streamed(piece(None, "{}", name="f"), piece(None, "{}", name="f"), piece(1, None, name="now"), FINISH)
    assert read.content == [tool_use("toolu_r1_0", "f"), tool_use("toolu_r1_1", "f"), tool_use("toolu_r1_2", "now")]


def test_text_behind_a_call_that_is_not_whole_waits() -> None:
    read = streamed(piece(0, '{"x":', id="a", name="f"), recorded.token("So."), piece(0, "1}"), FINISH)
    assert read.content == [tool_use("a", "f", x=1), {"type": "text", "text": "So.", "citations": None}]


@pytest.mark.parametrize(
    ("finish", "stop_reason", "sequence"),
    [
        (recorded.finish("length"), "max_tokens", None),
        (recorded.finish("content_filter"), "refusal", None),
        (
            recorded.token("", choices=[{"delta": {}, "finish_reason": "stop", "stop_reason": "##"}]),
            "stop_sequence",
            "##",
        ),
        (delta(refusal="No."), "refusal", None),
        (b"data: [DONE]\n\n", "end_turn", None),
        (b"", "end_turn", None),
    ],
)
def test_why_a_stream_ended(finish: bytes, stop_reason: str, sequence: str | None) -> None:
    message = streamed(recorded.token("Hi"), finish).message
    assert (message.stop_reason, message.stop_sequence) == (stop_reason, sequence)
    assert (message.stop_details is not None) == (stop_reason == "refusal")


def test_a_stream_that_says_nothing() -> None:
    read = streamed(recorded.finish())
    assert read.kinds == ["message_start", "message_delta", "message_stop"]
    assert streamed(b"").message.model == "m"


def test_usage_that_is_not_counted_is_estimated() -> None:
    usage = streamed(recorded.token("Hi"), recorded.token(" there"), recorded.finish()).message.usage
    assert (usage.input_tokens, usage.output_tokens) == (3, 2)


def test_usage_that_is_known_from_the_first() -> None:
    counted = {"prompt_tokens": 7, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 3}}
    read = streamed(recorded.token("Hi", usage=counted), recorded.finish())
    assert read.events[0]["message"]["usage"]["input_tokens"] == 4
    assert read.events[0]["message"]["usage"]["cache_read_input_tokens"] == 3


def test_a_stream_that_breaks_is_not_complete() -> None:
    stream = DOOR.stream(request(stream=True), "r1")
    read = Read(stream.feed(recorded.token("Hi")) + stream.error(UpstreamBroken("It was cut.")))
    assert read.kinds[-1] == "error"
    assert "message_stop" not in read.kinds
    assert "content_block_stop" not in read.kinds
    ErrorResponse.model_validate(read.events[-1], strict=True)
    assert read.events[-1]["error"] == {"type": "api_error", "message": "It was cut."}


def recorded_frames(name: str, dialect: Dialect) -> list[bytes]:
    """What the gateway makes of a recorded stream."""
    reader = dialect.chunk_reader(request(stream=True))
    return [reader.read(data) for data in EventDecoder().feed((RECORDED / name).read_bytes())]


# In vllm-tools.sse a model of random weights writes arguments that are no JSON.
SAID = [path for path in sorted(RECORDED.glob("openai/*.sse")) if path.name != "vllm-tools.sse"]


@pytest.mark.parametrize("path", SAID, ids=lambda path: path.name)
def test_recorded_streams(path: Path) -> None:
    frames = recorded_frames(f"openai/{path.name}", OpenAIDialect())
    read = streamed(*frames)
    first = [chunk["choices"][0] for chunk in map(json.loads, chunks_of(frames)) if chunk["choices"]]
    said = "".join(choice["delta"].get("content") or "" for choice in first if choice["index"] == 0)
    assert "".join(block["text"] for block in read.content if block["type"] == "text") == said


def test_arguments_that_are_no_json_are_left_to_the_client() -> None:
    with pytest.raises(ValueError, match="Unable to parse tool parameter JSON"):
        streamed(*recorded_frames("openai/vllm-tools.sse", OpenAIDialect()))


def chunks_of(frames: list[bytes]) -> list[bytes]:
    return EventDecoder().feed(b"".join(frames))


@pytest.mark.parametrize("path", sorted(RECORDED.glob("anthropic/*.sse")), ids=lambda path: path.name)
def test_anthropics_streams_come_back_as_they_were(path: Path) -> None:
    said: Any = None
    bufs: dict[int, bytes] = {}
    for data in EventDecoder().feed(path.read_bytes()):
        if json.loads(data)["type"] in KINDS:
            said = accumulate_event(event=EVENT.validate_json(data), current_snapshot=said, json_bufs=bufs)
    read = streamed(*recorded_frames(f"anthropic/{path.name}", AnthropicDialect()))
    for kind, field in (
        ("text", "text"),
        ("thinking", "thinking"),
        ("thinking", "signature"),
        ("redacted_thinking", "data"),
    ):
        whole = "".join(getattr(block, field) for block in said.content if block.type == kind)
        assert "".join(block[field] for block in read.content if block["type"] == kind) == whole
    calls = [(block.id, block.name, block.input) for block in said.content if block.type == "tool_use"]
    assert [(c["id"], c["name"], c["input"]) for c in read.content if c["type"] == "tool_use"] == calls
    assert read.message.stop_reason == said.stop_reason
    assert read.message.stop_sequence == said.stop_sequence
    assert read.message.usage.output_tokens == said.usage.output_tokens


def test_a_prepared_answer_streamed() -> None:
    data = chunks(request_id="r1", created=1, model="m", text="A. B.", usage=Usage(1, 2), include_usage=True)
    read = streamed(b"".join(map(event, data)) + b"data: [DONE]\n\n")
    assert "".join(block["text"] for block in read.content) == "A. B."
    assert read.message.usage.output_tokens == 2


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.InvalidRequest("x"), 400, "invalid_request_error"),
        (errors.Unauthorized("x"), 401, "authentication_error"),
        (errors.Forbidden("x"), 403, "permission_error"),
        (errors.ModelNotFound("x"), 404, "not_found_error"),
        (errors.MethodNotAllowed("x"), 405, "invalid_request_error"),
        (errors.RequestTimeout("x"), 408, "timeout_error"),
        (errors.PayloadTooLarge("x"), 413, "request_too_large"),
        (errors.UnsupportedMediaType("x"), 415, "invalid_request_error"),
        (errors.RateLimited("x"), 429, "rate_limit_error"),
        (errors.BudgetExceeded("x"), 429, "rate_limit_error"),
        (errors.LexoraError("x"), 500, "api_error"),
        (errors.UpstreamBroken("x"), 502, "api_error"),
        (errors.Busy("x"), 503, "overloaded_error"),
        (errors.DeadlineExceeded("x"), 504, "timeout_error"),
        (errors.UpstreamRefused("x", status=422, upstream_status=422), 422, "invalid_request_error"),
    ],
)
def test_errors(error: LexoraError, status: int, kind: str) -> None:
    found, body = DOOR.error(error, "r1")
    assert found == status
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "r1"}
    if status != 413:  # which Anthropic's servers never see
        check("anthropic", "ErrorResponse", json.loads(body))
        ErrorResponse.model_validate_json(body, strict=True)


def test_an_error_outside_of_a_request() -> None:
    assert json.loads(DOOR.error(errors.NotFound("x"))[1])["request_id"] is None


# --- against llama.cpp's own /v1/messages --------------------------------------------------------------------------

SET_LIGHT = {
    "name": "set_light",
    "description": "Sets a light",
    "input_schema": {
        "type": "object",
        "properties": {"room": {"type": "string", "enum": ["kitchen", "hall"]}},
        "required": ["room"],
    },
}
ASKED: dict[str, dict[str, Any]] = {
    "text": {},
    "system": {"system": [{"type": "text", "text": "Be brief."}], "top_k": 5},
    "tools": {"tools": [SET_LIGHT]},
    "history": {
        "tools": [SET_LIGHT],
        "messages": [
            {"role": "user", "content": "Light, please."},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "toolu_1", "name": "set_light", "input": {"room": "hall"}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "on"}]}
                ],
            },
        ],
    },
}


def posted(base_url: str, path: str, body: Any) -> httpx2.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    return httpx2.post(f"{base_url}{path}", content=data, headers=headers, timeout=30).raise_for_status()


def compared(message: Any) -> tuple[Any, ...]:
    usage = message["usage"]
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    text = [block["text"] for block in message["content"] if block["type"] == "text"]
    return text, message["stop_reason"], prompt, usage["output_tokens"]


@pytest.mark.parametrize("what", ASKED)
def test_llamacpp_answers_the_same_through_the_door(what: str, llamacpp: Deployment) -> None:
    body = {
        "model": "tiny-chat",
        "max_tokens": 12,
        "temperature": 0,
        "messages": [{"role": "user", "content": "Hello there"}],
        **ASKED[what],
    }
    assert llamacpp.base_url
    theirs = posted(llamacpp.base_url, "/messages", body).json()
    plain = request(**body)
    sent = OpenAIDialect().chat_request(plain, "tiny-chat")
    ours = DOOR.completion(plain, posted(llamacpp.base_url, sent.path, sent.body).content, "r1")
    assert compared(json.loads(ours)) == compared(theirs)
    streaming = request(**body, stream=True)
    sent = OpenAIDialect().chat_request(streaming, "tiny-chat")
    reader = OpenAIDialect().chunk_reader(streaming)
    events = EventDecoder().feed(posted(llamacpp.base_url, sent.path, sent.body).content)
    assert compared(streamed(*map(reader.read, events)).message.to_dict()) == compared(theirs)
