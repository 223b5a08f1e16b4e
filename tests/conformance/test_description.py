"""schemathesis asks for everything that /openapi.json describes, in ways that it allows and in ways that it forbids.

Nothing may end in a fault of the gateway's own, or in a status or content type that the description does not have.
"""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key
from tests.support.client import bearer
from tests.support.fake_server import fake_server
from tests.support.gateway import RunningGateway, clean_environment, models_config, running_gateway

SETTINGS = Path(__file__).with_name("schemathesis.toml")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.fixture(scope="module", params=["without a key", "as an admin"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGateway, str | None]]:
    """A gateway in which every model can be asked, and the key to show, if it wants one."""
    required = request.param == "as an admin"
    with fake_server("up") as upstream:
        own = {"provider": "vllm", "base_url": f"{upstream.url}/v1", "model": "up"}
        config = models_config(**{"m": own, "*": own})
        config |= {"default_model": "m", "responses": {"store": True}, "auth": {"required": required}}
        with running_gateway(tmp_path_factory.mktemp("described"), config) as gateway:
            yield gateway, admins_key(gateway) if required else None


def admins_key(gateway: RunningGateway) -> str:
    wanted: Any = new_key({"user_id": "root", "admin": True})
    with closing(SqliteKeys(gateway.folder / "data" / "lexora.db")) as keys:
        _, secret = create(keys, wanted, 1.0, secrets.token_hex(6), secrets.token_hex(22))
    return secret


@pytest.mark.parametrize(
    "examples",
    [
        pytest.param(5, marks=pytest.mark.timeout(300)),
        pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_the_description_is_kept(site: tuple[RunningGateway, str | None], examples: int, tmp_path: Path) -> None:
    """`examples` for each operation at random, after all that are at the edges of its schema."""
    gateway, key = site
    headers = [f"--header={name}: {value}" for name, value in bearer(key).items()]
    command = [f"{sys.prefix}/bin/schemathesis", f"--config-file={SETTINGS}", "run", f"{gateway.url}/openapi.json"]
    options = [f"--checks={','.join(CHECKS)}", "--phases=coverage,fuzzing", f"--max-examples={examples}", "--seed=1"]
    ended = subprocess.run(
        [*command, *options, "--continue-on-failure", *headers],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "unexpected error" not in gateway.stdout
