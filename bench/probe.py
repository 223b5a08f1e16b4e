"""What bench/cold_start.py measures, each time in a fresh process. The last line printed is a JSON object of figures.

`python -m bench.probe answer MODULE WARM`: the first answer of MODULE's `handler`, then WARM more of them.
`python -m bench.probe imports`: the imports named on stdin, and one DynamoDB client.
`python -m bench.probe uncollected`: the same without garbage collection, as our handler does it.
"""

import gc
import importlib
import resource
import sys
import time
from typing import Any

STAGE = "bench"
_PATH = f"/{STAGE}/v1/chat/completions"

# What API Gateway's HTTP API sends (payload format 2.0), as far as anybody reads it.
EVENT = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": _PATH,
    "rawQueryString": "",
    "headers": {"content-type": "application/json", "host": "abc.execute-api.us-east-1.amazonaws.com"},
    "requestContext": {
        "http": {"method": "POST", "path": _PATH, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.1", "userAgent": "b"},
        "stage": STAGE,
    },
    "body": '{"messages":[{"role":"user","content":"日本の首都はどこですか？"}]}',
    "isBase64Encoded": False,
}


def answers(module: str, warm: int) -> dict[str, Any]:
    """CPU seconds of the process up to its first answer, their median in `warm` more; the foreign modules by then."""
    handler = importlib.import_module(module).handler
    _ask(handler)
    cold = _cpu_seconds()
    files = {name: getattr(loaded, "__file__", None) or "" for name, loaded in sys.modules.items()}
    times = []
    for _ in range(warm):
        begun = time.process_time()
        _ask(handler)
        times.append(time.process_time() - begun)
    return {
        "cold": cold,
        "warm": sorted(times)[warm // 2],
        "modules": [name for name, file in files.items() if "site-packages" in file],
    }


def imports(names: list[str]) -> dict[str, Any]:
    """CPU seconds of the process up to having imported these and made a client."""
    for name in names:
        importlib.import_module(name)
    session = importlib.import_module("botocore.session")
    session.get_session().create_client("dynamodb")
    return {"cold": _cpu_seconds()}


def _ask(handler: Any) -> None:
    answer = handler(EVENT, None)
    if answer["statusCode"] != 200 or "chat.completion" not in answer["body"]:
        raise SystemExit(f"this is no answer: {answer}")


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "uncollected":
        gc.disable()
    figures = answers(rest[0], int(rest[1])) if kind == "answer" else imports(sys.stdin.read().split())
    print(importlib.import_module("json").dumps(figures))
