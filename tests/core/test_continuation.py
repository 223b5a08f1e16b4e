"""An answer that breaks off and goes on elsewhere, as bytes."""

import json
from typing import Any

import pytest

from lexora.core.chat import ChatRequest, parse_chat_request
from lexora.core.continuation import Continuation, continued
from lexora.core.ports import SoFar


def request(**fields: Any) -> ChatRequest:
    return parse_chat_request(json.dumps({"messages": [{"role": "user", "content": "Hi"}], **fields}).encode())


def sent(changed: ChatRequest) -> dict[str, Any]:
    return {name: json.loads(bytes(raw)) for name, raw in changed.fields.items()}


def frame(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    return frame(id="second", created=2, choices=[{"index": 0, "delta": delta, "finish_reason": finish}], **more)


HEAD = frame(id="first", created=1, choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])


def rewritten(so_far: SoFar, *frames: bytes) -> list[dict[str, Any]]:
    continuation = Continuation(HEAD, so_far)
    out = b"".join(map(continuation.rewrite, frames))
    return [json.loads(line[6:]) for line in out.split(b"\n\n") if line]


def test_the_answers_beginning_becomes_the_last_message() -> None:
    original = request(temperature=0, max_tokens=100, max_completion_tokens=3)
    fields = sent(continued(original, SoFar("Paris is \n", 40), {"continue_final_message": True}))
    assert fields == {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Paris is"}],
        "temperature": 0,
        "max_tokens": 60,
        "max_completion_tokens": 1,
        "continue_final_message": True,
    }
    assert sent(original)["max_tokens"] == 100


def test_chunks_look_like_those_of_the_first_deployment() -> None:
    out = rewritten(
        SoFar("Paris", 1), chunk({"role": "assistant", "content": ""}), chunk({"content": " is"}), chunk({}, "stop")
    )
    assert [(c["id"], c["created"]) for c in out] == [("first", 1)] * 2
    assert [c["choices"][0]["delta"] for c in out] == [{"content": " is"}, {}]
    assert out[-1]["choices"][0]["finish_reason"] == "stop"


def test_space_that_the_client_has_does_not_come_again() -> None:
    out = rewritten(SoFar("Paris \n", 1), chunk({"content": " "}), chunk({"content": "\nis"}), chunk({"content": " a"}))
    assert [c["choices"][0]["delta"]["content"] for c in out] == ["is", " a"]
    other = rewritten(SoFar("Paris \n", 1), chunk({"content": "is"}), chunk({"content": " a"}))
    assert [c["choices"][0]["delta"]["content"] for c in other] == ["is", " a"]


def test_usage_counts_both_parts() -> None:
    out = rewritten(
        SoFar("Paris", 10), frame(choices=[], usage={"prompt_tokens": 25, "completion_tokens": 5, "total_tokens": 30})
    )
    assert out[0]["usage"] == {"prompt_tokens": 15, "completion_tokens": 15, "total_tokens": 30}


@pytest.mark.parametrize(
    "odd",
    [
        b'{"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": "many", "completion_tokens": [2]}}',
        b'{"choices": [{"delta": {"content": ["x"]}}], "usage": "none"}',
        b'{"choices": [{"delta": "x"}]}',
        b'{"choices": ["x"]}',
        b'{"choices": "x"}',
    ],
)
def test_what_has_no_known_form_is_left_as_it_is(odd: bytes) -> None:
    assert rewritten(SoFar("Paris ", 1), b"data: " + odd + b"\n\n") == [
        {**json.loads(odd), "id": "first", "created": 1}
    ]


@pytest.mark.parametrize("odd", [b'{"id": "x", "more": 1e400}', b'{"id": "x", "more": "\xff"}'])
def test_what_cannot_be_read_passes(odd: bytes) -> None:
    frames = b"data: " + odd + b"\n\n"
    assert Continuation(HEAD, SoFar("x", 1)).rewrite(frames) == frames
    # Nor does it matter where it was the first that the client got.
    assert Continuation(frames, SoFar("x", 1)).rewrite(HEAD + chunk({"content": "y"})).count(b"data: ") == 1


def test_comments_pass() -> None:
    assert Continuation(HEAD, SoFar("x", 1)).rewrite(b": hello\n\n") == b": hello\n\n"


@pytest.mark.parametrize(
    ("fields", "can"),
    [
        ({}, True),
        ({"n": 1, "response_format": {"type": "text"}, "tools": []}, True),
        ({"n": 2}, False),
        ({"response_format": {"type": "json_object"}}, False),
        ({"guided_json": {}}, False),
        ({"grammar": "root"}, False),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, False),
    ],
)
def test_only_free_text_can_be_continued(fields: dict[str, Any], can: bool) -> None:
    assert request(**fields).can_be_continued() is can
