"""What operators type, on an environment imitated in the emulator; tests/deployed has a real one."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Ended, make_command
from tests.support.emulator import ACCOUNT, REGION, Emulator
from tests.support.gateway import ROOT, free_port

KEY = "config/model_map.json"
OWN = {"provider": "vllm", "base_url": "https://gpu.example.com/v1", "model": "qwen3-32b"}
SECRETS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GPU_API_KEY")
# Nothing that the machine running the tests may have.
ALONE = {"AWS_EC2_METADATA_DISABLED": "true", "CI": "", "YES": ""}

Run = Callable[..., Ended]


def environment_of(emulator: Emulator, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return emulator.environment({**ALONE, **(extra or {})})


def make(*arguments: str) -> list[str]:
    return make_command("-o", f"{sys.prefix}/aws", "-o", f"{sys.prefix}/cdk", *arguments)


def models(**deployments: Mapping[str, Any]) -> bytes:
    return json.dumps({"models": {name: {"deployments": [it]} for name, it in deployments.items()}}).encode()


class Imitated:
    """The parts of an environment that operators touch, in stacks that consist of their outputs."""

    def __init__(self, emulator: Emulator, name: str) -> None:
        self.emulator = emulator
        self.name = name
        self.bucket = emulator.bucket()
        self.groups = [f"/test/{name}/chat", f"/test/{name}/stream"]
        for group in self.groups:
            emulator.client("logs").create_log_group(logGroupName=group)
        for secret in SECRETS:
            emulator.client("secretsmanager").create_secret(Name=f"/lexora/{name}/{secret}", SecretString="none")
        self._stack("Data", ConfigBucketName=self.bucket)
        self._stack(
            "Api",
            ChatApiEndpoint=f"https://chat.execute-api.{REGION}.amazonaws.com/{name}",
            ChatLogGroupName=self.groups[0],
            StreamApiEndpoint=f"https://stream.execute-api.{REGION}.amazonaws.com/{name}/",
            StreamLogGroupName=self.groups[1],
        )
        self._stack("Edge", CdnUrl="https://dtest.cloudfront.net")

    def _stack(self, part: str, **outputs: str) -> None:
        template = {
            "Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}},
            "Outputs": {key: {"Value": value} for key, value in outputs.items()},
        }
        cloudformation = self.emulator.client("cloudformation")
        cloudformation.create_stack(StackName=f"Lexora-{self.name}-{part}", TemplateBody=json.dumps(template))
        until = time.monotonic() + 10
        while (stack := cloudformation.describe_stacks(StackName=f"Lexora-{self.name}-{part}")["Stacks"][0])[
            "StackStatus"
        ] != "CREATE_COMPLETE":
            assert time.monotonic() < until, stack
            time.sleep(0.05)

    def run(self, target: str, *variables: str, given: bytes = b"", extra: Mapping[str, str] | None = None) -> Ended:
        """`make target ENV=…`, and what it said, without the line of make's own about a failure."""
        ended = subprocess.run(
            make(target, f"ENV={self.name}", *variables),
            input=given,
            capture_output=True,
            timeout=60,
            env=environment_of(self.emulator, extra),
        )
        err = re.sub(r"^make: \*\*\* .*\n", "", ended.stderr.decode(), flags=re.MULTILINE)
        return Ended(ended.returncode, ended.stdout.decode(), err)

    def secret(self, name: str) -> str:
        found = self.emulator.client("secretsmanager").get_secret_value(SecretId=f"/lexora/{self.name}/{name}")
        return str(found["SecretString"])

    def put_map(self, content: bytes) -> None:
        self.emulator.client("s3").put_object(Bucket=self.bucket, Key=KEY, Body=content)

    @property
    def model_map(self) -> bytes:
        content: bytes = self.emulator.client("s3").get_object(Bucket=self.bucket, Key=KEY)["Body"].read()
        return content

    def log(self, group: int, at_ms: int, message: str, stream: str) -> None:
        place = {"logGroupName": self.groups[group], "logStreamName": stream}
        client = self.emulator.client("logs")
        if not client.describe_log_streams(logGroupName=place["logGroupName"])["logStreams"]:
            client.create_log_stream(**place)
        client.put_log_events(**place, logEvents=[{"timestamp": at_ms, "message": message}])


@pytest.fixture
def dev(emulator: Emulator) -> Imitated:
    return Imitated(emulator, emulator.name("e").removeprefix("test-"))


def refused(ended: Ended) -> str:
    """The one line with which a command says what is to be mended."""
    assert (ended.status, ended.out) == (2, ""), ended
    line = re.fullmatch(r"lexora: (.+)\n", ended.err)
    assert line, ended.err
    return line[1]


