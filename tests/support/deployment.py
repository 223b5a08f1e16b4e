"""The application deployed to ministack by the CDK's own command line, and how clients and operators reach it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai

from tests.support.emulator import ACCOUNT, REGION, Emulator
from tests.support.gateway import ROOT

ORIGIN = "https://app.example"
MODEL_MAP_KEY = "config/model_map.json"
_CLI = ROOT / "node_modules" / ".bin" / "cdk"
_SECONDS = 500
# What `cdk synth` reads of a checkout.
_CHECKOUT = (
    *("app.py", "cdk.json", "requirements-lambda.txt", "requirements-lambda-jwt.txt"),
    *("clients", "infra", "lambdas", "lexora", "static_responses"),
)
# The emulator runs functions under its own interpreter, whatever their runtime says.
_HERE = {"architecture": "x86_64", "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


class Cdk:
    """The command line of the CDK; `folder` gets its output."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        assert _CLI.exists(), "the CDK's command line is not installed; run: make .venv/cdk"
        self._emulator = emulator
        self.folder = folder

    def bootstrap(self) -> None:
        # Outside the app's folder, where the CDK would synthesise it first.
        self.together({"bootstrap": (["bootstrap", f"aws://{ACCOUNT}/{REGION}"], self.folder)})

    def synth(self, environments: Mapping[str, tuple[Path, Mapping[str, str]]]) -> None:
        """Writes an assembly for each name in `environments`: from which checkout, in which context."""
        commands = {}
        for name, (checkout, context) in environments.items():
            settings = [part for key, value in {**_HERE, **context}.items() for part in ("-c", f"{key}={value}")]
            app = ["--app", f"{sys.executable} app.py", "--output", str(self.assembly(name)), *settings]
            commands[f"synth-{name}"] = (["synth", "--quiet", *app], checkout)
        # At home, where pip has its settings and its cache.
        self.together(commands, {"HOME": os.environ.get("HOME", "")})

    def deploy(self, *names: str) -> None:
        """Deploys assemblies, all at the same time."""
        options = ["--all", "--require-approval", "never", "--concurrency", "4"]
        self.together(
            {
                f"deploy-{name}": (
                    ["deploy", *options, "--app", str(self.assembly(name)), "--outputs-file", str(self._outputs(name))],
                    self.folder,
                )
                for name in names
            }
        )

    def destroy(self, *names: str) -> None:
        options = ["--all", "--force", "--concurrency", "4"]
        self.together(
            {
                f"destroy-{name}": (["destroy", *options, "--app", str(self.assembly(name))], self.folder)
                for name in names
            }
        )

    def assembly(self, name: str) -> Path:
        return self.folder / f"assembly-{name}"

    def outputs(self, name: str) -> dict[str, str]:
        """The outputs of an assembly's stacks."""
        stacks = json.loads(self._outputs(name).read_text())
        return {key: value for outputs in stacks.values() for key, value in outputs.items()}

    def _outputs(self, name: str) -> Path:
        return self.folder / f"outputs-{name}.json"

    def together(
        self, commands: Mapping[str, tuple[Sequence[str], Path]], env: Mapping[str, str] | None = None
    ) -> None:
        """Runs commands (arguments, working folder) at the same time, to their ends."""
        path = os.pathsep.join((str(Path(sys.prefix) / "bin"), os.environ["PATH"]))  # where Node is
        environment = self._emulator.environment({"PATH": path, "CI": "1", **(env or {})})
        running = {}
        for name, (arguments, folder) in commands.items():
            with (self.folder / f"{name}.log").open("wb") as log:
                command = [str(_CLI), *arguments, "--no-notices"]
                running[name] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=folder,
                    start_new_session=True,  # so that what it has started can be ended with it
                )
        until = time.monotonic() + _SECONDS
        try:
            for name, process in running.items():
                status = process.wait(max(0, until - time.monotonic()))
                assert status == 0, f"cdk {name}:\n{(self.folder / f'{name}.log').read_text()[-8000:]}"
        finally:
            for process in running.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def copy_checkout(to: Path) -> Path:
    """A copy of what is deployed, to change something in."""
    to.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in _CHECKOUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, to / name)
    return to


