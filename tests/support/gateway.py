"""A real `lexora serve` in a process of its own."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx2
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
TINY_CHAT = ROOT / "tests" / "models" / "tiny-chat.gguf"
_any = SystemRandom()
# What must not leak in from the machine that runs the tests.
_FOREIGN = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_BASE_URL",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "LEXORA_CONFIG",
    "MAKEFLAGS",
    "MAKELEVEL",
)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN} | dict(extra or {})


def free_port() -> int:
    """One below those that the system itself gives out, so that nobody else gets it in the meantime."""
    while True:
        port = _any.randrange(20_000, 32_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class RunningGateway:
    """A gateway that answers on `url`; `folder` holds its config, data and output."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    def records(self) -> list[dict[str, Any]]:
        """The rows of the table `requests`, oldest first."""
        with closing(sqlite3.connect(self.folder / "data" / "lexora.db", timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY created_at, request_id")]

    def record_of(self, request_id: str, seconds: float = 5) -> dict[str, Any]:
        """The record of one request, waiting until it is written."""
        return self._wait_for(lambda: [r for r in self.records() if r["request_id"] == request_id], seconds)

    def log_line_of(self, request_id: str, seconds: float = 5) -> dict[str, Any]:
        """The log line of one request, waiting until it is written."""
        return self._wait_for(lambda: [x for x in self.log_lines() if x.get("requestId") == request_id], seconds)

    def sockets(self) -> list[Any]:
        """The open TCP connections of the gateway."""
        return [c for c in psutil.Process(self.process.pid).net_connections("tcp") if c.status != "LISTEN"]

    def open_files(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def stop(self, how: int = signal.SIGTERM, seconds: float = 40) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(seconds)

    @staticmethod
    def _wait_for(find: Any, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while not (found := find()):
            assert time.monotonic() < until, "it was not written in time"
            time.sleep(0.05)
        assert len(found) == 1, found
        return found[0]


@contextmanager
def running_gateway(
    folder: Path,
    config: Mapping[str, Any] | str | None = None,
    *,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> Iterator[RunningGateway]:
    """Starts `lexora serve` on a free port with its data in `folder`, and stops it in the end.

    `config` is the YAML file's content (a mapping or text); without one, the gateway looks for upstreams by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    if config is not None:
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config), allow_unicode=True)
        (folder / "config.yaml").write_text(text)
        arguments = ("--config", str(folder / "config.yaml"), *arguments)
    command = (sys.executable, "-m", "lexora.main", "serve", "--port", str(port), "--data", str(folder / "data"))
    with serving((*command, *arguments), port, folder, env=env) as running:
        yield running


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    working_folder: Path | None = None,
) -> Iterator[RunningGateway]:
    """Runs a command that starts a gateway on `port`, with its output in `folder`, and stops it in the end."""
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            list(command), stdout=out, stderr=err, env=clean_environment(env), cwd=working_folder
        )
    gateway = RunningGateway(process, port, folder)
    try:
        _wait_until_up(gateway)
        yield gateway
    finally:
        try:
            gateway.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(gateway: RunningGateway) -> None:
    until = time.monotonic() + 30
    while True:
        assert gateway.process.poll() is None, f"the gateway ended:\n{gateway.stderr}"
        try:
            httpx2.get(f"{gateway.url}/health", timeout=5)
        except httpx2.TransportError:
            assert time.monotonic() < until, f"the gateway does not answer:\n{gateway.stderr}"
            time.sleep(0.05)
        else:
            return


def models_config(**deployments: Mapping[str, Any]) -> dict[str, Any]:
    """A config with one model per keyword, each with one deployment."""
    return {"models": {name: {"deployments": [dict(deployment)]} for name, deployment in deployments.items()}}
