"""Gemini's answers as OpenAI's, against the types of both SDKs.

What is in `tests/recorded/gemini` is written to Google's documentation (https://ai.google.dev/api/generate-content).
"""

import json
from pathlib import Path
from typing import Any

import pytest
from google.genai import types as google
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from lexora.core.chat import parse_chat_request
from lexora.core.errors import UpstreamBroken, UpstreamRefused
from lexora.core.usage import Usage
from lexora.providers.dialect import ChunkReader, MalformedEvent
from lexora.providers.gemini import GeminiDialect
from lexora.providers.gemini_response import _FAILED
from lexora.providers.sse import EventDecoder

RECORDED = Path(__file__).parents[1] / "recorded" / "gemini"
STREAMS = sorted(path.name for path in RECORDED.glob("*.sse"))
ANSWERS = ["answer.json", "blocked-prompt.json", "logprobs.json"]
NOW = 1_795_260_267
DIALECT = GeminiDialect(clock=lambda: NOW + 0.9)
OURS = {"reasoning_content", "extra_content"}
SIGNATURE = {"google": {"thought_signature": "CiQB0e2Kb3c9XkQ="}}


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
    out = DIALECT.completion(body)
    checked = ChatCompletion.model_validate_json(out.body, strict=True)
    assert unknown_names(checked) <= OURS
    assert (out.id, out.model) == (checked.id, checked.model)
    result: dict[str, Any] = json.loads(out.body)
    return result


def answer(**candidate: Any) -> bytes:
    base = {"content": {"parts": [{"text": "a"}], "role": "model"}, "finishReason": "STOP", "index": 0}
    return json.dumps({"candidates": [{**base, **candidate}], "modelVersion": "g", "responseId": "r"}).encode()


def parts(*found: dict[str, Any], **candidate: Any) -> bytes:
    return answer(content={"parts": list(found), "role": "model"}, **candidate)


def events_of(name: str) -> list[bytes]:
    decoder = EventDecoder()
    return decoder.feed((RECORDED / name).read_bytes()) + decoder.finish()


def chunks(framed: bytes) -> list[dict[str, Any]]:
    """The chunks in `framed`, once OpenAI's types have found nothing wrong or unknown in them."""
    found = []
    for block in framed.decode().split("\n\n")[:-1]:
        data = block.removeprefix("data: ")
        assert data != block
        assert unknown_names(ChatCompletionChunk.model_validate_json(data, strict=True)) <= OURS
        found.append(json.loads(data))
    assert not framed or framed.endswith(b"\n\n")
    return found


def new_reader(include_usage: bool = False, n: int = 1) -> ChunkReader:
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "n": n}
    body["stream_options"] = {"include_usage": include_usage}
    return DIALECT.chunk_reader(parse_chat_request(json.dumps(body).encode()))


def streamed(name: str, include_usage: bool = False) -> tuple[ChunkReader, list[dict[str, Any]]]:
    reader = new_reader(include_usage, 2 if name == "two-candidates.sse" else 1)
    return reader, [chunk for data in events_of(name) for chunk in chunks(reader.read(data))]


def accumulated(said: list[dict[str, Any]]) -> dict[str, Any]:
    """What OpenAI's SDK makes of the chunks."""
    state = ChatCompletionStreamState()
    for chunk in said:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.current_completion_snapshot.model_dump(exclude_unset=True)


# --- the plain answer ---


@pytest.mark.parametrize("name", [*ANSWERS, *STREAMS])
def test_what_is_recorded_is_of_googles_form(name: str) -> None:
    for data in events_of(name) if name in STREAMS else [(RECORDED / name).read_bytes()]:
        google.GenerateContentResponse.model_validate_json(data)