class Environment:
    """A deployed environment."""

    def __init__(self, name: str, emulator: Emulator, outputs: Mapping[str, str]) -> None:
        self.name = name
        self.outputs = outputs
        self.emulator = emulator
        self.cdn_host = outputs["CdnUrl"].removeprefix("https://")
        # What AWS's names would lead to answers on the emulator's port, told apart by the host that is asked for.
        self._hosts = {
            "chat": f"{_label(outputs['ChatApiEndpoint'])}.execute-api.localhost:{emulator.port}",
            "stream": f"{_label(outputs['StreamApiEndpoint'])}.execute-api.localhost:{emulator.port}",
            "cdn": self.cdn_host,
        }

    def client(self, door: str) -> httpx2.Client:
        """A client of the door `chat` (buffered), `stream` or `cdn`, whose paths are those of its URL."""
        return httpx2.Client(base_url=self._base(door), headers=self._headers(door), timeout=60)

    def sdk(self, door: str) -> openai.OpenAI:
        """The real SDK, without its retries: a retry would hide an error."""
        return openai.OpenAI(
            base_url=f"{self._base(door)}/v1", api_key="none", default_headers=self._headers(door), max_retries=0
        )

    def _base(self, door: str) -> str:
        return self.emulator.url if door == "cdn" else f"{self.emulator.url}/{self.name}"

    def _headers(self, door: str) -> dict[str, str]:
        return {"host": self._hosts[door], "x-forwarded-proto": "https"}

    def make_key(self, *options: str) -> str:
        """A key of the environment, as `make keys` makes it."""
        command = [sys.executable, "-m", "scripts.aws", "keys", f"--environment={self.name}", "create", *options]
        made = subprocess.run(command, cwd=ROOT, env=self.emulator.environment(), capture_output=True, timeout=60)
        assert made.returncode == 0, made.stderr.decode()
        return made.stdout.decode().strip()

    def answers(self) -> dict[tuple[str, int], str]:
        """What is in the answers table."""
        items = self.emulator.items(self.outputs["AnswersTableName"])
        return {(item["prompt"]["S"], int(item["variant"]["N"])): item["response"]["S"] for item in items}

    def record(self, request_id: str) -> dict[str, Any]:
        """The record of a request, types left out; empty if there is none."""
        day = time.strftime("%Y-%m-%d", time.gmtime(int(request_id[:12], 16) / 1e3))
        key = {"day": {"S": day}, "request_id": {"S": request_id}}
        found = self.emulator.client("dynamodb").get_item(
            TableName=self.outputs["RequestsTableName"], Key=key, ConsistentRead=True
        )
        return {name: next(iter(value.values())) for name, value in found.get("Item", {}).items()}

    def model_map(self) -> bytes:
        found = self.emulator.client("s3").get_object(Bucket=self.outputs["ConfigBucketName"], Key=MODEL_MAP_KEY)
        content: bytes = found["Body"].read()
        return content

    def put_model_map(self, content: bytes) -> None:
        self.emulator.client("s3").put_object(Bucket=self.outputs["ConfigBucketName"], Key=MODEL_MAP_KEY, Body=content)

    def put_secret(self, name: str, value: str) -> None:
        self.emulator.client("secretsmanager").put_secret_value(
            SecretId=f"/lexora/{self.name}/{name}", SecretString=value
        )

    def log_lines(self, door: str = "chat") -> list[dict[str, Any]]:
        """The JSON lines that a door's function has written to CloudWatch Logs."""
        group = self.outputs["ChatLogGroupName" if door == "chat" else "StreamLogGroupName"]
        pages = self.emulator.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        messages = [event["message"] for page in pages for event in page["events"]]
        return [json.loads(message) for message in messages if message.startswith("{")]

    def log_line_of(self, request_id: str, door: str = "chat") -> dict[str, Any]:
        """The line of one request."""
        (line,) = [line for line in self.log_lines(door) if line.get("requestId") == request_id]
        return line


def _label(url: str) -> str:
    """`abc` of `https://abc.execute-api.…`."""
    return url.removeprefix("https://").partition(".")[0]


def inventory(emulator: Emulator) -> dict[str, set[str]]:
    """What there is in the account, by kind: what a deployment could leave behind."""

    def listed(service: str, operation: str, result: str, key: str | None, **arguments: Any) -> set[str]:
        pages = emulator.client(service).get_paginator(operation).paginate(**arguments)
        found = [item for page in pages for item in page.get(result, ())]
        return set(found) if key is None else {item[key] for item in found}

    live = ["CREATE_COMPLETE", "UPDATE_COMPLETE", "ROLLBACK_COMPLETE", "DELETE_FAILED", "UPDATE_ROLLBACK_COMPLETE"]
    cloudfront = emulator.client("cloudfront")
    budgets = emulator.client("budgets").describe_budgets(AccountId=ACCOUNT)
    return {
        "stacks": listed("cloudformation", "list_stacks", "StackSummaries", "StackName", StackStatusFilter=live),
        "tables": listed("dynamodb", "list_tables", "TableNames", None),
        "buckets": {bucket["Name"] for bucket in emulator.client("s3").list_buckets()["Buckets"]},
        "secrets": listed("secretsmanager", "list_secrets", "SecretList", "Name", IncludePlannedDeletion=True),
        "functions": listed("lambda", "list_functions", "Functions", "FunctionName"),
        "log groups": listed("logs", "describe_log_groups", "logGroups", "logGroupName"),
        "HTTP APIs": {api["ApiId"] for api in emulator.client("apigatewayv2").get_apis()["Items"]},
        "REST APIs": listed("apigateway", "get_rest_apis", "items", "id"),
        "roles": listed("iam", "list_roles", "Roles", "RoleName"),
        "distributions": {item["Id"] for item in cloudfront.list_distributions()["DistributionList"].get("Items", ())},
        "edge functions": {item["Name"] for item in cloudfront.list_functions()["FunctionList"].get("Items", ())},
        "topics": listed("sns", "list_topics", "Topics", "TopicArn"),
        "alarms": listed("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        "dashboards": listed("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
        "budgets": {budget["BudgetName"] for budget in budgets.get("Budgets", ())},
    }
