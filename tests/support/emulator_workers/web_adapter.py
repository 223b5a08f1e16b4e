"""Stands in for the Lambda Web Adapter, whose layer is not on this machine.

Starts a function's handler, which is a script, and asks the web server that it becomes. What that server says to its
standard output is the function's log. It buffers: the emulator cannot stream anyway.
"""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

_START_SECONDS = 10
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class Scripts(MetaPathFinder, Loader):
    """Takes the handler `folder/run.sh` for the attribute `sh` of a module `folder.run`, as the emulator does."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        for folder in path or ():
            script = Path(folder, f"{name.rpartition('.')[2]}.sh")
            if script.exists():
                return spec_from_loader(name, self, origin=str(script))
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        assert module.__spec__.origin is not None
        module.sh = _start(Path(module.__spec__.origin))  # type: ignore[attr-defined]


def _start(script: Path) -> Callable[[dict[str, Any], object], dict[str, Any]]:
    """Starts `script` on a port of its own and waits until it is ready. Returns the handler that asks it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]  # functions share this machine: the port that they have on AWS is not free
    script.chmod(0o755)  # which the emulator forgets when it unpacks
    process = subprocess.Popen(
        [script],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={**os.environ, "AWS_LWA_PORT": str(port)},
        preexec_fn=lambda: ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM),
    )
    until = time.monotonic() + _START_SECONDS
    assert os.environ["AWS_LWA_READINESS_CHECK_PROTOCOL"] == "tcp"
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return lambda event, _context: _ask(port, event)


def _ask(port: int, event: dict[str, Any]) -> dict[str, Any]:
    """Passes an event of a REST API on. Returns what the emulator takes for a response."""
    body = event.get("body") or ""
    query = urlencode(event.get("multiValueQueryStringParameters") or {}, doseq=True)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest(event["httpMethod"], f"{event['path']}?{query}" if query else event["path"], skip_host=True)
    content = b64decode(body) if event.get("isBase64Encoded") else body.encode()
    for name, values in (event.get("multiValueHeaders") or {"host": ["localhost"]}).items():
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            for value in values:
                connection.putheader(name, value)
    connection.putheader("content-length", str(len(content)))
    connection.endheaders(content)
    response = connection.getresponse()
    headers: dict[str, list[str]] = {}
    for name, value in response.getheaders():
        if name.lower() != "transfer-encoding":
            headers.setdefault(name, []).append(value)
    text = response.read().decode()
    connection.close()
    return {"statusCode": response.status, "multiValueHeaders": headers, "body": text}