def test_a_plain_answer_with_everything_in_it() -> None:
    body = (RECORDED / "answer.json").read_bytes()
    found = completed(body)
    calls = found["choices"][0]["message"]["tool_calls"]
    ids = [call.pop("id") for call in calls]
    assert len(set(ids)) == 2
    assert all(name.startswith("call_") for name in ids)
    assert found == {
        "id": "gj0laZrrDsC8qtsP1uSQ2Ao",
        "object": "chat.completion",
        "created": NOW,
        "model": "gemini-3.8-flash",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "I'll look both up.",
                    "refusal": None,
                    "reasoning_content": "Two cities, two calls.",
                    "tool_calls": [
                        {
                            "type": "function",
                            "function": {
                                "name": "get_weather",
                                "arguments": '{"city":"San Francisco, CA","unit":"celsius"}',
                            },
                            "extra_content": SIGNATURE,
                        },
                        {"type": "function", "function": {"name": "now", "arguments": "{}"}},
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 3472,
            "completion_tokens": 120,
            "total_tokens": 3592,
            "prompt_tokens_details": {"cached_tokens": 2000},
            "completion_tokens_details": {"reasoning_tokens": 31},
        },
    }
    assert DIALECT.completion(body).usage == Usage(3472, 120, 2000, 31)


def test_logprobs() -> None:
    def token(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    choice = completed((RECORDED / "logprobs.json").read_bytes())["choices"][0]
    assert choice["logprobs"] == {
        "content": [
            {**token("Hi", -0.1), "top_logprobs": [token("Hi", -0.1), token("Hé", -2.5)]},
            {**token("!", -0.1), "top_logprobs": [token("!", -0.1)]},
        ],
        "refusal": None,
    }
    without_tops = answer(logprobsResult={"chosenCandidates": [{"token": "a", "logProbability": -1}]})
    assert completed(without_tops)["choices"][0]["logprobs"]["content"] == [{**token("a", -1), "top_logprobs": []}]


def test_a_blocked_prompt_says_why_it_is_not_answered() -> None:
    (choice,) = completed((RECORDED / "blocked-prompt.json").read_bytes())["choices"]
    assert choice["finish_reason"] == "content_filter"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": "Google has blocked the prompt (SAFETY).",
    }


FINISH_REASONS = {
    "STOP": "stop",
    "FINISH_REASON_UNSPECIFIED": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "OTHER": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_OTHER": "content_filter",
    "NO_IMAGE": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "OF_TOMORROW": "content_filter",
}


@pytest.mark.parametrize("reason", FINISH_REASONS)
def test_finish_reasons(reason: str) -> None:
    assert completed(answer(finishReason=reason))["choices"][0]["finish_reason"] == FINISH_REASONS[reason]
    said = chunks(new_reader().read(answer(finishReason=reason)))
    assert [chunk["choices"][0]["finish_reason"] for chunk in said] == [None, FINISH_REASONS[reason]]


@pytest.mark.parametrize("reason", sorted(_FAILED))
def test_an_answer_that_the_model_could_not_make_is_an_error(reason: str) -> None:
    body = answer(finishReason=reason, finishMessage="Malformed function call: f(")
    for said in (DIALECT.completion, new_reader().read):
        with pytest.raises(UpstreamRefused) as caught:
            said(body)
        error = caught.value
        assert (error.status, error.error_type) == (502, reason)
        assert error.message == f"Gemini broke its answer off ({reason}). Malformed function call: f("


def test_every_finish_reason_of_the_sdk_is_known() -> None:
    assert {reason.value for reason in google.FinishReason} == set(FINISH_REASONS) - {"OF_TOMORROW"} | _FAILED


@pytest.mark.parametrize(
    ("found", "content"),
    [
        ([], ""),
        ([{"text": "a"}, {"text": "b", "thoughtSignature": "x"}], "ab"),
        ([{"functionCall": {"name": "f"}}], None),
        ([{"ofTomorrow": {"text": 5}}, {"text": "a"}], "a"),
        ([{"executableCode": {"code": "1"}}, {"text": "a"}], "a"),
    ],
)
def test_the_text_of_an_answer(found: list[Any], content: str | None) -> None:
    assert completed(parts(*found))["choices"][0]["message"]["content"] == content