# Secrets


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_secret_comes_in_by_a_pipe_without_its_newline(dev: Imitated, ending: bytes) -> None:
    ended = dev.run("secrets-set", "NAME=OPENAI_API_KEY", given=b"sk-piped-1" + ending)
    assert (ended.status, ended.out) == (0, ""), ended
    assert f"/lexora/{dev.name}/OPENAI_API_KEY is set" in ended.err
    assert "sk-piped-1" not in ended.err
    assert dev.secret("OPENAI_API_KEY") == "sk-piped-1"
    assert dev.secret("GPU_API_KEY") == "none"


def test_a_secret_that_is_typed_is_not_shown(dev: Imitated) -> None:
    ours, its = pty.openpty()

    def take_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    command = make("secrets-set", f"ENV={dev.name}", "NAME=OPENAI_API_KEY")
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment_of(dev.emulator),
        preexec_fn=take_the_terminal,
    )
    os.close(its)
    screen = b""
    try:
        while b"OPENAI_API_KEY: " not in screen:
            screen += os.read(ours, 1000)
        os.write(ours, b"sk-typed-1\n")
        while True:
            screen += os.read(ours, 1000)
    except OSError:  # how a terminal says that nobody has it open any more
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0, screen
    assert b"sk-typed-1" not in screen
    assert dev.secret("OPENAI_API_KEY") == "sk-typed-1"


@pytest.mark.parametrize("given", [b"", b"\n", b"two\nlines\n", b"sk-\xe2\x82\xac", b"sk-\xff", b"sk-\x07"])
def test_what_can_be_no_key_is_refused(dev: Imitated, given: bytes) -> None:
    assert refused(dev.run("secrets-set", "NAME=OPENAI_API_KEY", given=given)).startswith("OPENAI_API_KEY: ")
    assert dev.secret("OPENAI_API_KEY") == "none"


@pytest.mark.parametrize("name", ["OPENAI_KEY", "EDGE_SECRET", ""])
def test_a_secret_that_no_function_reads_is_refused(dev: Imitated, name: str) -> None:
    line = refused(dev.run("secrets-set", f"NAME={name}", given=b"sk-1"))
    assert line.startswith(f"NAME={name}: {dev.name} has the secrets OPENAI_API_KEY, ANTHROPIC_API_KEY, GPU_API_KEY")


# The model map


def test_a_valid_model_map_is_uploaded_and_what_it_changes_is_said(dev: Imitated, tmp_path: Path) -> None:
    dev.put_map(models(chat=OWN, other=OWN))
    file = tmp_path / "map.json"
    file.write_bytes(models(chat={**OWN, "model": "qwen3-8b"}, other=OWN))
    ended = dev.run("config-push", f"FILE={file}")
    assert ended.status == 0, ended
    changed = [line for line in ended.out.splitlines() if re.match(r"[+-] ", line)]
    assert changed == ['-          "model": "qwen3-32b"', '+          "model": "qwen3-8b"']
    assert f"s3://{dev.bucket}/{KEY}" in ended.err
    assert dev.model_map == file.read_bytes()


def test_a_model_map_that_says_the_same_is_not_uploaded(dev: Imitated, tmp_path: Path) -> None:
    dev.put_map(models(chat=OWN))
    file = tmp_path / "map.json"
    file.write_text(json.dumps(json.loads(models(chat=OWN)), indent=8))
    ended = dev.run("config-push", f"FILE={file}")
    assert (ended.status, ended.out) == (0, "")
    assert "nothing to change" in ended.err
    assert dev.model_map == models(chat=OWN)


@pytest.mark.parametrize("before", [None, b"{broken"])
def test_a_model_map_comes_where_there_is_none_that_is_valid(
    dev: Imitated, tmp_path: Path, before: bytes | None
) -> None:
    if before:
        dev.put_map(before)
    (tmp_path / "map.json").write_bytes(models(chat=OWN))
    assert dev.run("config-push", f"FILE={tmp_path}/map.json").status == 0
    assert dev.model_map == models(chat=OWN)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (models(chat={**OWN, "prise": {}}), "models.chat.deployments[0].prise: unknown key; did you mean 'price'?"),
        (models(chat={**OWN, "credential": "sk-1"}), "models.chat.deployments[0].credential: must name an environ"),
        (b"{", "not valid JSON: Expecting property name"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_broken_model_map_is_refused_with_its_exact_place(
    dev: Imitated, tmp_path: Path, content: bytes | None, line: str
) -> None:
    dev.put_map(models(chat=OWN))
    file = tmp_path / "map.json"
    if content is not None:
        file.write_bytes(content)
    assert refused(dev.run("config-push", f"FILE={file}")).startswith(f"{file}: {line}")
    assert dev.model_map == models(chat=OWN)


def test_what_somebody_else_has_just_uploaded_is_not_overwritten(dev: Imitated, tmp_path: Path) -> None:
    dev.put_map(models(chat=OWN))
    # The patch is longer than a pipe holds: the command cannot go on before it is read.
    (tmp_path / "map.json").write_bytes(models(**{f"model-{number}": OWN for number in range(2000)}))
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.aws", "config-push", "--environment", dev.name, f"{tmp_path}/map.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of(dev.emulator),
        cwd=ROOT,
    )
    assert process.stdout and process.stdout.read(1)
    dev.put_map(models(theirs=OWN))
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err == "lexora: somebody else has just changed the model map; look at theirs, then push again\n"
    assert dev.model_map == models(theirs=OWN)


