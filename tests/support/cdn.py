"""A CDN that fails as it is told: what no real one can be made to do on demand."""

import mimetypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What stands at a path: a file's content, the status of an error, or None where the connection is closed.
At = bytes | int | None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with few, some of many callers at once wait a second for their connection


class Cdn:
    """Serves `files` by their paths; `asked` are the paths so far. While `open` is cleared, everybody waits."""

    def __init__(self, files: Mapping[str, At]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            wbufsize = -1  # a response is one write

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.open.wait(30)
                at = outer.files.get(self.path, 404)
                if at is None:
                    return
                status, body = (200, at) if isinstance(at, bytes) else (at, b'{"error": {"message": "No."}}')
                self.send_response(status)
                self.send_header("content-type", mimetypes.guess_type(self.path)[0] or "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def cdn(files: Mapping[str, At]) -> Iterator[Cdn]:
    """Serves until the block ends."""
    started = Cdn(files)
    try:
        yield started
    finally:
        started.stop()
