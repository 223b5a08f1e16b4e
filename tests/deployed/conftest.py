"""Two environments, `dev` and `blue`, deployed to ministack side by side for all tests of this folder."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from lexora.core.model_map import Deployment
from tests.support.deployment import ORIGIN, Cdk, Environment, copy_checkout, inventory
from tests.support.emulator import Emulator
from tests.support.gateway import ROOT, free_port
from tests.support.recorded import RecordedUpstream

CHANGED = "q1_capital"  # the prompt whose answer 0 is another one in the assembly `changed`
NEW_ANSWER = "日本の首都は、いまも東京です。"
BROKEN = b'{"models": {"tiny": {"deployments": [{"provider": "nobody", "model": "tiny-chat"}]}}}'


class Deployed(NamedTuple):
    """Both environments. `before` is what was in the account, `first` what each held after nothing but its deploy."""

    cdk: Cdk
    dev: Environment
    blue: Environment
    before: dict[str, set[str]]
    first: Mapping[str, tuple[dict[tuple[str, int], str], bytes]]


@pytest.fixture(scope="session")
def deployed(
    emulator: Emulator,
    llamacpp: Deployment,
    _upstream: RecordedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    """`dev` lets web pages of ORIGIN in, has the secret GPU_API_KEY and asks nobody for a key; `blue` has neither, and
    whoever asks a model there needs a key.

    Both have a model map of their operator's: `tiny` is a real llama.cpp, `m` is the recorded upstream, both asked with
    the secret GPU_API_KEY; `open` is llama.cpp without; nobody is behind `dead`; `paid` needs a secret that is not set.
    When blue's buffered door had read its map, the operator broke it: it has half a minute to notice.
    """
    folder = tmp_path_factory.mktemp("deployed")
    cdk = Cdk(emulator, folder)
    cdk.bootstrap()
    before = inventory(emulator)
    dev = {"ALLOW_ORIGINS": ORIGIN, "auth_required": "false", "tokens_per_minute": "100000000"}
    cdk.synth({"dev": (ROOT, dev), "blue": (ROOT, {"environment": "blue"})})
    cdk.deploy("dev", "blue")
    both = [Environment(name, emulator, cdk.outputs(name)) for name in ("dev", "blue")]
    first = {environment.name: (environment.answers(), environment.model_map()) for environment in both}
    both[0].put_secret("GPU_API_KEY", "the-gpu-host's-key")
    model_map = json.dumps(_model_map(llamacpp.base_url, _upstream.base_url)).encode()
    for environment in both:
        environment.put_model_map(model_map)
    with both[1].client("chat") as client:
        assert client.get("/v1/models").status_code == 200
    both[1].put_model_map(BROKEN)
    # Needed last of all, but now blue is waited for anyway.
    changed = copy_checkout(folder / "changed")
    answer = changed / "static_responses" / "responses" / CHANGED / "0.json"
    answer.write_text(json.dumps({"response": NEW_ANSWER}))
    cdk.synth({"changed": (changed, dev)})
    yield Deployed(cdk, *both, before, first)


def _model_map(llamacpp: str, recorded: str) -> dict[str, Any]:
    tiny = {"provider": "llamacpp", "base_url": llamacpp, "model": "tiny-chat"}
    key = {"credential": "env:GPU_API_KEY"}
    deployments = {
        "tiny": {**tiny, **key},
        "open": tiny,
        "m": {"provider": "vllm", "base_url": recorded, "model": "up", **key},
        "dead": {"provider": "vllm", "base_url": f"http://127.0.0.1:{free_port()}/v1", "model": "up"},
        "paid": {"provider": "openai", "base_url": recorded, "model": "up", "credential": "env:OPENAI_API_KEY"},
    }
    return {"models": {name: {"deployments": [deployment]} for name, deployment in deployments.items()}}


@pytest.fixture(scope="session")
def dev(deployed: Deployed) -> Environment:
    return deployed.dev


@pytest.fixture(scope="session")
def blue(deployed: Deployed) -> Environment:
    return deployed.blue