def test_an_answer_without_parts_is_empty() -> None:
    for content in ({}, {"role": "model"}, None):
        choice = completed(answer(content=content, finishReason="MAX_TOKENS"))["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_what_gemini_leaves_out() -> None:
    found = completed(b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":null}}]}}]}')
    assert found["id"].startswith("chatcmpl-")
    assert "usage" not in found
    choice = found["choices"][0]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def test_arguments_keep_their_numbers() -> None:
    part = b'{"functionCall":{"name":"f","args":{ "n":\n12345678901234567890.10 }}}'
    body = b'{"candidates":[{"content":{"parts":[%b]}}]}' % part
    call = completed(body)["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == '{"n":12345678901234567890.10}'


def test_two_candidates_are_two_choices() -> None:
    body = json.dumps({"candidates": [json.loads(answer(index=i))["candidates"][0] for i in (0, 1)]}).encode()
    assert [choice["index"] for choice in completed(body)["choices"]] == [0, 1]


def test_the_results_of_tools_that_google_runs_are_part_of_the_prompt() -> None:
    counted = {"promptTokenCount": 7, "toolUsePromptTokenCount": 100, "candidatesTokenCount": 3}
    body = json.dumps({**json.loads(answer()), "usageMetadata": counted}).encode()
    assert DIALECT.completion(body).usage == Usage(107, 3)


@pytest.mark.parametrize("blob", [{"inlineData": {"mimeType": "image/png", "data": ""}}, {"fileData": {}}])
def test_an_answer_that_is_no_text_is_not_passed_over(blob: dict[str, Any]) -> None:
    for said in (DIALECT.completion, new_reader().read):
        with pytest.raises(UpstreamRefused) as caught:
            said(parts(blob))
        assert caught.value.status == 400
        assert "Choose a model that writes." in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"candidates":[]}',
        b'{"id":"chatcmpl-1","choices":[]}',
        b"[" * 100_000,
        answer(content="text"),
        answer(content={"parts": [{"text": 5}]}),
        answer(content={"parts": [{"functionCall": {"args": {}}}]}),
    ],
)
def test_an_answer_that_is_none_of_geminis_is_broken(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        DIALECT.completion(body)


# --- the stream ---


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_the_frame_of_a_stream(name: str, include_usage: bool) -> None:
    reader, said = streamed(name, include_usage)
    assert len({(chunk["id"], chunk["model"], chunk["created"], chunk["object"]) for chunk in said}) == 1
    assert (said[0]["id"], said[0]["model"], said[0]["created"]) == (
        "gj0laZrrDsC8qtsP1uSQ2Ao",
        "gemini-3.8-flash",
        NOW,
    )
    assert (reader.id, reader.model) == (said[0]["id"], said[0]["model"])
    if include_usage:
        *said, last = said
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0
        assert all(chunk["usage"] is None for chunk in said)
    else:
        assert all("usage" not in chunk for chunk in said)
    choices = [chunk["choices"][0] for chunk in said]
    for index in {choice["index"] for choice in choices}:
        own = [choice for choice in choices if choice["index"] == index]
        assert ["role" in choice["delta"] for choice in own] == [True] + [False] * (len(own) - 1)
        assert [bool(choice["finish_reason"]) for choice in own] == [False] * (len(own) - 1) + [True]
        assert own[-1]["delta"] == {}
    assert reader.usage is not None


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_has_ended_with_its_last_event_and_not_before(name: str) -> None:
    reader = new_reader(n=2 if name == "two-candidates.sse" else 1)
    *before, last = events_of(name)
    for data in before:
        reader.read(data)
        assert not reader.ended
    reader.read(last)
    assert reader.ended


def test_a_text() -> None:
    reader, said = streamed("text.sse", include_usage=True)
    choice = accumulated(said)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The capital of Japan is 東京.", "stop")
    assert reader.transcript.text == "The capital of Japan is 東京."
    assert (reader.tokens_seen, reader.usage) == (3, Usage(9, 8))
    assert said[-1]["usage"]["completion_tokens"] == 8


def test_thoughts_and_calls_add_up() -> None:
    reader, said = streamed("thinking-and-tools.sse", include_usage=True)
    whole = accumulated(said)
    choice = whole["choices"][0]
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == ("I'll look both up.", "Two cities, two calls.")
    found = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    assert found == [
        ("8f2b1a3c", "get_weather", '{"city":"San Francisco, CA","unit":"celsius"}'),
        ("8f2b1a3d", "get_weather", '{"city":"東京"}'),
        ("8f2b1a3e", "now", "{}"),
    ]
    assert [call.get("extra_content") for call in message["tool_calls"]] == [SIGNATURE, None, None]
    deltas = [chunk["choices"][0]["delta"] for chunk in said[:-1]]
    assert [[call["index"] for call in delta["tool_calls"]] for delta in deltas if "tool_calls" in delta] == [
        [0, 1],
        [2],
    ]
    assert choice["finish_reason"] == "tool_calls"
    assert whole["usage"]["completion_tokens"] == 105
    assert reader.usage == Usage(3472, 105, 2000, 31)
    assert reader.transcript.text is None


def test_two_candidates_keep_apart() -> None:
    whole = accumulated(streamed("two-candidates.sse")[1])
    found = [(choice["message"]["content"], choice["finish_reason"]) for choice in whole["choices"]]
    assert found == [("Red.", "stop"), ("Blue sky.", "length")]


def test_a_filtered_answer_ends_as_one() -> None:
    reader, said = streamed("filtered.sse")
    assert [chunk["choices"][0]["finish_reason"] for chunk in said] == [None, "content_filter"]
    assert reader.transcript.text == "Once upon"


def test_a_blocked_prompt_is_refused_in_every_choice() -> None:
    reader = new_reader(n=2)
    said = chunks(reader.read(events_of("blocked-prompt.sse")[0]))
    assert [chunk["choices"][0]["index"] for chunk in said] == [0, 0, 1, 1]
    assert {chunk["choices"][0]["delta"].get("refusal") for chunk in said} == {
        "Google has blocked the prompt (PROHIBITED_CONTENT).",
        None,
    }
    assert said[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert reader.ended


def test_an_answer_keeps_its_first_name() -> None:
    reader = new_reader()
    names = []
    for number in (1, 2):
        part = {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}
        part |= {"responseId": f"r{number}", "modelVersion": f"m{number}"}
        names += [(chunk["id"], chunk["model"]) for chunk in chunks(reader.read(json.dumps(part).encode()))]
    assert names == [("r1", "m1")] * 2
    assert (reader.id, reader.model) == ("r1", "m1")


def test_what_comes_after_the_end_is_counted_and_not_shown() -> None:
    reader = new_reader()
    reader.read(answer())
    assert reader.read(b'{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}') == b""
    assert reader.usage == Usage(5, 2)


def test_counts_that_an_event_leaves_out_stay() -> None:
    reader = new_reader()
    reader.read(b'{"usageMetadata":{"promptTokenCount":5,"cachedContentTokenCount":4,"thoughtsTokenCount":3}}')
    reader.read(b'{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}')
    assert reader.usage == Usage(5, 5, 4, 3)


@pytest.mark.parametrize("data", [b"{}", b'{"ofTomorrow":1}', b'{"candidates":[]}', b'{"promptFeedback":{}}', b"[]"])
def test_events_that_say_nothing_to_a_client_are_passed_over(data: bytes) -> None:
    reader = new_reader()
    assert reader.read(data) == b""
    assert (reader.ended, reader.tokens_seen) == (False, 0)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"5", b'"text"', b"[1]", b"[" * 100_000, b'{"candidates":{}}', answer(index="0")]
)
def test_events_that_are_not_what_they_should_be_are_malformed(data: bytes) -> None:
    reader = new_reader()
    with pytest.raises(MalformedEvent):
        reader.read(data)
    assert chunks(reader.read(answer()))  # the stream goes on


# --- errors ---

ERRORS = {400: 400, 403: 502, 404: 404, 429: 429, 499: 502, 500: 502, 503: 503, 504: 504}


@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize("code", ERRORS)
def test_an_error_inside_a_stream_or_a_200_is_raised(code: int, in_list: bool) -> None:
    error = {"error": {"code": code, "message": "Too bad", "status": "ABORTED"}}
    data = json.dumps([error] if in_list else error).encode()
    for said in (new_reader().read, DIALECT.completion):
        with pytest.raises(UpstreamRefused) as caught:
            said(data)
        found = caught.value
        assert (found.status, found.upstream_status, found.message) == (ERRORS[code], 0, "Too bad")
        assert found.error_type == "ABORTED"


def test_an_error_in_a_stream_may_be_bare_json() -> None:
    error = json.dumps(
        {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}, indent=2
    )
    decoder = EventDecoder()
    good, bare = decoder.feed(b"data: " + answer() + b"\r\n\r\n" + error.encode()) + decoder.finish()
    assert good == answer()
    with pytest.raises(UpstreamRefused, match="The model is overloaded"):
        new_reader().read(bare)
