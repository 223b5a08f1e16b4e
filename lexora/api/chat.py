"""What clients ask of a model, plain and streamed, through the door of the API that they speak."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from lexora.api.http import JSON_TYPE, credential_of, dollars, headers_of, read_body, require_json, send, whole_body
from lexora.api.lifetime import Lifetime
from lexora.api.sse import EventStream
from lexora.core.auth import CHALLENGE, NO_KEY, Auth
from lexora.core.chat import ChatRequest
from lexora.core.completion import chunks, completion
from lexora.core.doors import Door, DoorStream
from lexora.core.errors import ClientLeft, LexoraError, Unauthorized
from lexora.core.gateway import PREPARED_MODEL, Gateway, Prepared
from lexora.core.keys import Caller
from lexora.core.ports import Ledger
from lexora.core.queue import PRIORITIES
from lexora.core.record import Record, RequestIds
from lexora.core.relay import deployment_comment
from lexora.providers.chat_door import ChatDoor
from lexora.providers.sse import event

LAST_WORD_SECONDS = 5.0

log = logging.getLogger("lexora")


class ChatEndpoint:
    """Answers requests for completions: one record each, under the name `endpoint`, whatever becomes of them.

    `door` is the API that its clients speak; `door_of` gives one for a caller and a body where it depends on them.
    `accept` raises where the request's headers announce a body that the door does not read.
    """

    def __init__(
        self,
        gateway: Gateway,
        auth: Auth,
        ledger: Ledger,
        request_ids: RequestIds,
        max_body_bytes: int,
        max_seconds: float,
        max_plain_seconds: float,
        *,
        endpoint: str = "chat.completions",
        door: Door | None = None,
        door_of: Callable[[Caller | None, bytes], Door] | None = None,
        accept: Callable[[dict[bytes, bytes]], None] = require_json,
    ) -> None:
        self._endpoint = endpoint
        self._door: Door = door or ChatDoor()
        self._door_of = door_of
        self._accept = accept
        self._gateway = gateway
        self._auth = auth
        self._ledger = ledger
        self._request_ids = request_ids
        self._max_body_bytes = max_body_bytes
        self._max_seconds = max_seconds
        self._max_plain_seconds = min(max_seconds, max_plain_seconds)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        now = time.time()
        record = Record(self._request_ids.new(now), now, self._endpoint)
        try:
            await self._answer(scope, receive, send, record, started)
        except LexoraError as error:
            _note(record, error)
            await self._send_error(scope, send, record, error)
        except ClientLeft:
            record.outcome, record.status = "client_left", 499
        except asyncio.CancelledError:
            _note(record, LexoraError("The gateway was stopped.", code="shutdown"))
            raise
        except Exception as error:
            log.exception("unexpected error in request %s", record.request_id)
            unexpected = LexoraError("Something went wrong inside the gateway.", code="internal_error")
            _note(record, unexpected)
            record.error_message = type(error).__name__
            await self._send_error(scope, send, record, unexpected)
        finally:
            record.duration_ms = (time.perf_counter() - started) * 1e3
            self._ledger.add(record)

    async def _send_error(self, scope: Scope, send_: Send, record: Record, error: LexoraError) -> None:
        status, body = self._door.error(error, record.request_id)
        await send(scope, send_, status, [JSON_TYPE, *_facts(record), *error.headers], body)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        # Asked once: on Python 3.11, asking is a system call.
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    async def _answer(self, scope: Scope, receive: Receive, send_: Send, record: Record, started: float) -> None:
        headers = headers_of(scope)
        self._accept(headers)
        body = whole_body(scope, self._max_body_bytes) or await read_body(scope, receive, self._max_body_bytes)
        refusal: LexoraError | None = None
        credential = credential_of(headers)
        caller = self._auth.recall(credential)
        if caller is None:
            try:
                caller = await self._auth.identify(credential)
            except LexoraError as error:  # a prepared answer may be given all the same
                refusal = error
        door = self._door_of(caller, body) if self._door_of is not None else self._door
        request = door.request(body)
        request.betas = headers.get(b"anthropic-beta", b"")
        request.cache_control = headers.get(b"cache-control", b"")
        stream = record.stream = request.stream
        record.latest_user_message, record.context_tail = request.latest()
        if b"traceparent" in headers:
            record.trace_parent = headers[b"traceparent"].decode("latin-1")
        if caller is not None:
            _note_caller(record, caller, request)
        fresh = request.cache_control and b"no-cache" in request.cache_control.lower()
        may = not fresh and (caller or not self._auth.prepared)
        if may and (prompt := self._gateway.known_prompt(request, record)) is not None:
            try:
                prepared = await self._gateway.prepared(prompt, request, record)
            except OSError as error:  # a model may answer all the same
                log.error("request %s: the prepared answers cannot be read: %s", record.request_id, error)  # noqa: TRY400 - no bug
                prepared = None
            if prepared is not None:
                record.ttft_ms = (time.perf_counter() - started) * 1e3
                await self._send_prepared(prepared, request, door, scope, send_, record)
                return
        if caller is None:
            raise refusal or Unauthorized(NO_KEY, headers=CHALLENGE)
        if stream:
            await self._stream(request, caller, door, scope, receive, send_, record, started)
            return
        loop = self._running_loop()
        with Lifetime(receive, loop, self._max_plain_seconds) as lifetime:
            answer = await self._gateway.complete(request, caller, record, lifetime.expire_in, loop)
        record.ttft_ms = (time.perf_counter() - started) * 1e3
        body = door.completion(request, answer.body, record.request_id)
        content_type = (b"content-type", answer.content_type) if answer.content_type else JSON_TYPE
        await send(scope, send_, 200, [content_type, *_facts(record)], body)

    async def _send_prepared(
        self, answer: Prepared, request: ChatRequest, door: Door, scope: Scope, send_: Send, record: Record
    ) -> None:
        if request.stream:
            events = EventStream(scope, send_, lambda: _facts(record), self._running_loop())
            out = door.stream(request, record.request_id)
            await events.end(out.start() + out.end(_prepared_frames(answer, record, request.include_usage)))
        else:
            body = door.completion(request, _prepared_completion(answer, record), record.request_id)
            await send(scope, send_, 200, [JSON_TYPE, *_facts(record)], body)

    async def _stream(
        self,
        request: ChatRequest,
        caller: Caller,
        door: Door,
        scope: Scope,
        receive: Receive,
        send_: Send,
        record: Record,
        started: float,
    ) -> None:
        loop = self._running_loop()
        shown: float | None = None  # the cost that the headers say
        named = ""  # and the deployment

        def facts() -> list[tuple[bytes, bytes]]:
            nonlocal shown, named
            shown, named = record.cost_usd, record.deployment
            return _facts(record)

        events = EventStream(scope, send_, facts, loop)
        out: DoorStream = door.stream(request, record.request_id)
        try:
            with Lifetime(receive, loop, self._max_seconds) as lifetime:
                relay = await self._gateway.stream(request, caller, record, lifetime.expire_in, loop)
                try:
                    await events.start()
                    first = out.start()
                    if record.deployment != named:  # they went out while another was asked
                        first += out.feed(deployment_comment(record.deployment))
                    if first:
                        await events.write(first)
                    while frames := await relay.read():
                        if record.ttft_ms is None and relay.tokens_seen:
                            record.ttft_ms = (time.perf_counter() - started) * 1e3
                        if relay.ended:
                            break
                        if said := out.feed(frames):
                            await events.write(said)
                finally:
                    relay.close()
                await events.end(out.end(frames + (b"" if record.cost_usd == shown else _cost_comment(record))))
        except LexoraError as error:
            if not events.started:
                raise
            _note(record, error)
            with contextlib.suppress(TimeoutError):
                # A client that does not read does not get to keep the connection open either.
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await events.end(out.error(error))
        finally:
            events.close()


def _prepared_completion(answer: Prepared, record: Record) -> bytes:
    return completion(
        request_id=record.request_id,
        created=int(record.created_at),
        model=PREPARED_MODEL,
        text=answer.text,
        usage=answer.usage,
    )


def _prepared_frames(answer: Prepared, record: Record, include_usage: bool) -> bytes:
    data = chunks(
        request_id=record.request_id,
        created=int(record.created_at),
        model=PREPARED_MODEL,
        text=answer.text,
        usage=answer.usage,
        include_usage=include_usage,
    )
    return b"".join(map(event, data))


def _note_caller(record: Record, caller: Caller, request: ChatRequest) -> None:
    """Whose request it is and what it has a right to: `x_*` ask, and the caller's key decides."""
    known = request.known
    record.user_id = (known.x_user_id if caller.on_behalf else None) or caller.user_id
    record.key_id = caller.key_id
    record.priority = caller.priority
    if known.x_priority is not None:
        record.priority = max(known.x_priority, caller.highest, key=PRIORITIES.index)  # the lower one stands later


