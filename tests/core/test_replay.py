"""Kept answers: real servers' streams put together as OpenAI's SDK does it, and given again without a loss."""

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from lexora.core.chat import ChatRequest, parse_chat_request
from lexora.core.replay import Assembled, as_frames, as_plain, kept_of_plain
from lexora.core.usage import Usage
from lexora.providers.sse import EventDecoder
from lexora.providers.table import PROVIDERS
from tests.support.recorded import RECORDED

STREAMS = [
    *("openai/vllm.sse", "openai/vllm-logprobs.sse", "openai/vllm-tools.sse", "openai/vllm-two-choices.sse"),
    *("openai/transformers.sse", "anthropic/text.sse", "anthropic/vllm.sse", "anthropic/thinking-and-tools.sse"),
    *("gemini/text.sse", "gemini/thinking-and-tools.sse", "gemini/two-candidates.sse", "openai/llamacpp.sse"),
]
PLAINS = ["openai/vllm.json", "openai/llamacpp.json", "openai/transformers.json"]


def request(name: str = "", *, anthropic: bool = False, **fields: Any) -> ChatRequest:
    n = {"n": 2} if "two-" in name else {}
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, **n, **fields}
    asked = parse_chat_request(json.dumps(body).encode())
    asked.anthropic = {} if anthropic else None
    return asked


def frames_of(asked: ChatRequest, name: str) -> list[bytes]:
    """What a client that asks so is sent of a recorded stream."""
    provider = PROVIDERS["vllm" if name.startswith("openai") else name.partition("/")[0]]
    reader = provider.dialect.chunk_reader(asked)
    decoder = EventDecoder()
    events = decoder.feed((RECORDED / name).read_bytes()) + decoder.finish()
    return [reader.read(data) for data in events]


def kept_of_stream(
    asked: ChatRequest, frames: list[bytes], usage: Usage | None, *, signed: bool = False
) -> bytes | None:
    answer = Assembled(asked)
    for each in frames:
        answer.feed(each)
    return answer.kept(usage, signed=signed)


def whole(frames: bytes) -> list[bytes]:
    """As if the longest answer that was asked for had not cut some of them off."""
    return [frames.replace(b'"length"', b'"stop"')]


def accumulated(frames: bytes) -> Any:
    state = ChatCompletionStreamState()
    for frame in frames.split(b"\n\n")[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(frame.removeprefix(b"data: ")))
    found = state.current_completion_snapshot.model_dump(exclude_unset=True)
    for choice in found["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index")
            call["function"].pop("parsed_arguments", None)
    return found


