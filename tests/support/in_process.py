"""The application in this process, on the server and the event loop that it has in production: for what only counting
its tasks and objects can tell, and for constants that are too long to wait for.
"""

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any, Self

import psutil
import uvloop

from lexora.adapters.http_client import HttpClient
from lexora.adapters.upstream import HttpUpstream
from lexora.api.app import create_app
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.gateway import Gateway, Setup
from lexora.core.model_map import parse_model_map
from lexora.core.ports import AnswerStore, Credentials
from lexora.core.record import Record
from lexora.core.routing import Routes
from lexora.entry.server import create_server
from lexora.providers.table import PROVIDERS
from tests.support.recorded import RecordedUpstream, wait_until
from tests.support.traffic import free_traffic, no_operations, open_auth

KNOWN_PROMPT = "日本の首都はどこですか？"


class OneAnswer:
    """One prepared answer to every question."""

    async def get(self, prompt: str, variant: int) -> str | None:
        return f"{prompt} {variant}"


class _Records(list[Record]):
    """A ledger that keeps its records."""

    add = list.append

    def admit(self, record: Record) -> None:
        pass


def _no_secret(reference: str, *, fresh: bool = False) -> str:
    return ""


class InProcess:
    """A running application, in a thread: model `m` is behind `upstream`, nobody behind `dead`.

    `fields` are what the deployment of `m` has besides.
    """

    def __init__(
        self,
        upstream: RecordedUpstream,
        *,
        credentials: Credentials = _no_secret,
        answers: AnswerStore | None = None,
        max_seconds: float = float("inf"),
        max_plain_seconds: float = float("inf"),
        **fields: Any,
    ) -> None:
        self.records = _Records()
        self._credentials = credentials
        self._max_seconds = max_seconds
        self._max_plain_seconds = max_plain_seconds
        own = {"provider": "vllm", "base_url": upstream.base_url, "model": "up"}
        dead = {**own, "base_url": "http://127.0.0.1:9"}
        models = {"m": {"deployments": [{**own, **fields}]}, "dead": {"deployments": [dead]}}
        catalogue = Catalogue([PreparedPrompt(id="q", prompt=KNOWN_PROMPT)])
        routes = Routes(parse_model_map({"models": models}, PROVIDERS).models)
        self._setup = Setup(routes, catalogue, answers or OneAnswer())
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = uvloop.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        client = HttpClient()
        app = create_app(
            Gateway(self._setup, HttpUpstream(client, self._credentials), free_traffic()),
            open_auth(),
            self.records,
            operations=no_operations(),
            allow_origins=(),
            max_body_bytes=32_000_000,
            max_seconds=self._max_seconds,
            max_plain_seconds=self._max_plain_seconds,
        )
        self._server = create_server(app, keep_alive_seconds=5, shutdown_seconds=1)
        self._started.set()
        await self._server.serve([self._listener])
        client.close()

    def tasks(self) -> int:
        """How many tasks there are on the loop, but for the one that counts."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count(), self._loop).result(10)

    def connections(self) -> set[int]:
        """The ports of the clients that are connected."""
        ends = psutil.Process().net_connections("tcp")
        return {end.raddr.port for end in ends if end.laddr.port == self.port and end.raddr}

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(self._started.is_set, "the server to start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()
