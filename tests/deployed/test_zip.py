"""The functions' zip as Lambda holds it, on a Python that has nothing else but what Lambda's runtime has."""

import importlib.util
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from openai.types.chat import ChatCompletionChunk

from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.client import HELLO, sdk
from tests.support.deployment import Environment
from tests.support.gateway import RunningGateway, free_port, serving
from tests.support.recorded import DONE, STREAM_END, STREAM_HEAD, RecordedUpstream, Until, finish, piece, token

pytestmark = pytest.mark.timeout(600)
CAPITAL = "日本の首都はどこですか？"
CAPITALS = {text for (prompt, _), text in load_prepared(SHIPPED)[1].items() if prompt == CAPITAL}
RUNTIME = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")


class Unpacked(NamedTuple):
    """A function's code in `folder`, with the environment that its configuration and Lambda give it."""

    folder: Path
    handler: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare Python with an AWS SDK in a folder of its own, as on Lambda."""
    folder = tmp_path_factory.mktemp("runtime")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "python"], check=True)
    (folder / "sdk").mkdir()
    for name in RUNTIME:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (folder / "sdk" / source.name).symlink_to(source)
    return folder


def unpack(environment: Environment, output: str, runtime: Path, folder: Path) -> Unpacked:
    """What Lambda has of the function that the output names; files get the modes that they have in the zip."""
    emulator = environment.emulator
    function = emulator.client("lambda").get_function(FunctionName=environment.outputs[output], Qualifier="live")
    content = httpx2.get(function["Code"]["Location"]).raise_for_status().content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, folder))
            if not entry.is_dir():
                path.chmod(entry.external_attr >> 16)
    configuration = function["Configuration"]
    variables: dict[str, str] = configuration["Environment"]["Variables"]
    path = os.pathsep.join((str(runtime / "python" / "bin"), os.environ["PATH"]))
    given = {"PATH": path, "LAMBDA_TASK_ROOT": str(folder), "LAMBDA_RUNTIME_DIR": str(runtime / "sdk")}
    return Unpacked(folder, configuration["Handler"], emulator.environment({**variables, **given}))


@pytest.fixture(scope="module")
def streaming(dev: Environment, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """The streaming function's handler, started as the Lambda Web Adapter starts it, on a port that is free here."""
    function = unpack(dev, "StreamLambdaName", runtime, tmp_path_factory.mktemp("stream"))
    assert function.environment["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"
    port = free_port()
    folder = tmp_path_factory.mktemp("serving")
    environment = {**function.environment, "AWS_LWA_PORT": str(port)}
    with serving([str(function.folder / function.handler)], port, folder, env=environment) as running:
        yield running


def test_the_streaming_functions_command_line_answers(streaming: RunningGateway, dev: Environment) -> None:
    messages: Any = [{"role": "user", "content": CAPITAL}]
    with sdk(streaming) as client:
        raw = client.chat.completions.with_raw_response.create(model="chat", messages=messages, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
    assert text in CAPITALS
    record = dev.record(raw.headers["x-request-id"])
    assert (record["origin"], record["outcome"]) == ("fixed", "completed")


def test_it_streams_from_the_gpu_host(streaming: RunningGateway) -> None:
    with sdk(streaming) as client:
        chunks = list(client.chat.completions.create(model="tiny", messages=[HELLO], max_tokens=8, stream=True))  # type: ignore[list-item]
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    assert len(chunks) > 5


def test_a_token_is_passed_on_before_the_next_one_is_there(
    streaming: RunningGateway, upstream: RecordedUpstream, dev: Environment
) -> None:
    """And the record is written before the response ends: afterwards Lambda may freeze the process."""
    read = threading.Event()
    rest = [piece(token("second")), piece(finish()), piece(DONE), STREAM_END]
    upstream.play([STREAM_HEAD, piece(token("first")), Until(read), *rest])
    with sdk(streaming) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=[HELLO], stream=True)  # type: ignore[list-item]
        seen = ""
        for chunk in raw.parse():
            seen += chunk.choices[0].delta.content or "" if chunk.choices else ""
            if seen == "first":
                read.set()
    assert seen == "firstsecond"
    record = dev.record(raw.headers["x-request-id"])
    assert (record["origin"], record["outcome"], record["stream"]) == ("own", "completed", True)
    assert upstream.received[0].headers["authorization"] == "Bearer the-gpu-host's-key"


def test_the_buffered_function_needs_nothing_else_either(dev: Environment, runtime: Path, tmp_path: Path) -> None:
    """Its handler, called as Lambda's runtime does it, forwards to llama.cpp: every module that it needs is there."""
    function = unpack(dev, "ChatLambdaName", runtime, tmp_path / "chat")
    module, _, name = function.handler.rpartition(".")
    call = (
        "import json\n"
        f"from {module} import {name}\n"
        "body = {'model': 'tiny', 'messages': [{'role': 'user', 'content': 'Hello'}], 'max_tokens': 4}\n"
        "event = {'version': '2.0', 'rawPath': '/dev/v1/chat/completions', 'rawQueryString': '',\n"
        "         'headers': {'host': 'x', 'content-type': 'application/json'}, 'isBase64Encoded': False,\n"
        "         'body': json.dumps(body), 'requestContext': {'stage': 'dev', 'http': {'method': 'POST',\n"
        "         'path': '/dev/v1/chat/completions', 'sourceIp': '127.0.0.1', 'protocol': 'HTTP/1.1'}}}\n"
        f"print('answer', {name}(event, None)['statusCode'])\n"
    )
    environment = {**function.environment, "PYTHONPATH": function.environment["LAMBDA_RUNTIME_DIR"]}
    ended = subprocess.run(
        ["python3", "-c", call], env=environment, cwd=function.folder, capture_output=True, text=True, timeout=60
    )
    assert "answer 200" in ended.stdout, ended.stdout + ended.stderr