def test_secrets_that_a_model_map_lacks_are_named(dev: Imitated, tmp_path: Path) -> None:
    header = {"headers": {"cf-access-client-secret": "env:TUNNEL"}, "credential": "env:GPU_API_KEY"}
    (tmp_path / "map.json").write_bytes(models(chat={**OWN, **header}))
    with answering(200, b'{"ARN": "arn", "Name": "GPU_API_KEY"}') as without_versions:
        ended = dev.run(
            "config-push", f"FILE={tmp_path}/map.json", extra={"AWS_ENDPOINT_URL_SECRETS_MANAGER": without_versions}
        )
    assert ended.status == 0, ended
    notes = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: models.chat.deployments[0] needs GPU_API_KEY; set it: make secrets-set ENV={dev.name} NAME=GPU_API_KEY",
        "note: models.chat.deployments[0] needs TUNNEL, which no function may read; "
        "add it to `secrets` in cdk.json and deploy",
    ]


def test_the_model_map_in_force_is_fetched_into_a_new_file(dev: Imitated, tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    assert f"there is no s3://{dev.bucket}/{KEY}" in refused(dev.run("config-pull", f"FILE={file}"))
    dev.put_map(models(chat=OWN))
    assert dev.run("config-pull", f"FILE={file}").status == 0
    assert file.read_bytes() == models(chat=OWN)
    assert refused(dev.run("config-pull", f"FILE={file}")) == f"{file}: cannot be written: File exists"


# Logs


def test_the_log_of_both_doors_in_the_lines_of_aws_logs_tail(dev: Imitated) -> None:
    now = int(time.time() * 1000) // 1000 * 1000
    dev.log(0, now - 3_000_000, "too old\n", "2026/11/24/[1]c")
    dev.log(0, now - 1000, '{"message":"chat_completion"}\n', "2026/11/24/[1]c")
    dev.log(1, now - 2500, '{"message":"llm_error"}\n', "2026/11/24/[1]s")
    dev.log(0, now, "END", "2026/11/24/[1]c")
    ended = dev.run("logs", "FOLLOW=0")
    assert (ended.status, ended.err) == (0, "")
    lines = [line.partition(" ") for line in ended.out.splitlines()]
    assert [rest for _, _, rest in lines] == [
        '2026/11/24/[1]s {"message":"llm_error"}',
        '2026/11/24/[1]c {"message":"chat_completion"}',
        "2026/11/24/[1]c END",
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.500000\+00:00", lines[0][0])
    assert "too old" in dev.run("logs", "FOLLOW=0", "SINCE=1h").out


def test_the_log_is_followed_until_it_is_interrupted(dev: Imitated) -> None:
    dev.log(0, int(time.time() * 1000), "first", "s")
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.aws", "logs", "--environment", dev.name],
        stdout=subprocess.PIPE,
        text=True,
        env=environment_of(dev.emulator),
        cwd=ROOT,
    )
    with process:
        assert process.stdout
        assert process.stdout.readline().endswith(" s first\n")
        dev.log(0, int(time.time() * 1000), "second", "s")
        assert process.stdout.readline().endswith(" s second\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_whoever_has_read_enough_of_the_log_ends_it(dev: Imitated) -> None:
    dev.log(0, int(time.time() * 1000), "first", "s")
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.aws", "logs", "--environment", dev.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_of(dev.emulator),
        cwd=ROOT,
    )
    with process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        dev.log(0, int(time.time() * 1000), "second", "s")
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


# URLs


def test_urls_come_with_a_request_to_try(dev: Imitated) -> None:
    ended = dev.run("urls")
    assert ended.status == 0, ended
    assert "https://dtest.cloudfront.net/v1\n" in ended.out
    assert f"https://stream.execute-api.{REGION}.amazonaws.com/{dev.name}\n" in ended.out
    # The emulator knows a distribution by its Host.
    assert f"curl {dev.emulator.url}/v1/chat/completions -H 'content-type: application/json'" in ended.out
    assert "-H 'host: dtest.cloudfront.net'" in ended.out


# What goes wrong


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Stands where AWS should, and answers everything alike. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


TARGETS = {
    "deploy": ("YES=1",),
    "diff": (),
    "destroy": ("YES=1",),
    "urls": (),
    "logs": (),
    "config-push": ("FILE=infra/model_map.json",),
    "config-pull": ("FILE=/nowhere/map.json",),
    "secrets-set": ("NAME=GPU_API_KEY",),
}


def run_target(emulator: Emulator, target: str, *variables: str, **extra: str) -> Ended:
    imitated = object.__new__(Imitated)
    imitated.emulator, imitated.name = emulator, "nowhere"
    return imitated.run(target, *TARGETS.get(target, ()), *variables, given=b"sk-1", extra=extra)


@pytest.mark.parametrize("target", ["bootstrap", "deploy", "logs", "secrets-set"])
def test_without_credentials(emulator: Emulator, target: str) -> None:
    without = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    assert refused(run_target(emulator, target, **without)).startswith("there are no AWS credentials; log in first")


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in ("deploy", "diff", "destroy")])
def test_an_environment_that_is_not_deployed(emulator: Emulator, target: str) -> None:
    line = refused(run_target(emulator, target))
    assert re.match(r"there is no (stack Lexora-nowhere-(Data|Api|Edge)|secret /lexora/nowhere/GPU_API_KEY) in ", line)
    assert line.endswith(f"account {ACCOUNT}, {REGION}; deploy it with: make deploy ENV=nowhere")


