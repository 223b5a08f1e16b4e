"""The Responses API, as clients send it and as they get it, on what real servers sent.

Every response and every event is checked against the types of OpenAI's SDK.
"""

import json
from typing import Any

import pytest

from lexora.core.errors import InvalidRequest, RateLimited, UpstreamBroken, UpstreamRefused
from lexora.providers.responses_door import ResponsesDoor
from tests.support.recorded import DONE, RECORDED
from tests.support.responses import checked_events, checked_response, events_of

RECORD = "0123456789abcdef0123456789abcdef"
ID = f"resp_{RECORD}"
DOOR = ResponsesDoor(clock=lambda: 1_795_000_000.5)
USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": "d"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc_1", "status": "completed"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PNG = "data:image/png;base64,iVBORw0KGgo="


def body(**fields: Any) -> bytes:
    return json.dumps({"input": "Hi", **fields}).encode()


def chat(**fields: Any) -> dict[str, Any]:
    """The fields of the chat completion that a request becomes."""
    request = DOOR.request(body(**fields))
    return {name: json.loads(bytes(raw)) for name, raw in request.fields.items()}


def messages(*items: Any, **fields: Any) -> Any:
    return chat(input=list(items), **fields)["messages"]


def completed(message: dict[str, Any], finish: str = "stop", *, asked: bytes = body(), **fields: Any) -> dict[str, Any]:
    """The response that a chat completion becomes."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": [choice], **fields}
    return checked_response(DOOR.completion(DOOR.request(asked), json.dumps(answer).encode(), RECORD))


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if delta is not None else []
    return b"data: %b\n\n" % json.dumps({"model": "up", "choices": choices, **fields}).encode()


def streamed(*frames: bytes, asked: bytes = body(stream=True)) -> list[dict[str, Any]]:
    """The events that chunks become, the last of them with the end."""
    stream = DOOR.stream(DOOR.request(asked), RECORD)
    return checked_events(
        stream.start() + b"".join(stream.feed(frame) for frame in frames[:-1]) + stream.end(frames[-1])
    )


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        DOOR.request(body(**fields))
    return refused.value


# The request


def test_a_text_is_a_message_of_the_users() -> None:
    request = DOOR.request(body(model="m"))
    assert chat(model="m") == {"model": "m", "messages": [USER]}
    assert request.known.model == "m"
    assert request.lone_prompt() == "Hi"


def test_every_field_has_its_counterpart() -> None:
    assert chat(
        model="m",
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.25,
        top_logprobs=3,
        parallel_tool_calls=False,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        service_tier="flex",
        metadata={"a": "b"},
        store=False,
        truncation="disabled",
        background=False,
        include=["reasoning.encrypted_content"],
        max_tool_calls=3,
        stream=True,
        stream_options={"include_obfuscation": False},
        x_priority="high",
        x_new=1,
        top_k=5,
    ) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, USER],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.25,
        "logprobs": True,
        "top_logprobs": 3,
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {"type": "json_object"},
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 5,
    }


def test_what_is_null_is_not_there() -> None:
    names = ("instructions", "max_output_tokens", "temperature", "reasoning", "text", "tools", "tool_choice", "store")
    assert chat(**dict.fromkeys(names), conversation=None, background=None, messages=None) == {"messages": [USER]}
    assert chat(reasoning={"effort": None}, text={"format": None}, tools=[], tool_choice="auto") == {"messages": [USER]}


def test_a_stream_tells_its_usage() -> None:
    request = DOOR.request(body(stream=True))
    assert request.stream
    assert request.include_usage


def test_extensions_are_ours_and_other_fields_go_on_as_they_came() -> None:
    request = DOOR.request(
        b'{"input": "a", "x_user_id": "ann", "x_timeout": 5, "min_p": 1.0e-1, "big": 1%b}' % (b"0" * 30)
    )
    assert (request.known.x_user_id, request.known.x_timeout) == ("ann", 5)
    assert bytes(request.fields["min_p"]) == b"1.0e-1"
    assert bytes(request.fields["big"]) == b"1" + b"0" * 30
    assert not any(name.startswith("x_") for name in request.fields)


def test_a_schema_is_a_response_format() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
    named = {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": True}
    assert chat(text={"format": form})["response_format"] == {"type": "json_schema", "json_schema": named}
    assert "response_format" not in chat(text={"format": {"type": "text"}})


def test_logprobs_are_asked_for_in_two_ways() -> None:
    assert chat(include=["message.output_text.logprobs"]) == {"messages": [USER], "logprobs": True}
    assert chat(top_logprobs=0) == {"messages": [USER]}


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_choice_of_tools(choice: str) -> None:
    assert chat(tools=[TOOL], tool_choice=choice)["tool_choice"] == choice


def test_allowed_tools_are_the_ones_offered() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    sent = chat(tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=allowed)
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["g"]
    assert sent["tool_choice"] == "required"


def test_messages_of_every_role() -> None:
    said = {"type": "output_text", "text": "b", "annotations": []}
    assert messages(
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [said, said]},
        {"role": "developer", "content": "c"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": "d"},
    ) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "bb"},
        {"role": "system", "content": "c"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": "d"},
    ]


def test_what_the_system_says_first_is_one_message() -> None:
    two = [{"type": "input_text", "text": "b"}, {"type": "input_text", "text": "c"}]
    said = messages({"role": "developer", "content": two}, {"role": "system", "content": "d"}, USER, instructions="a")
    assert said == [{"role": "system", "content": "a\n\nb\nc\n\nd"}, USER]


def test_images_files_and_sound_are_parts() -> None:
    assert messages(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
                {"type": "input_image", "image_url": "https://x.example/a.png"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        }
    ) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        }
    ]


def test_calls_and_what_came_of_them() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]}
    second = {**CALL, "call_id": "c2"}
    shown = {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_image", "image_url": PNG}]}
    both = {"role": "assistant", "content": "Let me see.", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]}
    text, image = (
        {"type": "text", "text": "The rest of the result of c2:"},
        {"type": "image_url", "image_url": {"url": PNG}},
    )
    after = [
        {"role": "tool", "tool_call_id": "c2", "content": "(The rest of the result is in the next message.)"},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "user", "content": [text, image]},
    ]
    assert messages(USER, thought, said, CALL, second, shown, OUTPUT) == [USER, both, *after]
    called = {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}
    assert messages(USER, thought, said, CALL, second, shown, OUTPUT, CALL) == [USER, both, *after, called]


def test_what_is_said_after_a_call_stands_beside_it() -> None:
    """The output of a call must follow the message that it is in."""
    assert messages(USER, CALL, {"role": "assistant", "content": "So."}, OUTPUT) == [
        USER,
        {"role": "assistant", "content": "So.", "tool_calls": [CHAT_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 1}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning", "id": "a", "summary": []}]}, "input"),
        ({"input": ["a"]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role"),
        ({"input": [USER, {"role": "user", "content": [{"type": "image_url"}]}]}, "input[1].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://a"}]}]},
            "input[0].content[0].file_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "refusal", "refusal": "a"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": PNG}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0].call_id"),
        ({"input": [{"type": "web_search_call", "id": "a", "status": "completed"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id"),
        ({"input": [{"id": "msg_1"}]}, "input[0].id"),
        ({"previous_response_id": ID}, "previous_response_id"),
        ({"model": 1}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "custom", "name": "a"}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "allowed_callers": ["programmatic"]}]}, "tools[0].allowed_callers"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "g"}]}},
            "tool_choice.tools[0].name",
        ),
        ({"include": ["x"]}, "include[0]"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"messages": [USER]}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"x_priority": "urgent"}, "x_priority"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param is not None
    assert error.param.partition("[...]")[0] == param
    assert error.status == 400
    assert error.code


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "invalid_json"),
        (b"[1]", "invalid_value"),
        (b'{"input": "\xff"}', "invalid_utf8"),
        (b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_json"),
        (b"{}", "missing_required_field"),
    ],
)
def test_bodies_that_are_no_request(sent: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        DOOR.request(sent)
    assert refused.value.code == code


# The response


def test_a_plain_answer_repeats_its_request() -> None:
    tool = {"type": "function", "name": "f"}
    asked = {
        "model": "public",
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "tools": [tool],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "user": "u",
        "store": True,
    }
    response = completed({"content": "Hello."}, asked=body(**asked))
    assert response == {
        **asked,
        "id": ID,
        "object": "response",
        "created_at": 1_795_000_000,
        "completed_at": 1_795_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "up",
        "background": False,
        "max_tool_calls": None,
        "previous_response_id": None,
        "reasoning": {"effort": "low", "summary": None},
        "service_tier": None,
        "store": False,
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "tools": [{**tool, "parameters": None, "strict": None}],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "output": [
            {
                "id": f"msg_{RECORD}0000",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}],
            }
        ],
    }


def test_usage_has_its_details() -> None:
    counted = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    details = {
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert completed({"content": "a"}, usage=counted | details)["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 14,
    }
    bare = completed({"content": "a"}, usage={**counted, "prompt_tokens_details": None})["usage"]
    assert bare["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_words_and_calls_are_items(name: str) -> None:
    calls = [CHAT_CALL, {**CHAT_CALL, "id": "c2", "function": {"name": "g", "arguments": '{"a": 1}'}}]
    output = completed({"content": "So.", name: "hm", "tool_calls": calls}, "tool_calls")["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert output[1]["content"][0]["text"] == "So."
    assert [(item["call_id"], item["name"], item["arguments"], item["status"]) for item in output[2:]] == [
        ("c1", "f", "{}", "completed"),
        ("c2", "g", '{"a": 1}', "completed"),
    ]


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_is_cut_is_incomplete(finish: str, reason: str) -> None:
    response = completed({"content": "Hel"}, finish)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None


def test_a_refusal_is_a_part() -> None:
    assert completed({"refusal": "No."})["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


@pytest.mark.parametrize("message", [{}, {"content": ""}])
def test_an_answer_of_nothing_is_an_empty_message(message: dict[str, Any]) -> None:
    assert [part["text"] for part in completed(message)["output"][0]["content"]] == [""]


def test_logprobs_have_their_bytes() -> None:
    """Which a chat completion may leave out, and this API may not."""
    other = {"token": "é", "logprob": -2.5, "bytes": None}
    token = {"token": "日", "logprob": -0.5, "bytes": [1, 2], "top_logprobs": [other]}
    choice = {"index": 0, "message": {"content": "日"}, "finish_reason": "stop", "logprobs": {"content": [token]}}
    said = DOOR.completion(DOOR.request(body()), json.dumps({"choices": [choice]}).encode(), RECORD)
    assert checked_response(said)["output"][0]["content"][0]["logprobs"] == [
        {**token, "top_logprobs": [{**other, "bytes": [195, 169]}]}
    ]


def test_the_tier_is_the_one_that_served() -> None:
    asked = body(service_tier="auto")
    assert completed({"content": "a"}, asked=asked)["service_tier"] == "auto"
    assert completed({"content": "a"}, asked=asked, service_tier="default")["service_tier"] == "default"


@pytest.mark.parametrize("name", ["vllm.json", "llamacpp.json", "transformers.json"])
def test_what_real_servers_answered(name: str) -> None:
    said = (RECORDED / "openai" / name).read_bytes()
    response = checked_response(DOOR.completion(DOOR.request(body()), said, RECORD))
    chat_answer = json.loads(said)
    assert response["output"][0]["content"][0]["text"] == chat_answer["choices"][0]["message"]["content"]
    assert response["model"] == chat_answer["model"]
    assert response["usage"]["total_tokens"] == chat_answer["usage"]["total_tokens"]


@pytest.mark.parametrize("said", [b"", b"[]", b'{"choices": [{"message": {"content": 1}}]}'])
def test_what_is_no_completion_is_broken(said: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        DOOR.completion(DOOR.request(body()), said, RECORD)


# The stream


def test_the_events_of_a_text() -> None:
    events = streamed(
        chunk({"role": "assistant", "content": ""}) + b": x\n\n",
        chunk({"content": "Hel"}),
        chunk({"content": "lo."}) + chunk({}, "stop"),
        chunk(usage={"prompt_tokens": 3, "completion_tokens": 2}) + DONE,
    )
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    created, final = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["model"], created["output"]) == ("in_progress", "up", [])
    assert "usage" not in created
    assert final["usage"]["total_tokens"] == 5
    assert final == completed(
        {"content": "Hello."}, asked=body(stream=True), usage=json.loads('{"prompt_tokens": 3, "completion_tokens": 2}')
    )


def test_a_comment_stays_where_it_is() -> None:
    stream = DOOR.stream(DOOR.request(body(stream=True)), RECORD)
    assert stream.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert stream.feed(chunk({"content": "a"})).startswith(b"event: response.created\n")
    assert stream.end(chunk({}, "stop") + b": cost\n\n" + DONE).startswith(b": cost\n\n")


def test_the_events_of_thoughts_words_and_calls() -> None:
    def call(index: int | None, arguments: str, **facts: Any) -> bytes:
        named = {"name": facts.pop("name")} if "name" in facts else {}
        piece = {"function": {**named, "arguments": arguments}, **facts}
        return chunk({"tool_calls": [{**piece, "index": index} if index is not None else piece]})

    events = streamed(
        chunk({"reasoning": "h"}),
        chunk({"reasoning_content": "m"}),
        chunk({"content": "So."}),
        call(0, "", id="c1", type="function", name="f"),
        call(0, '{"a"'),
        call(1, "", id="c2", type="function", name="g"),
        call(0, ": 1}"),
        call(1, "{}"),
        chunk({}, "tool_calls"),
    )
    assert kinds(events)[2:] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    calls = events[-1]["response"]["output"][2:]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in calls] == [
        ("c1", "f", '{"a": 1}'),
        ("c2", "g", "{}"),
    ]


def test_calls_without_an_index_begin_with_a_name() -> None:
    """As some services send them, a whole call a chunk or in pieces."""
    one = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    events = streamed(
        chunk({"tool_calls": [one]}),
        chunk({"tool_calls": [{"function": {"arguments": "}"}}]}),
        chunk({"tool_calls": [{"function": {"name": "g", "arguments": "{}"}}]}),
        chunk({}, "tool_calls"),
    )
    calls = events[-1]["response"]["output"]
    assert [(item["name"], item["arguments"]) for item in calls] == [("f", "{}"), ("g", "{}")]
    assert calls[0]["call_id"] == "c1"
    assert calls[1]["call_id"]


def test_whole_calls_may_all_have_the_same_index() -> None:
    """As some services send them; a server that repeats itself with every piece means the same call."""
    one = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{"}}
    two = {"index": 0, "id": "c2", "function": {"name": "f", "arguments": "[]"}}
    again = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "}"}}
    events = streamed(chunk({"tool_calls": [one]}), chunk({"tool_calls": [again, two]}), chunk({}, "tool_calls"))
    calls = events[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"]) for item in calls] == [("c1", "{}"), ("c2", "[]")]


def test_content_may_come_in_parts() -> None:
    """Mistral's does, and its thinking is among them."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    output = completed({"content": [thinking, {"type": "text", "text": "So."}]})["output"]
    assert output[0]["summary"][0]["text"] == "hm"
    assert output[1]["content"][0]["text"] == "So."


