"""`--model file.gguf`: llama.cpp in a process of its own, that ends with the gateway."""

import os
import signal
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from lexora.entry.errors import ConfigError
from lexora.entry.model_server import start_model_server
from tests.support.client import sdk
from tests.support.gateway import TINY_CHAT, running_gateway

HELLO = {"role": "user", "content": "Say hello."}


def children(pid: int) -> set[psutil.Process]:
    """The model servers of a process."""
    running = [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    return {child for child in running if "lexora.entry.model_server" in child.cmdline()}


def wait_until_gone(process: psutil.Process, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.02)


def test_a_server_answers_until_it_is_stopped() -> None:
    before = children(os.getpid())
    server = start_model_server(TINY_CHAT, print)
    (process,) = children(os.getpid()) - before
    try:
        deployment = server.deployment
        assert (deployment.provider, deployment.model, deployment.origin) == ("llamacpp", "tiny-chat", "own")
        listed = httpx2.get(f"{deployment.base_url}/models").json()
        assert [model["id"] for model in listed["data"]] == ["tiny-chat"]
    finally:
        server.stop()
    wait_until_gone(process)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{deployment.base_url}/models")


def test_the_model_answers_by_the_name_of_its_file_and_by_default(tmp_path: Path) -> None:
    model = tmp_path / "my model v1.5.gguf"
    model.symlink_to(TINY_CHAT)
    with running_gateway(tmp_path / "gateway", {}, arguments=("--model", str(model))) as gateway:
        with sdk(gateway) as client:
            assert [(found.id, found.owned_by) for found in client.models.list()] == [("my model v1.5", "llamacpp")]
            raw = client.chat.completions.with_raw_response.create(
                model="my model v1.5",
                messages=[HELLO],
                max_tokens=5,
            )
            streamed = client.chat.completions.create(model="", messages=[HELLO], max_tokens=5, stream=True)
            assert [chunk.choices[0].finish_reason for chunk in streamed][-1] == "length"
        assert raw.headers["x-lexora-origin"] == "own"
        assert raw.headers["x-lexora-cost-usd"] == "0"
        usage = raw.parse().usage
        assert usage is not None
        assert usage.completion_tokens == 5
        assert "my model v1.5  ->  llamacpp http://127.0.0.1:" in gateway.stderr
        (process,) = children(gateway.process.pid)
        assert gateway.stop(signal.SIGTERM) == 0
        wait_until_gone(process)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_model_ends_with_the_gateway_however_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    with running_gateway(tmp_path, {}, arguments=("--model", str(TINY_CHAT))) as gateway:
        (process,) = children(gateway.process.pid)
        gateway.stop(how)
        wait_until_gone(process)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the model cannot be read: No such file or directory"),
        (b"", "is not a GGUF model; give a file that ends in .gguf"),
        (b"PK\x03\x04 safetensors", "is not a GGUF model; give a file that ends in .gguf"),
        (b"GGUF and then nothing that makes sense", "llama.cpp could not load the model"),
    ],
)
def test_a_file_that_is_no_model_is_named(
    tmp_path: Path, content: bytes | None, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    before = children(os.getpid())
    with pytest.raises(ConfigError) as caught:
        start_model_server(path, print)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)
    assert children(os.getpid()) == before
    assert capfd.readouterr() == ("", "")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model cannot be read: Is a directory"):
        start_model_server(tmp_path, print)
