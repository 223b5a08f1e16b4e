"""Asks a gateway that runs, over HTTP, and asks again when it may yet answer."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from lexora.adapters.http_client import HttpClient, Origin, Response
from lexora.core.errors import UpstreamError, UpstreamUnreachable
from lexora.entry.errors import ConfigError

MOST_CALLS = 5  # of one request
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_WAIT = 1.0, 30.0, 120.0
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 600.0
# Codes that another prompt would meet as well, and what to do. A 400 may be about this one: a provider's filter.
_MISTAKES = {401: "; set LEXORA_API_KEY to a key of this gateway", 403: "", 404: "; name a model with --model"}


class NoAnswer(Exception):
    """What kept a request from an answer, after all its calls."""


class _Choice(msgspec.Struct):
    class Message(msgspec.Struct):
        content: str | None = None

    message: Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class Answer(NamedTuple):
    """`cost_usd` is None where it is not known."""

    text: str
    finish_reason: str | None
    model: str
    deployment: str
    cost_usd: float | None


class Asker:
    """Asks the gateway at `url` with a client's key, if there is one. Belongs to one event loop."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(f"--url: '{url}' is no address of a gateway; give one such as http://127.0.0.1:8001")
        tls = parts.scheme == "https"
        self._url = url
        self._origin = Origin(parts.hostname, port or (443 if tls else 80), tls)
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._host = parts.netloc.rpartition("@")[2]
        self._key = key
        self._client = HttpClient()

    def close(self) -> None:
        self._client.close()

    async def look(self) -> None:
        """Raises ConfigError if no gateway listens."""
        try:
            response = await self._send("GET", "/health", b"")
            response.close()
        except UpstreamUnreachable as error:
            raise ConfigError(
                f"nothing listens at {self._url} ({error.message.rstrip('.')}); start a gateway there with "
                "`lexora serve`, or name another with --url"
            ) from None
        except UpstreamError as error:
            raise ConfigError(f"{self._url} is no gateway: {error.message} Name another with --url") from None

    async def chat(self, body: dict[str, Any], note: Callable[[str], None]) -> Answer:
        """One answer. `note` is told of every wait. Raises NoAnswer, and ConfigError for what is wrong with all."""
        data = msgspec.json.encode(body)
        for call in range(1, MOST_CALLS + 1):
            pause = min(_FIRST_PAUSE * 2 ** (call - 1), _LONGEST_PAUSE) * (0.5 + random.random() / 2)
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    response = await self._send("POST", "/v1/chat/completions", data)
                    try:
                        said = await response.read()
                    finally:
                        response.close()
            except TimeoutError:
                problem = f"no answer within {_ANSWER_SECONDS:g} s"
            except UpstreamError as error:
                problem = error.message.rstrip(".")
            else:
                if response.status == 200:
                    return _answer(response, said)
                code, message = _error(said)
                problem = f"{response.status}: {message}"
                pause = _wait(response, pause, problem, code)
            if call < MOST_CALLS:
                note(f"{problem}; asks again in {pause:.1f} s")
                await asyncio.sleep(pause)
        raise NoAnswer(f"{problem} ({MOST_CALLS} times)")

    async def _send(self, method: str, path: str, body: bytes) -> Response:
        head = {
            "host": self._host,
            "content-type": "application/json",
            "content-length": str(len(body)),
            # A new answer, none that is prepared or kept.
            "cache-control": "no-cache",
            **({"authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        start = f"{method} {self._path}{path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        return await self._client.send(self._origin, start + body, connect_timeout=_CONNECT_SECONDS)


def _wait(response: Response, pause: float, problem: str, code: str) -> float:
    """How long to wait before the next call. Raises NoAnswer and ConfigError where none would help."""
    if code == "no_model_connected":  # it waits for a person
        raise ConfigError(f"the gateway has no model: {problem}; or name another gateway with --url")
    if response.status in _MISTAKES:
        raise ConfigError(f"the gateway refuses, {problem}{_MISTAKES[response.status]}")
    should = response.header(b"x-should-retry")
    if should == b"false" or (response.status not in (408, 409, 425, 429) and response.status < 500):
        raise NoAnswer(problem)
    said = response.header(b"retry-after").decode("latin-1")
    asked = float(said) if said.isdecimal() else pause
    if asked > _LONGEST_WAIT:
        raise NoAnswer(f"{problem}; it may be asked again in {asked:,.0f} s")
    return asked


def _answer(response: Response, body: bytes) -> Answer:
    """Raises NoAnswer."""
    try:
        choice = msgspec.json.decode(body, type=_Completion).choices[0]
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        raise NoAnswer("what came is no chat completion; is there a gateway at --url?") from None

    def fact(name: bytes) -> str:
        return unquote(response.header(name).decode("latin-1"))

    try:
        cost = float(fact(b"x-lexora-cost-usd"))
    except ValueError:
        cost = None
    return Answer(
        choice.message.content or "",
        choice.finish_reason,
        fact(b"x-lexora-model"),
        fact(b"x-lexora-deployment"),
        cost,
    )


def _error(body: bytes) -> tuple[str, str]:
    """An error's code, empty if it has none, and its message."""
    try:
        error = msgspec.json.decode(body)["error"]
        return str(error.get("code") or ""), str(error["message"]).rstrip(".")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return "", "it gives no reason"
