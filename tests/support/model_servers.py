"""vLLM, Ollama and llama.cpp's router, as far as their operators use them: what their documentation and sources say.

A GPU for vLLM and a weight of gigabytes for Ollama are on no machine that runs the tests.
"""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.support.recorded import completion

Answer = tuple[int, Any]
OK: Answer = (200, None)


class FakeModelServer(ABC, ThreadingHTTPServer):
    """`calls` are the POSTs but for chats, `chats` those; `hold` keeps every POST waiting until it is set."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        self.calls: list[tuple[str, Any]] = []
        self.chats: list[Any] = []
        self.hold = threading.Event()
        self.hold.set()
        self.broken: Answer | None = None  # what every POST is answered, if so

    @abstractmethod
    def get(self, path: str) -> Answer: ...

    @abstractmethod
    def post(self, path: str, query: dict[str, list[str]], body: Any) -> Answer: ...


class _Handler(BaseHTTPRequestHandler):
    server: FakeModelServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response is one write

    def do_GET(self) -> None:
        self._send(*self.server.get(urlsplit(self.path).path))

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(sent) if sent else None
        url = urlsplit(self.path)
        if url.path == "/v1/chat/completions":
            self.server.chats.append(body)
            self.server.hold.wait(10)
            self._send(200, completion(model=body["model"]))
            return
        self.server.calls.append((self.path, body))
        self.server.hold.wait(10)
        self._send(*(self.server.broken or self.server.post(url.path, parse_qs(url.query), body)))

    def _send(self, status: int, value: Any) -> None:
        body = b"" if value is None else json.dumps(value, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Vllm(FakeModelServer):
    """`dev`: with VLLM_SERVER_DEV_MODE and --enable-sleep-mode. `runtime_lora`: adapters may come and go."""

    def __init__(self, *, dev: bool = True, runtime_lora: bool = True, port: int = 0) -> None:
        super().__init__(port)
        self.dev = dev
        self.runtime_lora = runtime_lora
        self.adapters: dict[str, str] = {}
        self.asleep: set[str] = set()  # what of its memory is
        self.weights = True

    def get(self, path: str) -> Answer:
        if path == "/v1/models":
            base = {"id": "qwen3", "object": "model", "owned_by": "vllm", "root": "/models/qwen3", "parent": None}
            adapters = [{**base, "id": name, "root": at, "parent": "qwen3"} for name, at in self.adapters.items()]
            return 200, {"object": "list", "data": [base, *adapters]}
        if path == "/is_sleeping" and self.dev:
            return 200, {"is_sleeping": bool(self.asleep)}
        return 404, {"detail": "Not Found"}

    def post(self, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        if self.runtime_lora and path == "/v1/load_lora_adapter":
            if not body["lora_path"].startswith("/adapters/"):
                return self._error(404, f"No adapter found for {body['lora_path']}")
            self.adapters[body["lora_name"]] = body["lora_path"]
            return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
        if self.runtime_lora and path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."
        if self.dev and path == "/sleep":
            self.asleep = {"weights", "kv_cache"}
            self.weights = query["level"] == ["1"]
            return OK
        if self.dev and path == "/wake_up":
            self.asleep -= set(query.get("tags", self.asleep))
            return OK
        if self.dev and path == "/collective_rpc" and body == {"method": "reload_weights"}:
            self.weights = "weights" not in self.asleep
            return 200, {"results": [None]}
        if self.dev and path == "/reset_prefix_cache":
            return OK
        return 404, {"detail": "Not Found"}

    @staticmethod
    def _error(status: int, message: str) -> Answer:
        return status, {"error": {"message": message, "type": "NotFoundError", "param": None, "code": status}}


class Ollama(FakeModelServer):
    """Has `qwen3:4b` and `llama3:latest`; `lingering` looks after an unload, the model is still listed."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.running: set[str] = set()
        self.lingering = 0

    def get(self, path: str) -> Answer:
        if path == "/api/ps":
            listed = set(self.running)
            if self.lingering:
                self.lingering -= 1
                listed.add("llama3:latest")
            return 200, {"models": [{"name": name, "model": name, "size_vram": 1} for name in sorted(listed)]}
        if path == "/v1/models":
            models = [{"id": "qwen3:4b", "object": "model"}, {"id": "llama3:latest", "object": "model"}]
            return 200, {"object": "list", "data": models}
        return 404, None

    def post(self, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        assert (path, body["stream"]) == ("/api/generate", False)
        assert "prompt" not in body
        name = body["model"] if ":" in body["model"] else f"{body['model']}:latest"
        if name not in ("qwen3:4b", "llama3:latest"):
            return 404, {"error": f"model '{body['model']}' not found"}
        if body["keep_alive"] == 0:
            self.running.discard(name)
            return 200, {"model": name, "response": "", "done": True, "done_reason": "unload"}
        self.running.add(name)
        return 200, {"model": name, "response": "", "done": True, "done_reason": "load"}


class LlamaRouter(FakeModelServer):
    """A llama-server in router mode with the models `a` (alias `first`) and `bad`, whose file is none.

    A load or unload is under way for `seconds` after it was answered.
    """

    def __init__(self, seconds: float = 0.3, port: int = 0) -> None:
        super().__init__(port)
        self.seconds = seconds
        self.status = {"a": "unloaded", "bad": "unloaded"}
        self.failed: set[str] = set()
        self._done_at = 0.0
        self._then: tuple[str, str] | None = None

    def get(self, path: str) -> Answer:
        if path not in ("/models", "/v1/models"):
            return self._error(404, "File Not Found", "not_found_error")
        if self._then and time.monotonic() > self._done_at:
            name, status = self._then
            self.status[name], self._then = status, None
        data = []
        for name, status in self.status.items():
            said: dict[str, Any] = {"value": status, "args": ["llama-server"]}
            if name in self.failed and status == "unloaded":
                said |= {"exit_code": 1, "failed": True}
            data.append({"id": name, "aliases": ["first"] if name == "a" else [], "object": "model", "status": said})
        return 200, {"data": data, "object": "list"}

    def becomes(self, name: str, status: str) -> None:
        """It does, after `seconds`."""
        self._then, self._done_at = (name, status), time.monotonic() + self.seconds

    def post(self, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        name = "a" if body["model"] == "first" else body["model"]
        if name not in self.status:
            return self._error(404, "model is not found", "not_found_error")
        if path == "/models/load":
            if self.status[name] != "unloaded":
                return self._error(400, "model is already running", "invalid_request_error")
            self.status[name] = "loading"
            self.becomes(name, "loaded" if name == "a" else "unloaded")
            if name == "bad":
                self.failed.add(name)
            return 200, {"success": True}
        assert path == "/models/unload"
        if self.status[name] == "unloaded":
            return self._error(400, "model is not running", "invalid_request_error")
        self.becomes(name, "unloaded")
        return 200, {"success": True}

    @staticmethod
    def _error(status: int, message: str, kind: str) -> Answer:
        return status, {"error": {"code": status, "message": message, "type": kind}}


_Server = TypeVar("_Server", bound=FakeModelServer)


@contextmanager
def running(server: _Server) -> Iterator[_Server]:
    """Runs a server until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