def _facts(record: Record) -> list[tuple[bytes, bytes]]:
    """The headers that say where an answer came from. The cost is left out while (or if) it is not known."""
    facts = [(b"x-request-id", record.request_id.encode())]
    if record.endpoint == "messages":
        facts.append((b"request-id", record.request_id.encode()))  # where Anthropic's clients look for it
    if record.origin is not None:
        facts += _source(record.origin, record.deployment, record.upstream_model)
        if record.cost_usd is not None:
            facts.append((b"x-lexora-cost-usd", dollars(record.cost_usd)))
        if record.saved_usd is not None:
            facts.append((b"x-lexora-saved-usd", dollars(record.saved_usd)))
    if record.queue_ms is not None:
        facts.append((b"x-lexora-queue-wait-ms", b"%d" % record.queue_ms))
        facts.append((b"x-lexora-queue-position", b"%d" % (record.queue_position or 0)))
    facts += record.response_headers
    return facts


def _cost_comment(record: Record) -> bytes:
    """What a stream cost, known only at its end: a comment, which clients pass over."""
    return b"" if record.cost_usd is None else b": x-lexora-cost-usd: %b\n\n" % dollars(record.cost_usd)


@lru_cache(maxsize=1024)
def _source(origin: str, deployment: str, model: str) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-lexora-origin", origin.encode()),
        (b"x-lexora-deployment", _header_text(deployment)),
        (b"x-lexora-model", _header_text(model)),
    )


def _header_text(text: str) -> bytes:
    return text.encode() if text.isascii() and text.isprintable() else quote(text, safe="/:").encode()


def _note(record: Record, error: LexoraError) -> None:
    record.outcome = "failed"
    record.status = error.status
    record.error_code = error.code
    record.error_message = error.message
    if not record.tokens_in and not record.tokens_out:
        record.cost_usd = 0.0
