"""The gateway as clients of Anthropic's API see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2

from tests.support.client import HELLO, anthropic_sdk
from tests.support.gateway import RunningGateway
from tests.support.recorded import RECORDED, STREAM_END, STREAM_HEAD, Action, piece

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
WEATHER = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOL_HISTORY: dict[str, Any] = {
    "messages": [
        HELLO,
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "7 °C"}]},
    ],
    "tools": [WEATHER],
}
LEAST: dict[str, Any] = {"model": "m", "max_tokens": 12, "messages": [HELLO]}


def ask(gateway: RunningGateway, **fields: Any) -> Any:
    """The SDK's raw response; `.parse()` gives the message."""
    with anthropic_sdk(gateway.url) as client:
        return client.messages.with_raw_response.create(**{**LEAST, **fields})


def count(gateway: RunningGateway, **fields: Any) -> Any:
    fields = {"model": "m", "messages": [HELLO], **fields}
    with anthropic_sdk(gateway.url) as client:
        return client.messages.with_raw_response.count_tokens(**fields)


@contextmanager
def streaming(gateway: RunningGateway, **fields: Any) -> Iterator[anthropic.MessageStream[None]]:
    """The SDK's stream of a message."""
    with anthropic_sdk(gateway.url) as client, client.messages.stream(**{**LEAST, **fields}) as running:
        yield running


def post(gateway: RunningGateway, path: str = MESSAGES, headers: Any = None, **fields: Any) -> httpx2.Response:
    return httpx2.post(f"{gateway.url}{path}", json={**LEAST, **fields}, headers=headers, timeout=30)


def called(message: anthropic.types.Message) -> list[tuple[str, Any]]:
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def prompt_of(message: anthropic.types.Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def anthropics(name: str) -> list[Action]:
    """A stream of Anthropic's, an event at a time."""
    events = (RECORDED / "anthropic" / name).read_bytes().split(b"\n\n")
    return [STREAM_HEAD, *(piece(event + b"\n\n") for event in events if event), STREAM_END]


def error_of(body: Any, request_id: str | None = None) -> str:
    """The type of an error in Anthropic's envelope, which must be whole."""
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    assert body["error"]["message"]
    assert request_id is None or body["request_id"] == request_id
    kind: str = body["error"]["type"]
    return kind


def refused(response: httpx2.Response) -> tuple[int, str]:
    """Status and type, once the request's id is the same in the body and the headers."""
    assert response.headers["request-id"] == response.headers["x-request-id"]
    return response.status_code, error_of(response.json(), response.headers["request-id"])
