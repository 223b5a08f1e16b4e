"""What stands in for vLLM where a real one is too large: takes the unit's flags, lists its model, is healthy."""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
options = parser.parse_args()
MODELS = json.dumps({"object": "list", "data": [{"id": options.model, "object": "model", "owned_by": "vllm"}]})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = MODELS.encode() if self.path == "/v1/models" else b""
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


(Path.home() / "kernels").write_text("vLLM compiles some at its start")
ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()
