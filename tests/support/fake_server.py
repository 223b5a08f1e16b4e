"""A model server whose `/v1/models` can be set: what a gateway asks when it looks for upstreams."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.recorded import DONE, completion, finish, token, usage


class FakeServer:
    """Lists `models` after `delay` seconds and answers every chat.

    `asked` are the paths with their headers, `chats` the chat requests.
    """

    def __init__(self, port: int, models: Sequence[Mapping[str, Any]] | bytes, status: int, text: str) -> None:
        self.models = models
        self.delay = 0.0
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.chats: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # a response is one write

            def do_GET(self) -> None:
                self._note()
                time.sleep(outer.delay)
                models = outer.models
                self._send(status, models if isinstance(models, bytes) else json.dumps({"data": models}).encode())

            def do_POST(self) -> None:
                self._note()
                chat = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.chats.append(chat)
                if chat.get("stream"):
                    events = token(text, model=chat.get("model")) + finish() + usage(7, 3) + DONE
                    self._send(200, events, "text/event-stream")
                else:
                    self._send(200, json.dumps(completion(text, model=chat.get("model"))).encode())

            def _note(self) -> None:
                outer.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))

            def _send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def fake_server(
    *models: str | Mapping[str, Any], port: int = 0, body: bytes | None = None, status: int = 200, text: str = "Hello."
) -> Iterator[FakeServer]:
    """Serves `models` (ids, or whole entries of the list; or `body` for what is no list) until the block ends."""
    entries = [{"id": model, "object": "model"} if isinstance(model, str) else model for model in models]
    server = FakeServer(port, entries if body is None else body, status, text)
    try:
        yield server
    finally:
        server.stop()