def test_an_environment_that_is_destroyed_already(emulator: Emulator) -> None:
    line = refused(run_target(emulator, "destroy"))
    assert line == f"there are no stacks of lexora-nowhere in account {ACCOUNT}, {REGION}"


@pytest.mark.parametrize("target", ["deploy", "diff"])
def test_an_account_that_is_not_bootstrapped(emulator: Emulator, target: str) -> None:
    elsewhere = "eu-north-1"
    line = refused(run_target(emulator, target, AWS_REGION=elsewhere))
    assert line == f"account {ACCOUNT} is not ready for the CDK in {elsewhere}; prepare it once with: make bootstrap"


@pytest.mark.parametrize("target", ["deploy", "destroy"])
def test_nobody_to_ask(emulator: Emulator, target: str) -> None:
    line = refused(run_target(emulator, target, "YES="))
    assert line.endswith("and nobody is at this terminal; add YES=1")


@pytest.mark.parametrize("target", ["synth", "destroy"])
def test_a_name_that_no_environment_can_have(emulator: Emulator, target: str) -> None:
    assert "environment" in refused(run_target(emulator, target, "ENV=No Name"))


def test_arguments_with_an_open_quote(emulator: Emulator) -> None:
    assert refused(run_target(emulator, "synth", 'ARGS=-c "open')) == 'ARGS=-c "open: No closing quotation'


def test_no_region(emulator: Emulator) -> None:
    line = refused(run_target(emulator, "urls", AWS_REGION="", AWS_DEFAULT_REGION=""))
    assert line == "no AWS region is set; for example: export AWS_REGION=us-east-1"


def test_a_profile_that_does_not_exist(emulator: Emulator) -> None:
    assert "(nobody)" in refused(run_target(emulator, "urls", AWS_PROFILE="nobody"))


def test_aws_is_not_reached(emulator: Emulator) -> None:
    assert refused(run_target(emulator, "urls", AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")).startswith("Could")


def test_since_when(dev: Imitated) -> None:
    assert refused(dev.run("logs", "SINCE=1y")).startswith("SINCE=1y: write a number and a unit")


@pytest.mark.parametrize(
    ("code", "status", "hint"),
    [
        ("Throttling", 400, "try again in a minute"),
        ("ExpiredToken", 403, "log in first"),
        ("AccessDenied", 403, "docs/deploy.md lists the rights that are needed"),
    ],
)
def test_aws_refuses(emulator: Emulator, code: str, status: int, hint: str) -> None:
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>It\nwas said.</Message></Error></ErrorResponse>"
    with answering(status, body.encode()) as url:
        line = refused(run_target(emulator, "urls", AWS_ENDPOINT_URL=url))
    assert line.startswith(f"DescribeStacks: {code}: It was said.; {hint}")
