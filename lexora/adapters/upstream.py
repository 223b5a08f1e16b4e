"""Calls deployments: the provider's dialect over the pooled HTTP client."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from lexora.adapters.http_client import HttpClient, Origin, Response
from lexora.core.chat import ChatRequest
from lexora.core.continuation import continued
from lexora.core.errors import (
    CannotContinue,
    CredentialMissing,
    LexoraError,
    NotOffered,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from lexora.core.model_map import Deployment
from lexora.core.ports import Credentials, SoFar
from lexora.core.record import Record
from lexora.core.task import CHAT
from lexora.core.usage import Usage
from lexora.providers.dialect import ChunkReader, Completion, Decoder, MalformedEvent, Outgoing
from lexora.providers.errors import refused
from lexora.providers.sigv4 import Identity
from lexora.providers.sse import EventTooLarge
from lexora.providers.table import PROVIDERS, Provider, Sign
from lexora.providers.token_count import count_request, counted

_LEFT_OUT = b": the upstream sent an event that is not JSON; it was left out\n\n"

_MOST_TARGETS = 1_000

_COUNT_SECONDS = 10.0

# What servers say where they have no such endpoint, or not with this model.
_NO_SUCH_THING = (404, 405, 501)

_Answer = TypeVar("_Answer")


class _Target(msgspec.Struct, frozen=True):
    """A deployment, worked out for sending."""

    deployment: Deployment
    model: str
    connect_timeout: float
    provider: Provider
    origin: Origin
    path: bytes
    query: str
    headers: bytes
    secrets: tuple[str, ...]  # what is in the headers and in no error message
    signature: Callable[[Outgoing], bytes] | None  # more header lines


def _retry_after(response: Response) -> float | None:
    """When the upstream wants to be asked again, in seconds: it says so in seconds or as a date (RFC 9110, 10.2.3)."""
    said = response.header(b"retry-after").decode("latin-1").strip()
    if not said:
        return None
    try:
        seconds = float(said) if said[:1].isdigit() else parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


class HttpUpstream:
    """The port `Upstream` over HTTP. A secret that a provider does not take (401) is looked up again, once a call.

    `trace` gives the `traceparent` that an upstream is told (https://www.w3.org/TR/trace-context/), if any. `identity`
    says who signs, where requests are signed; it raises CredentialMissing.
    """

    def __init__(
        self,
        client: HttpClient,
        credentials: Credentials,
        trace: Callable[[Record], str] | None = None,
        identity: Callable[[], Identity] | None = None,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._trace = trace
        self._identity = identity
        self._targets: dict[int, _Target] = {}

    def complete(self, deployment: Deployment, request: ChatRequest, record: Record) -> Awaitable[Completion]:
        return self._complete(self._target(deployment), request, record)

    async def stream(
        self, deployment: Deployment, request: ChatRequest, record: Record, so_far: SoFar | None = None
    ) -> "HttpChunkStream":
        if so_far is not None:
            fields = PROVIDERS[deployment.provider].continues
            if fields is None:
                raise CannotContinue(f"{deployment.label} cannot go on with an answer that another has begun.")
            request = continued(request, so_far, fields)
        first_token = deployment.timeouts.first_token
        if first_token is None:
            return await self._call(self._stream, deployment, request, record)
        loop = asyncio.get_running_loop()
        until = loop.time() + first_token
        too_late = UpstreamTimeout(f"The upstream has sent no token within {first_token:g} s.")
        try:
            async with asyncio.timeout_at(until):
                stream = await self._call(self._stream, deployment, request, record)
        except TimeoutError:
            raise too_late from None
        stream.expect_token(loop.call_at(until, stream.fail_without_token, too_late))
        return stream

    async def count_tokens(self, deployment: Deployment, request: ChatRequest, record: Record) -> int | None:
        if not PROVIDERS[deployment.provider].counts_tokens:
            return None
        try:
            async with asyncio.timeout(_COUNT_SECONDS):
                return await self._call(self._count, deployment, request, record)
        except TimeoutError:
            raise UpstreamTimeout(f"The upstream has not counted within {_COUNT_SECONDS:g} s.") from None

    async def _call(
        self,
        call: Callable[[_Target, ChatRequest, Record], Awaitable[_Answer]],
        deployment: Deployment,
        request: ChatRequest,
        record: Record,
    ) -> _Answer:
        target = self._target(deployment)
        try:
            return await call(target, request, record)
        except UpstreamRefused as error:
            renewed = self._renewed(target, error)
            if renewed is None:
                raise
        return await call(renewed, request, record)

    def _renewed(self, target: _Target, error: UpstreamRefused) -> _Target | None:
        """The target with secrets looked up anew, if the error is about them and they are others."""
        if error.upstream_status != 401 or not target.secrets:
            return None
        renewed = self._work_out(target.deployment, fresh=True)
        if renewed.secrets == target.secrets:
            return None
        self._targets[id(target.deployment)] = renewed
        return renewed

    async def _complete(
        self, target: _Target, request: ChatRequest, record: Record, *, again: bool = False
    ) -> Completion:
        response = await self._client.send(
            target.origin, self._chat(target, request, record), connect_timeout=target.connect_timeout
        )
        try:
            body = await response.read()
        except BaseException:
            response.close()
            raise
        try:
            if response.status != 200:
                raise _refusal(target, request, response, body)
            if request.task is CHAT:
                completion = target.provider.dialect.completion(body)
            else:
                completion = _read(target, request, response, body)
            return completion if target.provider.says_model else completion.named(target.model)
        except UpstreamRefused as error:
            renewed = None if again else self._renewed(target, error)
            if renewed is None:
                raise _without(error, target.secrets) from None
        return await self._complete(renewed, request, record, again=True)

    async def _stream(self, target: _Target, request: ChatRequest, record: Record) -> "HttpChunkStream":
        response = await self._client.send(
            target.origin,
            self._chat(target, request, record),
            connect_timeout=target.connect_timeout,
            idle_timeout=target.deployment.timeouts.idle,
        )
        try:
            if response.status != 200:
                raise _refusal(target, request, response, await response.read())
            if response.header(b"content-type").startswith(b"application/json"):
                _read(target, request, response, await response.read())  # raises what it says, if it is an error
                raise UpstreamBroken("The upstream was asked for a stream and did not stream.")
        except UpstreamRefused as error:
            response.close()
            raise _without(error, target.secrets) from None
        except BaseException:
            response.close()
            raise
        reader = target.provider.dialect.chunk_reader(request)
        if not target.provider.says_model:
            reader.model = target.model
        return HttpChunkStream(response, target.provider.decoder(), reader, target.secrets)

    async def _count(self, target: _Target, request: ChatRequest, record: Record) -> int:
        response = await self._client.send(
            target.origin,
            self._post(target, count_request(request, target.model), record),
            connect_timeout=target.connect_timeout,
        )
        try:
            body = await response.read()
        finally:
            response.close()
        if response.status != 200:
            raise refused(response.status, body)
        return counted(body)

    def _chat(self, target: _Target, request: ChatRequest, record: Record) -> bytes:
        dialect = target.provider.dialect
        if request.task is not CHAT and request.task not in dialect.tasks:
            raise NotOffered(
                f"{target.deployment.label} offers chat, but nothing at {request.task.path}.", param="model"
            )
        return self._post(target, dialect.chat_request(request, target.model), record)

    def _post(self, target: _Target, outgoing: Outgoing, record: Record) -> bytes:
        if target.query:
            path = f"{outgoing.path}{'&' if '?' in outgoing.path else '?'}{target.query}"
            outgoing = outgoing._replace(path=path)
        trace = self._trace(record) if self._trace else ""
        return b"POST %b%b HTTP/1.1\r\n%b%b%bx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (
            target.path,
            outgoing.path.encode(),
            target.headers,
            outgoing.headers,
            target.signature(outgoing) if target.signature else b"",
            record.request_id.encode(),
            b"traceparent: %b\r\n" % trace.encode() if trace else b"",
            len(outgoing.body),
            outgoing.body,
        )

    def _target(self, deployment: Deployment) -> _Target:
        # Keyed by identity; the target holds the deployment, so an identity is never used twice.
        target = self._targets.get(id(deployment))
        if target is None:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()  # wildcard routes make a deployment for each model name that clients think of
            target = self._targets[id(deployment)] = self._work_out(deployment)
        return target

    def _work_out(self, deployment: Deployment, *, fresh: bool = False) -> _Target:
        provider = PROVIDERS[deployment.provider]
        url = urlsplit(deployment.base_url)
        secrets = {name: self._credentials(name, fresh=fresh) for name in deployment.references}
        headers = {
            "host": url.netloc,
            "accept-encoding": "identity",
            "user-agent": "lexora",
            **provider.dialect.headers(secrets.get(deployment.credential or "")),
            **{name.lower(): secrets.get(value, value) for name, value in deployment.headers.items()},
        }
        tls = url.scheme == "https"
        return _Target(
            deployment,
            deployment.model,
            deployment.timeouts.connect,
            provider,
            Origin(url.hostname or "", url.port or (443 if tls else 80), tls),
            url.path.encode(),
            urlencode(deployment.query),
            _lines({name: value for name, value in headers.items() if name != "content-type"}),
            tuple(secrets.values()),
            partial(self._signature, provider.sign, headers, url.path)
            if provider.sign and deployment.credential is None
            else None,
        )

    def _signature(self, sign: Sign, headers: Mapping[str, str], base_path: str, outgoing: Outgoing) -> bytes:
        if self._identity is None:
            raise CredentialMissing("Requests to AWS cannot be signed here.")
        own = dict(line.split(": ", 1) for line in outgoing.headers.decode("latin-1").splitlines())
        path = base_path + outgoing.path
        return _lines(sign(self._identity(), {**headers, **own}, path, outgoing.body, now=time.time()))


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


class HttpChunkStream:
    """The port `ChunkStream` over one HTTP response."""

    def __init__(self, response: Response, decoder: Decoder, reader: ChunkReader, secrets: tuple[str, ...]) -> None:
        self.malformed = 0
        self._response = response
        self._reader = reader
        self._secrets = secrets
        self._decoder = decoder
        self.ended = False
        self._failure: UpstreamError | None = None
        self._token_timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> str:
        return self._reader.id

    @property
    def model(self) -> str:
        return self._reader.model

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    @property
    def tokens_seen(self) -> int:
        return self._reader.tokens_seen

    @property
    def text(self) -> str | None:
        return self._reader.transcript.text

    def expect_token(self, timer: asyncio.TimerHandle) -> None:
        """`timer` runs unless a token comes before."""
        self._token_timer = timer

    def fail_without_token(self, error: UpstreamTimeout) -> None:
        if not self.tokens_seen and not self.ended:
            self._response.fail(error)
            self._response.close()

    async def read(self) -> bytes:
        while not self.ended:
            if self._failure is not None:
                raise self._failure
            try:
                piece = await self._response.chunk()
            except UpstreamError:
                if not self._reader.ended:
                    raise
                piece = b""  # cut after the answer's end: nothing is missing
            try:
                events = self._decoder.feed(piece) if piece else self._decoder.finish()
            except EventTooLarge:
                raise UpstreamBroken("The upstream sent an event without an end.") from None
            frames = self._frames(events)
            if not piece:
                if self._reader.ended:
                    self.ended = True
                elif self._failure is None:
                    self._failure = UpstreamBroken("The upstream's stream stopped before its answer was finished.")
            if frames:
                return frames
        return b""

    def close(self) -> None:
        if self._token_timer is not None:
            self._token_timer.cancel()
        if self.ended:
            self._response.release()
        else:
            self._response.close()

    def _frames(self, events: list[bytes]) -> bytes:
        """What the client gets for `events`. An error among them waits in `_failure` until the rest is out."""
        frames = b""
        for data in events:
            try:
                frames += self._reader.read(data)
            except MalformedEvent:
                if data.strip():
                    self.malformed += 1
                    frames += _LEFT_OUT
            except UpstreamRefused as error:
                self._failure = _without(error, self._secrets)
                break
            if data == b"[DONE]" and self._reader.ended:
                self.ended = True
                break
        return frames


def _read(target: _Target, request: ChatRequest, response: Response, body: bytes) -> Completion:
    if request.task is CHAT:
        return target.provider.dialect.completion(body)
    return target.provider.dialect.tasks[request.task](request, body, response.header(b"content-type"))


def _refusal(target: _Target, request: ChatRequest, response: Response, body: bytes) -> LexoraError:
    kind = response.header(b"x-amzn-errortype").decode("latin-1")
    error = refused(response.status, body, retry_after=_retry_after(response), kind=kind)
    if request.task is not CHAT and response.status in _NO_SUCH_THING:
        what = f"{error.message} ({target.deployment.label} was asked for {request.task.path})"
        if response.status != 404:
            return NotOffered(what, param="model")
        error.message = what  # it may as well be the model that is not there
    return error


def _without(error: UpstreamRefused, secrets: tuple[str, ...]) -> UpstreamRefused:
    """The error without our secrets in it, should the upstream have repeated one."""
    for secret in filter(None, secrets):
        error.message = error.message.replace(secret, "***")
        error.error_type = error.error_type.replace(secret, "***")
        error.param = error.param and error.param.replace(secret, "***")
        error.code = error.code and error.code.replace(secret, "***")
    return error