def test_a_refusal_is_streamed() -> None:
    events = streamed(chunk({"content": "I"}), chunk({"refusal": "N"}), chunk({"refusal": "o"}), chunk({}, "stop"))
    assert kinds(events)[6:] == [
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["content_index"] for event in events if "content_index" in event] == [0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_a_stream_that_is_cut_is_incomplete() -> None:
    events = streamed(chunk({"content": "Hel"}), chunk({}, "length"))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-2]["item"]["status"] == "incomplete"


def test_a_stream_of_nothing_is_an_empty_message() -> None:
    assert kinds(streamed(DONE))[2:] == [
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


@pytest.mark.parametrize(
    "name", ["vllm.sse", "llamacpp.sse", "transformers.sse", "vllm-tools.sse", "vllm-logprobs.sse"]
)
def test_what_real_servers_streamed(name: str) -> None:
    frames = (RECORDED / "openai" / name).read_bytes().replace(b"\r\n", b"\n")
    pieces = [frame + b"\n\n" for frame in frames.split(b"\n\n") if frame]
    events = streamed(*pieces, asked=body(stream=True, top_logprobs=2))
    deltas = [json.loads(piece[6:])["choices"] for piece in pieces if piece != DONE]
    said = "".join(choice["delta"].get("content") or "" for choices in deltas for choice in choices)
    output = events[-1]["response"]["output"]
    assert "".join(part["text"] for item in output for part in item.get("content", ())) == said
    if name == "vllm-logprobs.sse":
        shown = output[0]["content"][0]["logprobs"]
        assert "".join(token["token"] for token in shown) == said
        assert all(len(token["top_logprobs"]) == 2 for token in shown)
    if name == "vllm-tools.sse":
        assert [item["type"] for item in output].count("function_call")


def test_a_stream_that_breaks_is_never_done() -> None:
    stream = DOOR.stream(DOOR.request(body(stream=True)), RECORD)
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}
    frames = stream.feed(chunk({"content": "Hel"}) + chunk({"tool_calls": [call]}))
    events = checked_events(frames + stream.error(UpstreamBroken("It broke.")))
    assert kinds(events)[-3:] == ["function_call_arguments.delta", "error", "failed"]
    assert events[-2] | {"error": None} == {
        "type": "error",
        "sequence_number": len(events) - 2,
        "code": "upstream_broken",
        "message": "It broke.",
        "param": None,
        "error": None,
    }
    assert events[-2]["error"] == {
        "type": "upstream_error",
        "code": "upstream_broken",
        "message": "It broke.",
        "param": None,
    }
    failed = events[-1]["response"]
    assert (failed["status"], failed["error"]) == ("failed", {"code": "server_error", "message": "It broke."})
    assert [(item["type"], item["status"]) for item in failed["output"]] == [
        ("message", "completed"),
        ("function_call", "incomplete"),
    ]


