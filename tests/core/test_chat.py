"""What the gateway reads of a chat request, and what it refuses."""

import json
from typing import Any

import pytest

from lexora.core.chat import ChatRequest, parse_chat_request
from lexora.core.errors import InvalidRequest

HELLO = {"role": "user", "content": "Hello"}


def parse(**fields: Any) -> ChatRequest:
    return parse_chat_request(json.dumps({"messages": [HELLO], **fields}).encode())


def refusal(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat_request(body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"hello", "invalid_json"),
        (b"{'messages': []}", "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "a"}]} x', "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "invalid_json"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "invalid_json"),
        (b'{"messages": [{"role": "user"}], "tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "invalid_utf8"),
        ('{"messages": [{"role": "user", "content": "é"}]}'.encode("latin-1"), "invalid_utf8"),
        ('{"messages": [{"role": "user", "content": "日本"}]}'.encode("shift_jis"), "invalid_utf8"),
        ('{"messages": [{"role": "user", "content": "a"}]}'.encode("utf-16"), "invalid_utf8"),
        (b'{"other": "\xed\xa0\x80", "messages": [{"role": "user", "content": "a"}]}', "invalid_utf8"),
        (b"[]", "invalid_value"),
        (b"null", "invalid_value"),
        (b'"text"', "invalid_value"),
    ],
)
def test_what_is_no_json_object_is_refused_as_a_whole(body: bytes, code: str) -> None:
    error = refusal(body)
    assert (error.status, error.code, error.param) == (400, code, None)
    assert "\n" not in error.message
    assert len(error.message) < 200


def test_the_byte_that_is_no_utf8_is_named() -> None:
    assert "byte 2" in refusal(b'{"\xff": 1}').message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [HELLO, {"role": 5, "content": "a"}]}, "messages[1].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
        ({"model": 5}, "model"),
        ({"model": ["a"]}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": 129}, "n"),
        ({"n": 10**40}, "n"),
        ({"tools": {}}, "tools"),
        ({"functions": "f"}, "functions"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": 1}}, "response_format.type"),
        ({"logprobs": 3}, "logprobs"),
        ({"x_priority": "urgent"}, "x_priority"),
        ({"x_priority": 1}, "x_priority"),
        ({"x_user_id": 7}, "x_user_id"),
        ({"x_timeout": 0}, "x_timeout"),
        ({"x_timeout": -1}, "x_timeout"),
        ({"x_timeout": 86_401}, "x_timeout"),
        ({"x_timeout": "30"}, "x_timeout"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(json.dumps({"messages": [HELLO], **fields}).encode())
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert f"'{param}'" in error.message


def test_what_is_missing_is_said_to_be_missing() -> None:
    error = refusal(b"{}")
    assert (error.param, error.code) == ("messages", "missing_required_field")
    assert error.message == "The field 'messages' is required."
    assert refusal(b'{"messages": [{}]}').message == "The field 'messages[0].role' is required."


def test_null_is_as_good_as_left_out() -> None:
    optional = ["model", "stream", "stream_options", "n", "tools", "functions", "response_format", "logprobs"]
    request = parse(**dict.fromkeys([*optional, "x_priority", "x_user_id", "x_timeout"]))
    assert request.stream is False
    assert request.include_usage is False
    assert request.lone_prompt() == "Hello"


def test_the_clients_own_bytes_are_kept() -> None:
    odd = b'"big":123456789012345678901234567890, "odd":1.10e+1,"u":"\\u65e5"'
    fields = parse_chat_request(b'{"messages":[{"role":"user","content":"a"}], ' + odd + b"}").fields
    assert list(fields) == ["messages", "big", "odd", "u"]
    assert bytes(fields["big"]) == b"123456789012345678901234567890"
    assert bytes(fields["odd"]) == b"1.10e+1"
    assert bytes(fields["u"]) == b'"\\u65e5"'


@pytest.mark.parametrize("key", ["x_priority", "x_mine", "x_", "x\\u005fpriority", "\\u0078_priority"])
def test_extensions_are_not_forwarded(key: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "a"}}], "{key}": "high", "top_k": 5}}'
    assert list(parse_chat_request(body.encode()).fields) == ["messages", "top_k"]


def test_extensions_are_read() -> None:
    known = parse(x_priority="low", x_user_id="takahito", x_timeout=30).known
    assert (known.x_priority, known.x_user_id, known.x_timeout) == ("low", "takahito", 30)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1},
        {"tools": []},
        {"response_format": {"type": "text"}},
        {"stream": True, "temperature": 0.2, "max_tokens": 5, "model": "any"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
    ],
)
def test_a_lone_user_message_may_be_asked_plainly(fields: dict[str, Any]) -> None:
    assert parse(**fields).lone_prompt() == "Hello"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}},
        {"logprobs": True},
        {"messages": [HELLO, HELLO]},
        {"messages": [{"role": "system", "content": "Be brief."}, HELLO]},
        {"messages": [{"role": "assistant", "content": "Hello"}]},
        {"messages": [{"role": "developer", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url"}]}]},
    ],
)
def test_anything_else_is_not(fields: dict[str, Any]) -> None:
    assert parse(**fields).lone_prompt() is None


def test_the_latest_user_message_is_the_last_of_the_user() -> None:
    history = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "result"},
    ]
    request = parse(messages=history)
    assert request.latest()[0] == "a\nb"
    assert parse(messages=[{"role": "system", "content": "x"}]).latest()[0] == ""
    assert request.latest()[1] == "first\na\nb\n\nresult"


@pytest.mark.parametrize(
    "lengths", [(0,), (199,), (200,), (201,), (150, 49), (150, 50), (10, 500), (500, 10), (1,) * 300]
)
def test_the_context_tail_is_the_last_200_characters_of_the_history(lengths: tuple[int, ...]) -> None:
    texts = [chr(ord("あ") + i % 80) * length for i, length in enumerate(lengths)]
    request = parse(messages=[{"role": "user", "content": text} for text in texts])
    assert request.latest()[1] == "\n".join(texts)[-200:]
