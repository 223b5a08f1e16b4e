"""schemathesis asks for everything that /openapi.json describes, in ways that it allows and in ways that it forbids.

Nothing may end in a fault of the gateway's own, or in a status or content type that the description does not have.
"""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key
from tests.support.client import bearer
from tests.support.gateway import RunningGateway, clean_environment, models_config, running_gateway
from tests.support.recorded import DONE, completion, finish, token, usage
from tests.support.served import served

SETTINGS = Path(__file__).with_name("schemathesis.toml")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


_COUNTED = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
_TEXT = {"index": 0, "text": "Hello.", "logprobs": None, "finish_reason": "stop"}
ANSWERS: dict[str, Any] = {
    "chat/completions": completion(),
    "completions": {"object": "text_completion", "created": 1, "choices": [_TEXT], "usage": _COUNTED},
    "embeddings": {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]},
    "rerank": {"results": [{"index": 0, "relevance_score": 0.5}]},
    "images/generations": {"created": 1, "data": [{"b64_json": "iVBORw0KGgo="}]},
    "audio/transcriptions": {"text": "Hello."},
}


async def answer(request: Request) -> Response:
    """A server that takes every request for what it is, and streams if it is asked to."""
    path = request.url.path.removeprefix("/v1/")
    asked = await request.json() if request.headers["content-type"] == "application/json" else {}
    if asked.get("stream"):
        text = token("Hello.") + finish() if path.startswith("chat") else _event({**ANSWERS[path]})
        return Response(text + usage(7, 3) + DONE, media_type="text/event-stream")
    return JSONResponse({"id": "1", "model": "up", **ANSWERS[path]})


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


UPSTREAM = Starlette(routes=[Route(f"/v1/{path}", answer, methods=["POST"]) for path in ANSWERS])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that wants a key, and has a model for requests that name none."""
    with served(UPSTREAM) as upstream:
        config = models_config(m={"provider": "vllm", "base_url": f"{upstream}/v1", "model": "up"})
        config |= {"default_model": "m", "responses": {"store": True}, "auth": {"required": True}}
        with running_gateway(tmp_path_factory.mktemp("described"), config) as gateway:
            yield gateway


def admins_key(gateway: RunningGateway) -> str:
    wanted = new_key({"user_id": "root", "admin": True})
    with closing(SqliteKeys(gateway.folder / "data" / "lexora.db")) as keys:
        _, secret = create(keys, wanted, 1.0, secrets.token_hex(6), secrets.token_hex(22))
    return secret


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("admin", "examples"),
    [
        (True, 5),
        pytest.param(True, 100, marks=pytest.mark.slow),
        pytest.param(False, 100, marks=pytest.mark.slow),
    ],
)
def test_the_description_is_kept(site: RunningGateway, admin: bool, examples: int, tmp_path: Path) -> None:
    """`examples` for each operation at random, after all that are at the edges of its schema."""
    shown = bearer(admins_key(site) if admin else None)
    headers = [f"--header={name}: {value}" for name, value in shown.items()]
    command = [f"{sys.prefix}/bin/schemathesis", f"--config-file={SETTINGS}", "run", f"{site.url}/openapi.json"]
    options = [f"--checks={','.join(CHECKS)}", "--phases=coverage,fuzzing", f"--max-examples={examples}", "--seed=1"]
    ended = subprocess.run(
        [*command, *options, "--continue-on-failure", *headers],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "unexpected error" not in site.stdout
