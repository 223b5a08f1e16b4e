"""An upstream that replays bytes over a real socket: what no real server can be made to do on demand.

A script is what one request gets: bytes to send, and the actions below between them. A server takes the scripts in
turn and repeats the last one. `tests/recorded` holds what real servers sent.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

RECORDED = Path(__file__).resolve().parents[1] / "recorded"


def recorded(name: str) -> "list[Action]":
    """What a real server sent, byte for byte but for the chunks: one for each event, where the body was chunked."""
    head, _, body = (RECORDED / name).read_bytes().partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if not any(line.lower() == b"transfer-encoding: chunked" for line in lines):
        return [head + b"\r\n\r\n" + body]
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    return [head + b"\r\n\r\n", *map(piece, events), STREAM_END]


class Sleep(NamedTuple):
    """Waits; `inf` until the other side leaves."""

    seconds: float


class Until(NamedTuple):
    """Waits until the test sets the event, or the other side leaves."""

    event: threading.Event


class Close:
    """Closes the connection in an orderly way (FIN)."""


class Reset:
    """Resets the connection (RST)."""


Action = bytes | Sleep | Until | Close | Reset
Script = Sequence[Action]


class Received(NamedTuple):
    """One request as the upstream got it. `connection` counts the connections from 0."""

    connection: int
    head: bytes
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def json(self) -> Any:
        return json.loads(self.body)


class RecordedUpstream:
    """A running server. `received` are the requests so far, `left` when (monotonic) each connection's peer left.

    `sent` counts the bytes that it could send: those that the other side, or the network between, has taken.
    """

    def __init__(self, scripts: Sequence[Script], tls: ssl.SSLContext | None = None) -> None:
        self.open_connections = 0
        self.port = 0
        self.about = json_response({"object": "list", "data": []})  # what every GET is answered with
        self._handlers: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls = tls
        self._begin(scripts)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def play(self, *scripts: Script) -> None:
        """Closes every connection, forgets what was and serves these scripts from now on."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._play_anew(scripts), self._loop).result(10)

    def play_as_asked(self, scripts: Mapping[str, Script]) -> None:
        """The same, but every request names its own script, in a field `script`."""
        self.play([b""])
        self._by_name = dict(scripts)

    def wait_until_left(self, connection: int = 0, seconds: float = 5) -> float:
        """When the peer of a connection left, waiting for it."""
        wait_until(lambda: connection in self.left, "the connection to be closed", seconds)
        return self.left[connection]

    def wait_until_received(self, requests: int = 1, seconds: float = 5) -> None:
        """Waits until so many requests have come."""
        wait_until(lambda: len(self.received) >= requests, f"{requests} requests", seconds)

    def _begin(self, scripts: Sequence[Script]) -> None:
        self.received: list[Received] = []
        self.left: dict[int, float] = {}
        self.connections = 0
        self.sent = 0
        self._scripts = list(scripts)
        self._by_name: dict[str, Script] = {}

    def _script(self) -> Script:
        if self._by_name:
            return self._by_name[self.received[-1].json()["script"]]
        return self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]

    async def _play_anew(self, scripts: Sequence[Script]) -> None:
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        self._begin(scripts)

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(
            self._connection, "127.0.0.1", 0, limit=64 * 1024 * 1024, backlog=512, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        number = self.connections
        self.connections += 1
        self.open_connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.partition(b":")[2])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                if head.startswith(b"GET "):  # the gateway looks whether it is there
                    writer.write(self.about)
                    continue
                self.received.append(Received(number, head.removesuffix(b"\r\n\r\n"), await reader.readexactly(length)))
                if not await self._play(self._script(), reader, writer, number):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.setdefault(number, time.monotonic())
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._handlers.discard(task)
            self.open_connections -= 1
            writer.close()

    async def _play(
        self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        """Plays one script; False if the connection is over."""
        for action in script:
            if isinstance(action, bytes):
                writer.write(action)
                await writer.drain()
                self.sent += len(action)
            elif isinstance(action, Sleep | Until):
                if await self._peer_leaves(action, reader):
                    self.left.setdefault(number, time.monotonic())
                    return False
            elif isinstance(action, Close):
                return False
            else:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
        return True

    async def _peer_leaves(self, wait: Sleep | Until, reader: asyncio.StreamReader) -> bool:
        """Waits; True if the peer left before the time was over."""
        leaves = asyncio.ensure_future(reader.read(1))
        try:
            if isinstance(wait, Sleep):
                await asyncio.wait({leaves}, timeout=None if wait.seconds == float("inf") else wait.seconds)
            else:
                while not leaves.done() and not wait.event.is_set():
                    await asyncio.wait({leaves}, timeout=0.005)
            return leaves.done()
        finally:
            leaves.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await leaves


def wait_until(condition: Callable[[], object], what: str, seconds: float = 5) -> None:
    """Waits until the condition holds; `what` names it should it never."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.005)


@contextmanager
def recorded_upstream(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[RecordedUpstream]:
    """Serves the scripts on a free port until the block ends."""
    upstream = RecordedUpstream(scripts, tls)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        async def main() -> None:
            await upstream.serve(started, stop)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(5)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def json_response(body: Any, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole JSON response; `headers` are extra lines, each ended by CRLF."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {len(data)}\r\n\r\n"
    return head.encode() + data


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def piece(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(*events: bytes) -> list[Action]:
    """A whole stream: head, a piece of the body for each event, end."""
    return [STREAM_HEAD, *map(piece, events), STREAM_END]


def token(text: str, index: int = 0, **extra: Any) -> bytes:
    """The event of one content chunk."""
    choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
    return _event({"choices": [choice], **extra})


def finish(reason: str = "stop", index: int = 0, **extra: Any) -> bytes:
    """The event of the chunk that ends a choice."""
    return _event({"choices": [{"index": index, "delta": {}, "finish_reason": reason}], **extra})


def usage(prompt: int, completion: int) -> bytes:
    """The event of the chunk that holds the usage."""
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return _event({"choices": [], "usage": tokens})


DONE = b"data: [DONE]\n\n"


def error_event(message: str, **facts: Any) -> bytes:
    """The event with which a server reports an error inside a stream."""
    return b"data: " + json.dumps({"error": {"message": message, **facts}}).encode() + b"\n\n"


def _event(fields: dict[str, Any]) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "recorded", **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def completion(text: str = "Hello.", **extra: Any) -> dict[str, Any]:
    """A whole plain completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "recorded",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        **extra,
    }