def same(part: Any, all_of_it: Any) -> bool:
    """Whether everything that is said in the one is in the other; null and "" say nothing."""
    if isinstance(part, dict):
        return all(value in (None, [], "") or same(value, all_of_it.get(name)) for name, value in part.items())
    if isinstance(part, list):
        return len(part) == len(all_of_it) and all(map(same, part, all_of_it))
    return bool(part == all_of_it)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_is_kept_as_the_sdk_puts_it_together(name: str, include_usage: bool) -> None:
    asked = request(name, stream_options={"include_usage": include_usage})
    frames = b"".join(whole(b"".join(frames_of(asked, name))))
    half = frames.index(b"\n\n", len(frames) // 2) + 2
    kept = kept_of_stream(asked, [frames[:half], b"", frames[half:]], Usage(7, 3))
    assert kept is not None
    expected, found = accumulated(frames), json.loads(kept)
    for left_out in ("id", "object", "obfuscation"):
        expected.pop(left_out, None)
    assert same(expected["choices"], found["choices"])
    assert found["usage"]["total_tokens"] > 0
    assert (found["usage"]["prompt_tokens"] == 7) == (expected.get("usage") is None)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("anthropic", [True, False])
def test_what_is_kept_is_given_again_as_it_was(name: str, anthropic: bool) -> None:
    asked = request(name, anthropic=anthropic, stream_options={"include_usage": True})
    kept = kept_of_stream(asked, whole(b"".join(frames_of(asked, name))), Usage(7, 3))
    assert kept is not None
    again = kept_of_stream(asked, [as_frames(asked, kept, "1")], None)
    assert again is not None
    assert json.loads(again) == {**json.loads(kept), "id": "chatcmpl-1"}
    assert json.loads(as_plain(asked, kept, "1")) == {**json.loads(kept), "id": "chatcmpl-1"}


@pytest.mark.parametrize("name", PLAINS)
def test_a_plain_answer_is_kept_byte_for_byte_and_adds_up_as_a_stream(name: str) -> None:
    (body,) = whole((RECORDED / name).read_bytes())
    asked = request(stream_options={"include_usage": True})
    assert kept_of_plain(asked, body) == body
    said, expected = accumulated(as_frames(asked, body, "1")), json.loads(body)
    assert same(expected["choices"], said["choices"])
    assert same(expected["usage"], said["usage"])


def test_signed_reasoning_is_kept_for_who_is_shown_the_signatures() -> None:
    name = "anthropic/thinking-and-tools.sse"
    shown, hidden = request(anthropic=True), request()
    kept = kept_of_stream(shown, frames_of(shown, name), None, signed=True)
    assert kept is not None
    message = json.loads(kept)["choices"][0]["message"]
    assert message["thinking_blocks"][0] == {
        "type": "thinking",
        "thinking": "Two cities, two calls.",
        "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h",
    }
    assert message["thinking_blocks"][1]["type"] == "redacted_thinking"
    assert kept_of_stream(hidden, frames_of(hidden, name), None, signed=True) is None
    assert b"thinking_blocks" not in as_frames(hidden, kept, "1")


STRANGE = [
    {"choices": [{"index": 0, "delta": {"content": "a", "citations": [1]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": {"index": 0}}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"id": "1"}]}}]},
    {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "a"}]}}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": 5, "thinking_blocks": [{"signature": "s"}]}}]},
    {"choices": [{"index": 0, "delta": {"thinking_blocks": [4]}}]},
    {"choices": [{"index": 0, "delta": ["a"]}]},
    {"choices": [{"index": 0, "delta": "a"}]},
    {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": [1]}]},
    {"choices": [{"index": None, "delta": {"content": "a"}}]},
    {"choices": [{"index": "0", "delta": {"content": "a"}}]},
    {"choices": [{"index": [0], "delta": {"content": "a"}}]},
    {"choices": ["a"]},
    {"choices": 5},
]


@pytest.mark.parametrize("chunk", STRANGE)
def test_what_cannot_be_put_together_with_certainty_is_not_kept(chunk: dict[str, Any]) -> None:
    other = {"choices": [{"index": 0, "delta": {"content": "b", "citations": [2]}, "finish_reason": "stop"}]}
    frames = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in (chunk, other)]
    assert kept_of_stream(request(), frames[1:], None) is not None
    assert kept_of_stream(request(), frames, None) is None


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]},  # Mistral's, of reasoning
        {"content": 5},
        {"content": "a", "tool_calls": ["f"]},
        {"content": "a", "tool_calls": {"name": "f"}},
    ],
)
def test_nor_is_a_plain_answer_that_cannot_be_streamed(message: dict[str, Any]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    assert kept_of_plain(request(), json.dumps({"choices": [choice]}).encode()) is None


def test_nor_what_is_larger_than_all_that_is_read() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}], "padding": "x" * 1_000_000}
    frames = [b"data: " + json.dumps(chunk).encode() + b"\n\n"] * 17
    assert kept_of_stream(request(), frames[:15], None) is not None
    assert kept_of_stream(request(), frames, None) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"choices": 1}', b'{"choices": []}', b'{"choices": [1]}'])
def test_what_is_no_completion_is_not_kept(body: bytes) -> None:
    assert kept_of_plain(request(), body) is None
