"""A real nginx with the site of deploy/nginx, as anybody may run it."""

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.gateway import ROOT, free_port
from tests.support.recorded import wait_until

NOBODY = "127.0.0.1:1"
_TEMPLATES = ROOT / "deploy" / "nginx"
_MAIN = """
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 2;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include conf.d/*.conf;
}}
"""


class Nginx:
    """Answers clients at `url`, and fills its cache at `fill_url`. `start` takes an upstream's address and port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self._ports = free_port(), free_port()
        self.url, self.fill_url = (f"http://127.0.0.1:{port}" for port in self._ports)
        self.client = httpx2.Client(timeout=30)
        self._process: subprocess.Popen[bytes] | None = None
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
        if program is None:
            pytest.skip("needs nginx")
        self._command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]

    def start(
        self,
        upstream: str = NOBODY,
        misses: str = NOBODY,
        valid: str = "3650d",
        answers: Path = ROOT / "static_responses",
    ) -> None:
        """Starts it, or starts it anew."""
        self.stop()
        (self.folder / "conf.d").mkdir(parents=True, exist_ok=True)
        # Else root's nginx has its workers run as somebody who may not enter pytest's folders.
        user = "user root;" if getpass.getuser() == "root" else ""
        (self.folder / "nginx.conf").write_text(_MAIN.format(folder=self.folder, user=user))
        values = {
            "UPSTREAM": upstream,
            "MISSES": misses,
            "VALID": valid,
            "LISTEN": self.url.removeprefix("http://"),
            "FILL_LISTEN": self.fill_url.removeprefix("http://"),
            "CACHE": str(self.cache),
            "ANSWERS": str(answers),
            "ACCESS_LOG": str(self.folder / "access.log"),
        }
        for name in ("lexora.conf", "lexora.inc"):
            text = (_TEMPLATES / f"{name}.template").read_text()
            rendered = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)
            (self.folder / "conf.d" / name).write_text(rendered)
        checked = subprocess.run([*self._command, "-t"], capture_output=True, text=True, timeout=30)
        assert checked.returncode == 0, checked.stderr
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=5)) as client:
            assert client.get(f"{self.url}/health").json() == {"status": "ok"}

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def ask(self, body: bytes, **headers: str) -> httpx2.Response:
        """One chat, as a client asks it."""
        return self._post(self.url, body, headers)

    def fill(self, body: bytes, **headers: str) -> httpx2.Response:
        """One chat at the operator's door."""
        return self._post(self.fill_url, body, headers)

    def keep(self, body: bytes, **headers: str) -> httpx2.Response:
        """The same, and waits until the answer is kept: nginx first gives it, then moves it into the cache."""
        before = self.kept()
        response = self.fill(body, **headers)
        assert status_of(response) == (200, "MISS"), response.text
        wait_until(lambda: self.kept() > before, "the answer to be kept")
        return response

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["content-type"] = "application/json"
        return self.client.post(f"{url}/v1/chat/completions", content=body, headers=named)

    def kept(self) -> int:
        """How many answers are in the cache."""
        return sum(bool(re.fullmatch("[0-9a-f]{32}", path.name)) for path in self.cache.rglob("*"))


def status_of(response: httpx2.Response) -> tuple[int, str]:
    """Its status, and where the cache says it comes from."""
    return response.status_code, response.headers.get("x-cache-status", "")


@contextmanager
def nginx_in(folder: Path) -> Iterator[Nginx]:
    """An nginx that is to be started, and is stopped in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    nginx = Nginx(folder)
    try:
        yield nginx
    finally:
        nginx.client.close()
        nginx.stop()
