"""What a benchmark run starts: the upstreams, the peers and the gateway, with their configs."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe

from bench.procs import BenchError, Proc, Procs, free_port
from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key

HERE = Path(__file__).parent
ROOT = HERE.parent
ROUTER = ROOT / ".venv-bench" / "bin" / "vllm-router"

ANSWER = (
    '{"id":"chatcmpl-8f14e45fceea167a5a36dedd4bea2543","object":"chat.completion",'
    '"created":1763700000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant",'
    '"content":"The capital of France is Paris. It lies on the Seine in the north of the country '
    'and has been its seat of government for most of the last thousand years.","tool_calls":[]},'
    '"logprobs":null,"finish_reason":"stop","stop_reason":null}],"service_tier":null,'
    '"system_fingerprint":null,"usage":{"prompt_tokens":15,"total_tokens":49,'
    '"completion_tokens":34,"prompt_tokens_details":null},"prompt_logprobs":null}'
)

# The same as Anthropic says it.
MESSAGE = (
    '{"id":"msg_013Zva2CMHLNnjNjJJKqJ2EF","type":"message","role":"assistant","model":"bench",'
    '"content":[{"type":"text","text":"The capital of France is Paris. It lies on the Seine in the north of the '
    'country and has been its seat of government for most of the last thousand years."}],"stop_reason":"end_turn",'
    '"stop_sequence":null,"usage":{"input_tokens":15,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
    '"output_tokens":34}}'
)

NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
"""

CANNED = """\
server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 '{{}}'; }}
        location = /v1/chat/completions {{ return 200 '{answer}'; }}
        location = /v1/messages {{ return 200 '{message}'; }}
    }}"""

PROXY = """\
upstream vllm {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://vllm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}"""

GATEWAY = """\
models:
  bench:
    deployments:
      - {{provider: vllm, base_url: "http://127.0.0.1:{upstream}/v1", model: bench}}
  claude:
    deployments:
      - {{provider: anthropic, base_url: "http://127.0.0.1:{upstream}/v1", model: bench, credential: "env:BENCH_KEY"}}
"""

# Of what a team has, all that every request pays for; nothing is ever refused.
TEAM = """\
auth: {{required: true}}
rate_limits:
  default: {{requests_per_minute: 1000000000, tokens_per_minute: 1000000000000}}
budgets:
  everyone: {{usd_per_day: 1000000}}
queue: {{max_size: 1000}}
models:
  bench:
    deployments:
      - {{provider: vllm, base_url: "http://127.0.0.1:{upstream}/v1", model: bench, concurrency: 10000}}
"""


@dataclass(frozen=True)
class Server:
    """A started server."""

    name: str
    port: int
    proc: Proc
    data: Path | None = None  # the gateway's folder, with lexora.db in it
    key: str | None = None  # the API key that it wants

    @property
    def chat_url(self) -> str:
        """Where chat completions are asked for."""
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"

    @property
    def messages_url(self) -> str:
        """Where clients of Anthropic's API ask."""
        return f"http://127.0.0.1:{self.port}/v1/messages"


def find_tool(name: str) -> str:
    """The path of a program that install.sh has seen to."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise BenchError(f"{name} is missing: run bench/install.sh")
    return path


def compile_c(name: str) -> Path:
    """bench/build/<name>, compiled from bench/<name>.c unless it is newer than that."""
    source, program = HERE / f"{name}.c", HERE / "build" / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run([find_tool("cc"), "-O2", "-Wall", "-o", program, source], check=True)
    return program


def install_peers() -> None:
    """Make .venv-bench from the locked requirements unless it is there."""
    if subprocess.run([HERE / "install.sh"], check=False).returncode != 0:
        raise BenchError("bench/install.sh could not install the peers")


def start_plain_upstream(procs: Procs) -> Server:
    """nginx on the load core, with one and the same small completion for every chat request."""
    port = free_port()
    return _nginx(procs, "upstream", port, procs.cores.load, CANNED.format(port=port, answer=ANSWER, message=MESSAGE))


def start_stream_upstream(procs: Procs, interval_ms: int) -> Server:
    """The SSE upstream on the load core: one token per interval and stream."""
    port = free_port()
    argv: list[str | Path] = [compile_c("stream_upstream"), "-p", str(port), "-i", str(interval_ms)]
    url = f"http://127.0.0.1:{port}/health"
    return Server("direct", port, procs.start("stream-upstream", argv, procs.cores.load, url))


def start_nginx_proxy(procs: Procs, upstream: Server) -> Server:
    """nginx proxy_pass on the gateway's core, for orientation: what C alone would cost."""
    port = free_port()
    http = PROXY.format(port=port, upstream=upstream.port)
    return _nginx(procs, "nginx", port, procs.cores.gateway, http)


def start_router(procs: Procs, upstream: Server) -> Server:
    """vllm-router on the gateway's core, with the policy that is its fastest by far."""
    port = free_port()
    argv: list[str | Path] = [
        ROUTER, "--host", "127.0.0.1", "--port", str(port),
        "--worker-urls", f"http://127.0.0.1:{upstream.port}",
        "--policy", "round_robin", "--log-level", "warning", "--max-concurrent-requests", "8192",
        "--prometheus-port", str(free_port()),
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}/health"
    proc = procs.start("vllm-router", argv, procs.cores.gateway, url)
    return Server("vllm-router", port, proc)


def start_gateway(procs: Procs, upstream: Server, program: Path, *, keys: int = 0) -> Server:
    """The gateway on its core, logging JSON lines to a file and recording to SQLite.

    With `keys`, it has so many of them, wants one, and counts limits.
    """
    port = free_port()
    folder = procs.folder / f"gateway-{port}"
    data = folder / "data"
    data.mkdir(parents=True)
    config = folder / "lexora.yaml"
    os.environ["BENCH_KEY"] = "none"
    config.write_text((TEAM if keys else GATEWAY).format(upstream=upstream.port))
    key = _make_keys(data, keys) if keys else None
    argv: list[str | Path] = [
        program, "serve", "--host", "127.0.0.1", "--port", str(port),
        "--config", config, "--data", data,
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}/health"
    name = f"{keys:,} keys" if keys else "gateway"
    return Server(name, port, procs.start(f"gateway-{keys}", argv, procs.cores.gateway, url), data, key)


def _make_keys(data: Path, count: int) -> str:
    """Fills the gateway's table of keys; returns one of them."""
    store = SqliteKeys(data / "lexora.db")
    new = [new_key({"user_id": f"user-{n}"}) for n in range(count)]
    made = [create(store, key, time.time(), f"{n:012x}", token_urlsafe(32))[1] for n, key in enumerate(new)]
    store.close()
    return made[count // 2]


def _nginx(procs: Procs, name: str, port: int, core: int, http: str) -> Server:
    folder = procs.folder / f"{name}-{port}"
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, http=http))
    argv: list[str | Path] = [
        find_tool("nginx"),
        "-p",
        folder,
        "-c",
        config,
        "-e",
        folder / "error.log",
    ]
    return Server(name, port, procs.start(name, argv, core, f"http://127.0.0.1:{port}/health"))
