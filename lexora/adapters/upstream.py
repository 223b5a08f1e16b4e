"""Calls deployments: the provider's dialect over the pooled HTTP client."""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from lexora.adapters.http_client import HttpClient, Origin, Response
from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamBroken, UpstreamError, UpstreamRefused
from lexora.core.model_map import Deployment
from lexora.core.usage import Usage
from lexora.providers.dialect import ChunkReader, Completion, Dialect, MalformedEvent
from lexora.providers.errors import refused
from lexora.providers.sse import EventDecoder, EventTooLarge
from lexora.providers.table import PROVIDERS

_LEFT_OUT = b": the upstream sent an event that is not JSON; it was left out\n\n"

_MOST_TARGETS = 1_000


class _Target(NamedTuple):
    """A deployment, worked out for sending."""

    deployment: Deployment
    dialect: Dialect
    origin: Origin
    path: bytes
    headers: bytes
    credential: str | None


def _post(target: _Target, request: ChatRequest, request_id: str) -> bytes:
    path, body = target.dialect.chat_request(request, target.deployment.model)
    return b"POST %b%b HTTP/1.1\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        target.path,
        path.encode(),
        target.headers,
        request_id.encode(),
        len(body),
        body,
    )


class HttpUpstream:
    """The port `Upstream` over HTTP. `credential_of` turns a reference (`env:NAME`) into the secret."""

    def __init__(self, client: HttpClient, credential_of: Callable[[str], str]) -> None:
        self._client = client
        self._credential_of = credential_of
        self._targets: dict[int, _Target] = {}

    async def complete(self, deployment: Deployment, request: ChatRequest, request_id: str) -> Completion:
        target = self._target(deployment)
        response = await self._client.send(
            target.origin, _post(target, request, request_id), connect_timeout=deployment.timeouts.connect
        )
        try:
            body = await response.read()
        finally:
            response.close()
        try:
            if response.status != 200:
                raise refused(response.status, body, retry_after=response.header(b"retry-after"))
            return target.dialect.completion(body)
        except UpstreamRefused as error:
            raise _without(error, target.credential) from None

    async def stream(self, deployment: Deployment, request: ChatRequest, request_id: str) -> "HttpChunkStream":
        target = self._target(deployment)
        response = await self._client.send(
            target.origin,
            _post(target, request, request_id),
            connect_timeout=deployment.timeouts.connect,
            idle_timeout=deployment.timeouts.idle,
        )
        try:
            if response.status != 200:
                body = await response.read()
                raise refused(response.status, body, retry_after=response.header(b"retry-after"))
            if response.header(b"content-type").startswith(b"application/json"):
                target.dialect.completion(await response.read())  # raises what it says, if it is an error
                raise UpstreamBroken("The upstream was asked for a stream and did not stream.")
        except UpstreamRefused as error:
            response.close()
            raise _without(error, target.credential) from None
        except BaseException:
            response.close()
            raise
        return HttpChunkStream(response, target.dialect.chunk_reader(request), target.credential)

    def _target(self, deployment: Deployment) -> _Target:
        # Keyed by identity; the target holds the deployment, so an identity is never used twice.
        target = self._targets.get(id(deployment))
        if target is None:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()  # wildcard routes make a deployment for each model name that clients think of
            target = self._targets[id(deployment)] = self._work_out(deployment)
        return target

    def _work_out(self, deployment: Deployment) -> _Target:
        provider = PROVIDERS[deployment.provider]
        url = urlsplit(deployment.base_url or provider.base_url)
        credential = self._credential_of(deployment.credential) if deployment.credential else None
        headers = {
            "host": url.netloc,
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "lexora",
            **provider.dialect.headers(credential),
            **{name.lower(): value for name, value in deployment.headers.items()},
        }
        tls = url.scheme == "https"
        return _Target(
            deployment,
            provider.dialect,
            Origin(url.hostname or "", url.port or (443 if tls else 80), tls),
            url.path.encode(),
            "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1"),
            credential,
        )


class HttpChunkStream:
    """The port `ChunkStream` over one HTTP response."""

    def __init__(self, response: Response, reader: ChunkReader, credential: str | None) -> None:
        self.malformed = 0
        self._response = response
        self._reader = reader
        self._credential = credential
        self._decoder = EventDecoder()
        self.ended = False
        self._failure: UpstreamError | None = None

    @property
    def model(self) -> str:
        return self._reader.model

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    @property
    def tokens_seen(self) -> int:
        return self._reader.tokens_seen

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
                self._failure = _without(error, self._credential)
                break
            if data == b"[DONE]" and self._reader.ended:
                self.ended = True
                break
        return frames


def _without(error: UpstreamRefused, credential: str | None) -> UpstreamRefused:
    """The error without our credential in it, should the upstream have repeated it."""
    if credential:
        error.message = error.message.replace(credential, "***")
        error.error_type = error.error_type.replace(credential, "***")
        error.param = error.param and error.param.replace(credential, "***")
        error.code = error.code and error.code.replace(credential, "***")
    return error
