"""Looks after the user's own model servers: which are up, how much each can take, and the memory of the GPUs here."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple

import msgspec

from lexora.adapters.gpu import gpu_memory
from lexora.adapters.http_client import HttpClient
from lexora.core.model_map import Deployment, is_reference
from lexora.entry.upstreams import NOT_CONNECTED, SILENT, credential_of, fetch
from lexora.providers.dialect import NOT_JSON
from lexora.providers.operations import is_sleeping
from lexora.providers.table import PROVIDERS

log = logging.getLogger("lexora")

GpuMemory = tuple[int, int] | None

# A server at work may be slow to answer: it is away after so many looks in a row of so long each.
LOOK_SECONDS = 3.0
MISSES = 3


class ServerFacts(NamedTuple):
    """What is known of a deployment's server.

    `reachable` is None while that is not known. `running` and `waiting` are requests inside the server, None where it
    does not say. `concurrency` is how many it is to be sent at a time, by the config or else by what was learned; None:
    no bound. `asleep`: it must be woken before it answers.
    """

    reachable: bool | None
    running: int | None
    waiting: int | None
    concurrency: int | None
    asleep: bool = False


class _Props(msgspec.Struct):
    """Of llama.cpp's `/props`."""

    total_slots: Annotated[int, msgspec.Meta(ge=1)]


class _Server:
    """One server, which several deployments may share. `reachable` is None until it is known."""

    def __init__(self) -> None:
        self.reachable: bool | None = None
        self.misses = 0
        self.answers = 0
        self.running: int | None = None
        self.waiting: int | None = None
        self.concurrency: int | None = None
        self.asleep = False

    def learn_from_look(self, status: int, answers: int) -> None:
        """Whether it is there: it is if it has answered this look, or any chat since the last one.

        `answers` counts its good answers to chats so far.
        """
        if _is_there(status) or answers > self.answers:
            self.reachable, self.misses = True, 0
        else:
            self.misses += 1
            if status == NOT_CONNECTED or self.misses >= MISSES:
                self.reachable = False
        self.answers = answers

    def learn_from_load(self) -> None:
        """vLLM: where requests wait inside, what runs is what it can take; one more if none waits while that runs."""
        if self.running is None or self.waiting is None:
            return
        if self.waiting:
            self.concurrency = max(1, self.running)
        elif self.concurrency is not None and self.running >= self.concurrency:
            self.concurrency += 1


