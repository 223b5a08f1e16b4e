"""Many requests of every kind at once, through a real gateway: each gets its due, and nothing is left behind."""

import asyncio
import gc
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import psutil
import pytest

from lexora.adapters import http_client
from tests.support.client import HELLO, chat_body
from tests.support.gateway import RunningGateway
from tests.support.in_process import KNOWN_PROMPT, InProcess
from tests.support.recorded import (
    DONE,
    STREAM_END,
    STREAM_HEAD,
    Action,
    Close,
    RecordedUpstream,
    Script,
    Sleep,
    completion,
    finish,
    json_response,
    piece,
    stream,
    token,
    usage,
    wait_until,
)

OF_EACH = 12
FOREVER = Sleep(float("inf"))

ONE = piece(token("one"))
TWENTY: list[Action] = [action for _ in range(20) for action in (piece(token("t")), Sleep(0.01))]
SCRIPTS: dict[str, Script] = {
    "plain": [json_response(completion())],
    "slow": [Sleep(0.3), json_response(completion())],
    "stream": stream(token("one"), token("two"), finish(), usage(7, 2), DONE),
    "slow stream": [STREAM_HEAD, *TWENTY, piece(finish() + DONE), STREAM_END],
    "closes": [*stream(token("one"), token("two"), finish(), usage(7, 2), DONE), Close()],
    "large": [STREAM_HEAD, *[piece(token("x" * 10_000))] * 100, piece(finish() + DONE), STREAM_END],
    "cut": [STREAM_HEAD, ONE, Close()],
    "refused": [json_response({"error": {"message": "busy"}}, "503 Service Unavailable")],
    "malformed": stream(token("one"), b"data: {oops\n\n", token("two"), finish(), DONE),
    "for ever": [FOREVER],
    "for ever in the middle": [STREAM_HEAD, ONE, FOREVER],
}


