"""CloudFormation, as a function sees it that stands for a resource."""

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any


class CloudFormation:
    """What a response address leads to: keeps the answers, and the headers that came with them."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.answers.append({**json.loads(body), "path": self.path, "bytes": len(body)})
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/answer?signature=abc%2Fdef"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ask(self, kind: str, handler: Callable[[dict[str, Any], object], None]) -> dict[str, Any]:
        """Asks the function as Lambda does. Returns its answer."""
        event = {
            "RequestType": kind,
            "ResponseURL": self.url,
            "StackId": "arn:aws:cloudformation:us-east-1:1:stack/Lexora-dev-Data/1",
            "RequestId": "unique",
            "LogicalResourceId": "Seed",
            "ResourceProperties": {},
        }
        handler(event, None)
        return self.answers[-1]
