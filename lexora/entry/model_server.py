"""`--model file.gguf`: llama.cpp's own server (the xllamacpp wheel) in a process that ends with the gateway.

Run as a program, this module is that process: `python -m lexora.entry.model_server FILE ALIAS PORT`.
"""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lexora.core.model_map import Deployment
from lexora.entry.errors import ConfigError
from lexora.providers.table import PROVIDERS

_READY = "ready"
_SLOTS = 4


class ModelServer:
    """A running llama.cpp. `deployment` is how the gateway reaches it."""

    def __init__(self, process: subprocess.Popen[str], deployment: Deployment) -> None:
        self.deployment = deployment
        self._process = process

    def stop(self) -> None:
        """Ends the process."""
        with self._process:  # closes its input, which it takes for the gateway's end
            try:
                self._process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()


def start_model_server(path: Path, progress: Callable[[str], None]) -> ModelServer:
    """Starts llama.cpp with the model in `path` and waits until it is loaded. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ConfigError(f"{path}: the model cannot be read: {error.strerror}") from None
    if magic != b"GGUF":
        raise ConfigError(f"{path}: is not a GGUF model; give a file that ends in .gguf")
    name = path.stem
    port = _free_port()
    started = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
        [sys.executable, "-m", "lexora.entry.model_server", str(path), name, str(port)],
        stdin=subprocess.PIPE,  # never written to: its end tells the server that the gateway is gone
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal is the gateway's to handle
    )
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(
        target=lambda out: said.extend(out.readline().split()), args=(process.stdout,), daemon=True
    )
    reader.start()
    while reader.is_alive():
        reader.join(2)
        if reader.is_alive():
            progress(f"loading {path.name}: {time.monotonic() - started:.0f} s")
    if said != [_READY]:
        with process:
            process.kill()
        raise ConfigError(f"{path}: llama.cpp could not load the model; the file may be cut or too new")
    deployment = Deployment.model_validate(
        {"provider": "llamacpp", "base_url": f"http://127.0.0.1:{port}/v1", "model": name}, context=PROVIDERS
    )
    return ModelServer(process, deployment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pooling(path: str) -> int:
    """How an embedding, or a rank, is made of those of a text's tokens; 0 for models that are not made for that.

    It is in the metadata, which come first in the file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
    """
    with Path(path).open("rb") as file:
        said = re.search(rb"\.pooling_type\x04\0\0\0([\0-\x04])\0\0\0", file.read(65_536))
    return said[1][0] if said else 0


def _serve(path: str, alias: str, port: int) -> None:
    import xllamacpp  # heavy, and needed in this process only

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = _SLOTS
    params.use_jinja = True
    params.warmup = False
    params.verbosity = 0
    params.ui = False
    pooling = _pooling(path)
    if pooling:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type(pooling)
        params.n_ubatch = params.n_batch  # a text must fit into one
    # llama.cpp writes to stdout as well, which is the gateway's line to us.
    to_gateway = os.dup(1)
    os.dup2(2, 1)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        sys.exit(1)  # it has said on stderr what it could, and the gateway says the rest
    os.write(to_gateway, f"{_READY}\n".encode())
    sys.stdin.read()  # until the gateway ends, however it ends
    del server
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