def reset(writer: asyncio.StreamWriter) -> None:
    """Leaves as rudely as can be (RST)."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


class Asker:
    """What the kinds of requests below need: the SDK, a raw connection, and who asks."""

    def __init__(self, port: int, client: openai.AsyncOpenAI, user: str) -> None:
        self.port = port
        self.user = user
        self._client = client

    async def sdk(self, script: str, **fields: Any) -> Any:
        """A plain answer, or the text of a stream."""
        extra = {"script": script, "x_user_id": self.user, **fields.pop("extra_body", {})}
        answer = await self._client.chat.completions.create(
            **{"model": "m", "messages": [HELLO], "extra_body": extra, **fields}
        )
        if not fields.get("stream"):
            return answer
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])

    async def raw(self, body: bytes, content_type: str = "application/json") -> asyncio.StreamReader:
        reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=4096)
        self.writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            b"content-type: %b\r\ncontent-length: %d\r\n\r\n" % (content_type.encode(), len(body)) + body
        )
        return reader

    async def raw_chat(self, **fields: Any) -> asyncio.StreamReader:
        return await self.raw(json.dumps(chat_body(x_user_id=self.user, **fields)).encode())

    def leave(self) -> None:
        reset(self.writer)

    async def status(self, reader: asyncio.StreamReader) -> int:
        status = int((await reader.readline()).split()[1])
        await reader.read(-1)
        self.writer.close()
        return status


async def plain(asker: Asker) -> None:
    assert (await asker.sdk("plain")).choices[0].message.content == "Hello."


async def slow(asker: Asker) -> None:
    assert (await asker.sdk("slow")).choices[0].message.content == "Hello."


async def streamed(asker: Asker) -> None:
    assert await asker.sdk("stream", stream=True) == "onetwo"


async def streamed_slowly(asker: Asker) -> None:
    assert await asker.sdk("slow stream", stream=True) == "t" * 20


async def closed_after_the_stream(asker: Asker) -> None:
    assert await asker.sdk("closes", stream=True) == "onetwo"


async def a_megabyte(asker: Asker) -> None:
    messages = [{"role": "user", "content": "x" * 1_000_000}]
    assert (await asker.sdk("plain", messages=messages)).choices[0].message.content == "Hello."


async def prepared(asker: Asker) -> None:
    answer = await asker.sdk("none", messages=[{"role": "user", "content": KNOWN_PROMPT}])
    assert answer.model == "lexora/fixed"


async def malformed(asker: Asker) -> None:
    assert await asker.sdk("malformed", stream=True) == "onetwo"


async def cut(asker: Asker) -> None:
    with pytest.raises(openai.APIError, match="closed the connection"):
        await asker.sdk("cut", stream=True)


async def refused(asker: Asker) -> None:
    with pytest.raises(openai.InternalServerError, match="busy"):
        await asker.sdk("refused")


async def unreachable(asker: Asker) -> None:
    with pytest.raises(openai.InternalServerError, match="No connection"):
        await asker.sdk("none", model="dead")


async def unknown(asker: Asker) -> None:
    with pytest.raises(openai.NotFoundError):
        await asker.sdk("none", model="nobody")


async def too_late(asker: Asker) -> None:
    with pytest.raises(openai.InternalServerError, match="not complete within"):
        await asker.sdk("for ever", extra_body={"x_timeout": 0.3})


async def not_utf8(asker: Asker) -> None:
    assert await asker.status(await asker.raw(b'{"messages": "\xff"}')) == 400


async def deep(asker: Asker) -> None:
    assert await asker.status(await asker.raw(b'{"messages": ' + b"[" * 100_000)) == 400


async def no_json(asker: Asker) -> None:
    assert await asker.status(await asker.raw(b"a=b", "application/x-www-form-urlencoded")) == 415


async def reads_slowly(asker: Asker) -> None:
    reader = await asker.raw_chat(script="large", stream=True)
    size = 0
    while part := await reader.read(4096):
        size += len(part)
        await asyncio.sleep(0)
        end = part
    assert size > 1_000_000
    assert end.endswith(b"0\r\n\r\n")
    asker.writer.close()


async def leaves_before_the_answer(asker: Asker) -> None:
    await asker.raw_chat(script="for ever", stream=random.choice([True, False]))
    await asyncio.sleep(random.random() * 0.2)
    asker.leave()


async def leaves_in_the_middle(asker: Asker) -> None:
    reader = await asker.raw_chat(script="for ever in the middle", stream=True)
    await reader.readuntil(b"one")
    asker.leave()


KINDS: dict[Callable[[Asker], Awaitable[None]], tuple[str, int] | None] = {
    # What the record says: outcome and status. Requests that cannot be read have no user, so none of their own.
    plain: ("completed", 200),
    slow: ("completed", 200),
    streamed: ("completed", 200),
    streamed_slowly: ("completed", 200),
    closed_after_the_stream: ("completed", 200),
    a_megabyte: ("completed", 200),
    prepared: ("completed", 200),
    malformed: ("completed", 200),
    reads_slowly: ("completed", 200),
    cut: ("failed", 502),
    refused: ("failed", 503),
    unreachable: ("failed", 502),
    unknown: ("failed", 404),
    too_late: ("failed", 504),
    leaves_before_the_answer: ("client_left", 499),
    leaves_in_the_middle: ("client_left", 499),
    not_utf8: None,
    deep: None,
    no_json: None,
}


async def ask_all(port: int) -> None:
    """All of them at once, in no order; raises what any of them raises."""
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        requests = [kind(Asker(port, client, f"{kind.__name__} {i}")) for kind in KINDS for i in range(OF_EACH)]
        assert len(requests) >= 200
        random.shuffle(requests)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(request)  # type: ignore[arg-type]


def check_records(records: list[dict[str, Any]]) -> None:
    """That every request has just one record, and that it says what became of it."""
    assert len(records) == len(KINDS) * OF_EACH
    assert len({record["request_id"] for record in records}) == len(records)
    found = Counter((record["user_id"], record["outcome"], record["status"]) for record in records)
    expected = Counter(
        (f"{kind.__name__} {i}", *said) for kind, said in KINDS.items() if said is not None for i in range(OF_EACH)
    )
    unread = sum(said is None for said in KINDS.values()) * OF_EACH
    assert found - expected == Counter({(None, "failed", 400): unread * 2 // 3, (None, "failed", 415): unread // 3})
    assert expected - found == Counter()


def test_200_mixed_requests_at_once_leave_nothing_behind(upstream: RecordedUpstream, door: RunningGateway) -> None:
    process = psutil.Process(door.process.pid)

    def held() -> tuple[int, int, int]:
        return len(door.sockets()), door.open_files(), process.num_threads()

    def wait_for_baseline() -> None:
        wait_until(lambda: held()[0] == 0, "the connections to be closed", 15)

    upstream.play_as_asked(SCRIPTS)
    gc.collect()  # the clients of earlier tests
    # What is opened at first need is open.
    httpx2.post(f"{door.url}/v1/chat/completions", json=chat_body(script="plain")).raise_for_status()
    wait_until(lambda: upstream.open_connections == 0, "the first connection to be closed", 15)
    wait_for_baseline()
    before = held()
    lines_before = len(door.log_lines())
    started = time.time()
    asyncio.run(ask_all(door.port))

    def records() -> list[dict[str, Any]]:
        return [record for record in door.records() if record["created_at"] >= started]

    wait_until(lambda: len(records()) >= len(KINDS) * OF_EACH, "the records", 10)
    check_records(records())
    wait_until(lambda: upstream.open_connections == 0, "the upstream's connections to be closed", 15)
    wait_until(lambda: held() == before, f"all of {before} to be as it was; it is {held()}", 15)
    logged = Counter(line["requestId"] for line in door.log_lines() if "requestId" in line)
    assert set(logged.values()) == {1}
    assert {record["request_id"] for record in door.records()} == set(logged)
    assert not [line for line in door.log_lines()[lines_before:] if "requestId" not in line]


def test_many_requests_at_once_to_a_real_server(door: RunningGateway) -> None:
    async def main() -> None:
        url = f"{door.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def ask(number: int) -> None:
                fields: dict[str, Any] = {"model": "tiny", "messages": [HELLO], "max_tokens": 3}
                answer = await client.chat.completions.create(**fields, stream=bool(number % 2))
                if number % 2:
                    assert [chunk async for chunk in answer][-1].choices[0].finish_reason == "length"
                else:
                    assert answer.usage.completion_tokens == 3

            await asyncio.gather(*map(ask, range(16)))

    asyncio.run(main())


def test_clients_that_leave_rudely_do_no_harm_to_others(upstream: RecordedUpstream, door: RunningGateway) -> None:
    """Some ask and reset their connections as the answers are on their way; all others get theirs."""
    body = json.dumps(chat_body()).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    request = head % len(body) + body
    answer = json_response(completion("y" * 2000))
    upstream.play([answer])

    async def polite() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        for _ in range(40):
            writer.write(request)
            assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(answer.partition(b"\r\n\r\n")[2]))
        writer.close()

    async def rude() -> None:
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", door.port)
            try:
                writer.write(request)
                await asyncio.sleep(random.random() * 0.006)
            finally:
                reset(writer)

    async def main() -> None:
        rude_ones = [asyncio.ensure_future(rude()) for _ in range(24)]
        async with asyncio.timeout(30):
            await asyncio.gather(*(polite() for _ in range(24)))
        for task in rude_ones:
            task.cancel()
        await asyncio.gather(*rude_ones, return_exceptions=True)

    asyncio.run(main())


# --- the same in this process, where tasks and objects can be counted ---


# Of each of these there is one for a request or a connection.
PASSING = (
    "Lifetime",
    "EventStream",
    "Response",
    "_Connection",
    "HttpChunkStream",
    "Relay",
    "OneWriteProtocol",
    "_Transport",
    "RequestResponseCycle",
    "Record",
)


def passing_objects() -> Counter[str]:
    gc.collect()
    return Counter(
        name
        for thing in gc.get_objects()
        if (name := type(thing).__name__) in PASSING and type(thing).__module__.startswith(("lexora.", "uvicorn."))
    )


def test_200_mixed_requests_at_once_leave_no_task_and_no_object(
    upstream: RecordedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "KEEP_IDLE_SECONDS", 0.5)
    upstream.play_as_asked(SCRIPTS)
    with InProcess(upstream) as server:
        before = server.tasks()
        assert not passing_objects()
        asyncio.run(ask_all(server.port))
        wait_until(lambda: len(server.records) >= len(KINDS) * OF_EACH, "the records", 10)
        check_records([{name: getattr(record, name) for name in record.__struct_fields__} for record in server.records])
        server.records.clear()
        wait_until(lambda: server.tasks() == before, "the tasks to end", 10)
        wait_until(lambda: upstream.open_connections == 0, "the upstream's connections to be closed", 15)
        wait_until(lambda: not passing_objects(), "everything to be forgotten", 10)
