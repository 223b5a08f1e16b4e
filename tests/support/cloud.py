"""An environment on AWS as a deploy makes it, and the functions that serve it, in processes of their own."""

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lexora.adapters.dynamodb import DynamoAnswers
from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.client import chat_body
from tests.support.emulator import Emulator
from tests.support.gateway import ROOT

STAGE = "dev"
KEY = "config/model_map.json"


class Cloud:
    """Tables (the answers in theirs), a bucket, and secrets under a prefix of their own.

    Responses are stored by a function whose RESPONSES_TABLE says so.
    """

    def __init__(self, emulator: Emulator, models: Mapping[str, Any] | None = None) -> None:
        self.emulator = emulator
        self.prefix = f"/{emulator.name('cloud')}/{STAGE}/"
        self.bucket = emulator.bucket()
        self.answers = emulator.table(prompt="S", variant="N")
        self.requests = emulator.table(day="S", request_id="S")
        self.limits = emulator.table(pk="S", sk="S")
        self.responses = emulator.table(pk="S", sk="S")
        self.cache = emulator.table(key="S")
        DynamoAnswers(emulator.client("dynamodb"), self.answers).replace(load_prepared(SHIPPED)[1])
        if models is not None:
            self.put_models(models)

    def put_models(self, models: Mapping[str, Any]) -> None:
        """Puts a model map into the bucket: model to deployment."""
        self.put_map(json.dumps({"models": {name: {"deployments": [models[name]]} for name in models}}))

    def put_map(self, text: str) -> None:
        self.emulator.client("s3").put_object(Bucket=self.bucket, Key=KEY, Body=text.encode())

    def keep_versions(self) -> None:
        """As the bucket of a deployment does."""
        versions = {"Status": "Enabled"}
        self.emulator.client("s3").put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration=versions)

    def put_secret(self, name: str, value: str) -> None:
        manager = self.emulator.client("secretsmanager")
        try:
            manager.create_secret(Name=self.prefix + name, SecretString=value)
        except manager.exceptions.ResourceExistsException:
            manager.put_secret_value(SecretId=self.prefix + name, SecretString=value)

    def records(self) -> dict[str, dict[str, Any]]:
        """The items of the requests table, their types left out, by request id."""
        items = [{name: _plain(value) for name, value in item.items()} for item in self.emulator.items(self.requests)]
        return {item["request_id"]: item for item in items}

    def variables(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a function."""
        ours = {
            "LEXORA_ENVIRONMENT": "dev",
            "LEXORA_STAGE": STAGE,
            "ANSWERS_TABLE": self.answers,
            "REQUESTS_TABLE": self.requests,
            "LIMITS_TABLE": self.limits,
            "CACHE_TABLE": self.cache,
            "AUTH_REQUIRED": "false",
            "CONFIG_BUCKET": self.bucket,
            "MODEL_MAP_KEY": KEY,
            "SECRET_PREFIX": self.prefix,
            "ALLOW_ORIGINS": "https://app.example.com, http://localhost:5173",
            "MESSAGE_TEXT": "true",
            "LOG_LEVEL": "INFO",
            "MAX_SECONDS": "24",
            "RECORD_TTL_DAYS": "90",
        }
        return self.emulator.environment({**ours, **(extra or {})})


def _plain(value: Mapping[str, Any]) -> Any:
    """`{"N": "1"}` as 1."""
    ((kind, content),) = value.items()
    return float(content) if kind == "N" else content


class Answer(NamedTuple):
    """What API Gateway sends to the client."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error_code(self) -> str:
        return str(self.json()["error"]["code"])


class Function:
    """The buffered door's function, warm; `stdout` and `stderr` are what it has written."""

    def __init__(self, process: subprocess.Popen[bytes], results: int, folder: Path) -> None:
        self._process = process
        self._results = results
        self._folder = folder

    def call(
        self,
        method: str,
        path: str,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        stage: bool = True,
    ) -> Answer:
        """Calls it as an HTTP API does (payload format 2.0); bytes are sent as base64.

        `stage` says whether the stage's name stands before the path, as it does but for custom domains.
        """
        path = f"/{STAGE}{path}" if stage else path
        event: dict[str, Any] = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"host": "abc123.execute-api.us-east-1.amazonaws.com", "x-forwarded-proto": "https"}
            | ({} if body is None else {"content-type": "application/json", "content-length": str(len(body))})
            | dict(headers or {}),
            "requestContext": {
                "accountId": "000000000000",
                "apiId": "abc123",
                "http": {
                    "method": method,
                    "path": path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": "192.0.2.1",
                    "userAgent": "tests",
                },
                "requestId": "JKJaXmPLvHcESHA=",
                "routeKey": "$default",
                "stage": STAGE,
                "timeEpoch": int(time.time() * 1e3),
            },
            "isBase64Encoded": isinstance(body, bytes),
        }
        if body is not None:
            event["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
        return self.send(event)

    def chat(self, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
        """One chat request."""
        return self.call("POST", "/v1/chat/completions", json.dumps(chat_body(**fields)), headers)

    def send(self, event: Mapping[str, Any], seconds: float = 30) -> Answer:
        """One invocation."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(event).encode() + b"\n")
        self._process.stdin.flush()
        line = b""
        until = time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._results], [], [], max(0, until - time.monotonic()))
            piece = os.read(self._results, 1 << 20) if ready else b""
            assert piece, f"no answer:\n{self.stdout}\n{self.stderr}"
            line += piece
        answer = json.loads(line)
        body: str = answer.get("body", "")
        return Answer(
            answer["statusCode"],
            answer.get("headers") or {},
            base64.b64decode(body) if answer["isBase64Encoded"] else body.encode(),
        )

    @property
    def stdout(self) -> str:
        return (self._folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self._folder / "stderr").read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Everything in its log: each line has to be JSON."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log that are no metrics."""
        return [line for line in self.lines() if "_aws" not in line]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.log()]

    def metrics(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "_aws" in line]

    def line_of(self, answer: Answer) -> dict[str, Any]:
        """The log line of one request."""
        (line,) = (line for line in self.log() if line.get("requestId") == answer.headers["x-request-id"])
        return line


@contextmanager
def running_function(
    cloud: Cloud,
    folder: Path,
    env: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
) -> Iterator[Function]:
    """A function of `cloud`, cold; `constants` (full names to values) are set in it. Its output goes to `folder`."""
    reading, writing = os.pipe()
    command = (sys.executable, "-W", "error", "-m", "tests.support.function_main", str(writing))
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [*command, json.dumps(constants or {})],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            env=cloud.variables(env),
            cwd=ROOT,
            pass_fds=[writing],
        )
    os.close(writing)
    try:
        yield Function(process, reading, folder)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(reading)