def test_a_stream_that_breaks_before_it_says_anything() -> None:
    stream = DOOR.stream(DOOR.request(body(model="m", stream=True)), RECORD)
    events = checked_events(stream.start() + stream.error(RateLimited("Slower.")))
    assert kinds(events) == ["created", "in_progress", "error", "failed"]
    assert events[-1]["response"]["error"] == {"code": "rate_limit_exceeded", "message": "Slower."}
    assert (events[-1]["response"]["model"], events[-1]["response"]["output"]) == ("m", [])


def test_a_chunk_that_is_none_is_broken() -> None:
    stream = DOOR.stream(DOOR.request(body(stream=True)), RECORD)
    with pytest.raises(UpstreamBroken):
        stream.feed(b'data: {"choices": [{"delta": {"content": 1}}]}\n\n')
    assert events_of(stream.error(UpstreamBroken("a")))[-1]["type"] == "response.failed"


# Errors before an answer


@pytest.mark.parametrize(
    ("param", "here"),
    [
        ("messages[0].content", "input"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format.type", "text.format"),
        ("n", "n"),
        ("model", "model"),
        (None, None),
    ],
)
def test_an_error_names_the_clients_own_field(param: str | None, here: str | None) -> None:
    error = UpstreamRefused("No.", status=400, upstream_status=400, error_type="t", param=param, code="c")
    status, said = DOOR.error(error)
    assert status == 400
    assert json.loads(said) == {"error": {"message": "No.", "type": "t", "param": here, "code": "c"}}