class Monitor:
    """Asks every own server, every `interval` seconds. `gpu_memory` is the last reading: used and total bytes.

    `answers` counts a deployment's good answers to chats so far; a server is given `look_seconds` to answer a look.
    """

    def __init__(
        self,
        client: HttpClient,
        answers: Callable[[Deployment], int],
        interval: float = 5.0,
        look_seconds: float = LOOK_SECONDS,
        read_gpu_memory: Callable[[], GpuMemory] = gpu_memory,
    ) -> None:
        self.gpu_memory: GpuMemory = None
        self._client = client
        self._answers = answers
        self._interval = interval
        self._look_seconds = look_seconds
        self._read_gpu_memory = read_gpu_memory
        self._gpu_reader: threading.Thread | None = None
        self._servers: dict[str, _Server] = {}  # by base URL

    async def watch(
        self, deployments: Callable[[], Iterable[Deployment]], note: Callable[[Deployment, ServerFacts], None]
    ) -> None:
        """Runs for ever: tells `note` of every own deployment, each as soon as its server has answered or not."""
        while True:
            try:
                await self._look(deployments, note)
            except Exception:
                log.exception("looking at the upstreams failed")  # the next round may be well
            await asyncio.sleep(self._interval)

    async def _look(
        self, deployments: Callable[[], Iterable[Deployment]], note: Callable[[Deployment, ServerFacts], None]
    ) -> None:
        self._look_at_gpus()
        own: dict[str, Deployment] = {}
        for deployment in deployments():
            if deployment.origin == "own":
                own.setdefault(deployment.base_url, deployment)
        self._servers = {url: self._servers.get(url) or _Server() for url in own}
        await asyncio.gather(*(self._look_at(deployment, deployments, note) for deployment in own.values()))

    async def _look_at(
        self,
        one: Deployment,
        deployments: Callable[[], Iterable[Deployment]],
        note: Callable[[Deployment, ServerFacts], None],
    ) -> None:
        """Looks at the server of a deployment, and tells of all that are there by then."""
        url = one.base_url
        server = self._servers[url]
        was_reachable = server.reachable
        status = await self._ask(server, one)
        own = [deployment for deployment in deployments() if deployment.origin == "own" and deployment.base_url == url]
        server.learn_from_look(status, sum(map(self._answers, own)))
        if server.reachable != was_reachable:
            _say(url, own, server.reachable, was_reachable)
        for deployment in own:
            concurrency = deployment.concurrency or server.concurrency
            facts = ServerFacts(server.reachable, server.running, server.waiting, concurrency, server.asleep)
            note(deployment, facts)

    async def _ask(self, server: _Server, deployment: Deployment) -> int:
        """Asks it for its load, and whether it is there: the status with which it answers that."""
        headers = headers_of(deployment)
        status, _ = await fetch(self._client, f"{deployment.base_url}/models", headers, self._look_seconds)
        server.running = server.waiting = None
        root = deployment.base_url.removesuffix("/v1")
        if not _is_there(status):
            return status
        if deployment.provider == "vllm":
            _, body = await fetch(self._client, f"{root}/metrics", headers)
            metrics = body.split(b"\n")
            server.running = _gauge(metrics, b"vllm:num_requests_running")
            server.waiting = _gauge(metrics, b"vllm:num_requests_waiting")
            server.learn_from_load()
            said, body = await fetch(self._client, f"{root}/is_sleeping", headers)
            if said != SILENT:
                server.asleep = said == 200 and is_sleeping(body)
        elif deployment.provider == "llamacpp":
            _, body = await fetch(self._client, f"{root}/props", headers)
            server.concurrency = _slots(body) or server.concurrency
        return status

    def _look_at_gpus(self) -> None:
        """In a thread of its own, as a driver may hang; then nothing is known."""
        if self._gpu_reader is not None and self._gpu_reader.is_alive():
            self.gpu_memory = None
            return

        def read() -> None:
            self.gpu_memory = self._read_gpu_memory()

        self._gpu_reader = threading.Thread(target=read, daemon=True)
        self._gpu_reader.start()


def _is_there(status: int) -> bool:
    """Whatever a server thinks of our question, it is there."""
    return 0 < status < 500


def headers_of(deployment: Deployment) -> dict[str, str]:
    """What its server wants in the head of every request."""
    credential = credential_of(deployment.credential) if deployment.credential else None
    own = {
        name.lower(): credential_of(value) if is_reference(value) else value
        for name, value in deployment.headers.items()
    }
    return {**PROVIDERS[deployment.provider].dialect.headers(credential), **own}


def _gauge(lines: list[bytes], name: bytes) -> int | None:
    """A gauge in Prometheus' text format, summed over its series (one for each engine); None if it is not there."""
    try:
        values = [float(line.rsplit(b" ", 1)[1]) for line in lines if line.startswith((name + b"{", name + b" "))]
        return int(sum(values)) if values else None
    except (ValueError, OverflowError):  # OverflowError: of an infinite one
        return None


def _slots(props: bytes) -> int | None:
    try:
        return msgspec.json.decode(props, type=_Props).total_slots
    except NOT_JSON:
        return None


def _say(url: str, deployments: list[Deployment], reachable: bool | None, was_reachable: bool | None) -> None:
    labels = ", ".join(dict.fromkeys(deployment.label for deployment in deployments))
    if reachable is False:
        log.warning("upstream away: %s (%s) does not answer", url, labels)
    elif was_reachable is not None:
        log.info("upstream back: %s (%s) answers again", url, labels)
