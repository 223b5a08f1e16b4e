"""The same answer as an upstream of each dialect gives it, plain and streamed: 7 tokens in, 3 out."""

import json
from typing import Any

from tests.support.recorded import DONE, Script, completion, finish, json_response, stream, token, usage

CITY = {"city": "Oslo"}


def said(provider: str, text: str, *, streamed: bool) -> Script:
    """An answer that says `text`; streamed, a word in each event."""
    words = text.split(" ")
    pieces = [f"{word} " for word in words[:-1]] + words[-1:]
    match provider, streamed:
        case "anthropic", False:
            return _message({"type": "text", "text": text}, "end_turn")
        case "anthropic", True:
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
            return _message_stream({"type": "text", "text": ""}, deltas, "end_turn")
        case "gemini", False:
            return [json_response(_candidate({"text": text}, finishReason="STOP"))]
        case "gemini", True:
            parts = [_candidate({"text": piece}) for piece in pieces]
            return stream(*map(_data, [*parts, _candidate({"text": ""}, finishReason="STOP")]))
        case _, False:
            return [json_response(completion(text))]
    begun = token("", choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    return stream(begun, *map(token, pieces), finish(), usage(7, 3), DONE)


def called(provider: str, *, streamed: bool) -> Script:
    """A call of `get_weather` for Oslo; streamed, its arguments come in two pieces where they can."""
    arguments = json.dumps(CITY)
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather"}
    call: dict[str, Any] = {"functionCall": {"name": "get_weather", "args": CITY}, "thoughtSignature": "c2ln"}
    match provider, streamed:
        case "anthropic", False:
            return _message({**use, "input": CITY}, "tool_use")
        case "anthropic", True:
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in (arguments[:5], arguments[5:])]
            return _message_stream({**use, "input": {}}, deltas, "tool_use")
        case "gemini", False:
            return [json_response(_candidate(call, finishReason="STOP"))]
        case "gemini", True:
            return stream(_data(_candidate(call)), _data(_candidate({"text": ""}, finishReason="STOP")))
        case _, False:
            message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [_call(arguments)]}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
            return [json_response(completion(choices=[choice]))]
    begun = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_call(arguments[:5])}]}
    more = {"tool_calls": [{"index": 0, "function": {"arguments": arguments[5:]}}]}
    deltas = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in (begun, more)]
    return stream(*[token("", choices=choices) for choices in deltas], finish("tool_calls"), usage(7, 3), DONE)


def _call(arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def _data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": None}


def _message(block: dict[str, Any], stop_reason: str) -> Script:
    counted = {"input_tokens": 7, "output_tokens": 3}
    return [json_response({**_MESSAGE, "content": [block], "stop_reason": stop_reason, "usage": counted})]


def _message_stream(block: dict[str, Any], deltas: list[dict[str, Any]], stop_reason: str) -> Script:
    start = {**_MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    return stream(*[b"event: %b\n" % event["type"].encode() + _data(event) for event in events])


def _candidate(part: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0, **facts}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        "modelVersion": "gemini",
        "responseId": "r1",
    }
