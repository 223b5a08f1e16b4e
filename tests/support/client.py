"""Clients that see the bytes, and clients that do what no SDK does: send what is no request, read slowly, leave."""

import json
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import anthropic
import httpx2
import openai

# The gateway's credential for its paid upstreams; nobody else may ever see it.
UPSTREAM_KEY = "sk-upstream-0123456789"
HELLO = {"role": "user", "content": "Hello"}


class Listening(Protocol):
    """A gateway, in a process of its own or in this one."""

    @property
    def port(self) -> int: ...
    @property
    def url(self) -> str: ...


def sdk(gateway: Listening) -> openai.OpenAI:
    """The real SDK, without its retries: a retry would hide an error."""
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)


def anthropic_sdk(base_url: str) -> anthropic.Anthropic:
    """The other real SDK, for the upstream of a deployment (`base_url` ends in /v1)."""
    return anthropic.Anthropic(base_url=base_url.removesuffix("/v1"), api_key="none", max_retries=0)


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [HELLO], **fields}


def bearer(key: str | None) -> dict[str, str]:
    """The header that shows a key."""
    return {} if key is None else {"authorization": f"Bearer {key}"}


def post(gateway: Listening, content: bytes | None = None, *, key: str | None = None, **fields: Any) -> httpx2.Response:
    """One chat request, read to the end of its response. Raises httpx2's error if that end is not a true one."""
    body = json.dumps(chat_body(**fields)).encode() if content is None else content
    headers = {"content-type": "application/json", **bearer(key)}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", content=body, headers=headers, timeout=30)


def events(response: httpx2.Response | bytes) -> list[Any]:
    """The data of every event: JSON decoded, `[DONE]` as it is. Every frame must be one line: an event or a comment."""
    body = response if isinstance(response, bytes) else response.content
    *frames, rest = body.decode().split("\n\n")
    assert rest == ""
    found = []
    for frame in frames:
        assert "\n" not in frame, frame
        if not frame.startswith(":"):
            data = frame.removeprefix("data: ")
            assert data != frame, frame
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


def comments(response: httpx2.Response) -> list[str]:
    return [frame for frame in response.text.split("\n\n") if frame.startswith(":")]


def text_of(chunks: list[Any]) -> str:
    """The first choice's text in the chunks of a stream."""
    deltas = [choice["delta"] for chunk in chunks if isinstance(chunk, dict) for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


class RawChat:
    """One chat request on a socket of its own; `received` is what has been read of the response."""

    def __init__(
        self,
        gateway: Listening,
        fields: Mapping[str, Any],
        *,
        path: bytes = b"/v1/chat/completions",
        receive_buffer: int | None = None,
    ) -> None:
        self.received = bytearray()
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", gateway.port))
        self.port = int(self._socket.getsockname()[1])
        body = json.dumps(chat_body(**fields)).encode()
        self._socket.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n" % (path, len(body)) + body
        )

    def read_until(self, mark: bytes) -> bytearray:
        """Reads until the response holds `mark`."""
        while mark not in self.received:
            self.read_some()
        return self.received

    def read_to_end(self) -> bytearray:
        """Reads until the gateway closes the connection."""
        while self.read_some():
            pass
        return self.received

    def leave(self, *, reset: bool = False) -> float:
        """Closes the connection (FIN, or RST) and says when (monotonic)."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        now = time.monotonic()
        self._socket.close()
        return now

    def read_some(self) -> bool:
        """Reads what is there; False at the end."""
        piece = self._socket.recv(256 * 1024)
        self.received += piece
        return bool(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
