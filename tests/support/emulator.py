"""AWS on this machine: ministack in a process of its own, with what it needs to take a deployment of ours."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx2
import psutil
from botocore.config import Config

from tests.support.gateway import clean_environment, free_port

REGION = "us-east-1"
ACCOUNT = "000000000000"
_HERE = Path(__file__).resolve().parent
_CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class Emulator:
    """An emulator that answers on `url`; `folder` holds its data and output, and a home for programs that use it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self._numbers = itertools.count()
        self._clients: dict[str, Any] = {}

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def client(self, service: str, url: str | None = None) -> Any:
        """A boto3 client that tries once. With `url`, a new one for whatever stands there instead of the emulator."""
        if url is None and service in self._clients:
            return self._clients[service]
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)
        made = boto3.client(service, region_name=REGION, endpoint_url=url or self.url, config=once, **_CREDENTIALS)
        if url is None:
            self._clients[service] = made
        return made

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a program that shall take the emulator for AWS."""
        inherited = {name: value for name, value in clean_environment().items() if not name.startswith("AWS_")}
        return {
            **inherited,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "HOME": str(self.folder / "home"),  # the CDK's command line keeps accounts there
            **(extra or {}),
        }

    def name(self, kind: str) -> str:
        """A name that nothing else in the emulator has."""
        return f"test-{kind}-{next(self._numbers)}"

    def table(self, name: str | None = None, **keys: str) -> str:
        """Makes a table whose keys are, for example, `prompt="S", variant="N"`. Returns its name."""
        name = name or self.name("table")
        self.client("dynamodb").create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys.items()],
            KeySchema=[
                {"AttributeName": key, "KeyType": use} for key, use in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
        )
        return name

    def items(self, table: str) -> list[dict[str, dict[str, Any]]]:
        """Everything in a table, values with their types as in `{"S": "text"}`."""
        pages = self.client("dynamodb").get_paginator("scan").paginate(TableName=table)
        return [item for page in pages for item in page["Items"]]

    def bucket(self) -> str:
        """Makes a bucket. Returns its name."""
        name = self.name("bucket")
        self.client("s3").create_bucket(Bucket=name)
        return name

    def stop(self) -> None:
        """Ends the emulator and the functions that it has started."""
        for client in self._clients.values():
            client.close()
        running = self.process.poll() is None
        family = psutil.Process(self.process.pid).children(recursive=True) if running else []
        self.process.terminate()
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _, alive = psutil.wait_procs(family, timeout=3)
        for left in alive:
            left.kill()
        psutil.wait_procs(alive)


@contextmanager
def running_emulator(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Emulator]:
    """Starts an emulator on a free port with everything it writes in `folder`, and stops it in the end.

    `env` is seen by the functions too: `NODE_PATH` is where those written in JavaScript find the AWS SDK.
    """
    private = {name: folder / name.lower() for name in ("HOME", "TMPDIR", "STATE_DIR", "S3_DATA_DIR")}
    for path in private.values():
        path.mkdir(parents=True)
    port = free_port()
    inherited = {name: value for name, value in clean_environment().items() if not name.startswith("AWS_")}
    environment = {
        **inherited,
        **{name: str(path) for name, path in private.items()},
        "PATH": os.pathsep.join((str(Path(sys.prefix) / "bin"), os.environ["PATH"])),  # where Node is
        "PYTHONPATH": str(_HERE / "emulator_workers"),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        "AUTH": "true",  # functions are held to their roles
        **(env or {}),
    }
    with (folder / "output").open("wb") as output:
        command = (sys.executable, str(_HERE / "emulator_main.py"))
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
    emulator = Emulator(process, port, folder)
    try:
        _wait_until_up(emulator)
        yield emulator
    finally:
        emulator.stop()


def _wait_until_up(emulator: Emulator) -> None:
    until = time.monotonic() + 30
    while True:
        assert emulator.process.poll() is None, f"the emulator ended:\n{emulator.output}"
        try:
            httpx2.get(f"{emulator.url}/_ministack/health", timeout=5)
        except httpx2.TransportError:
            assert time.monotonic() < until, f"the emulator does not answer:\n{emulator.output}"
            time.sleep(0.05)
        else:
            return
