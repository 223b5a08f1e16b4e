"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from lexora.core.model_map import Deployment
from lexora.entry.model_server import start_model_server
from tests.support.client import UPSTREAM_KEY
from tests.support.embedding_model import write_embedding_model
from tests.support.gateway import TINY_CHAT, RunningGateway, free_port, models_config, running_gateway
from tests.support.recorded import RecordedUpstream, recorded_upstream

if TYPE_CHECKING:  # boto3 takes its time, and most tests need none of it
    from tests.support.emulator import Emulator


# Whose files share what is dear (a deployment) or there once (the ports at which a gateway looks for upstreams).
_TOGETHER = ("tests/deployed", "tests/entry")


class _ByFile(LoadScopeScheduling):
    """Where several processes test, each file stays in one of them, and so do the files of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in _TOGETHER if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _ByFile(config, log)


@pytest.fixture(scope="session")
def llamacpp() -> Iterator[Deployment]:
    """A real llama.cpp server with the tiny model (gibberish text, real everything else)."""
    server = start_model_server(TINY_CHAT, print)
    yield server.deployment
    server.stop()


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A real llama.cpp server with the tiny model, made for embeddings."""
    server = start_model_server(write_embedding_model(tmp_path_factory.mktemp("embedder") / "tiny-embed.gguf"), print)
    yield server.deployment
    server.stop()


@pytest.fixture(scope="session")
def gateway(llamacpp: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway in front of llama.cpp: model `tiny-chat`, alias `tiny`."""
    deployment = {"provider": "llamacpp", "base_url": llamacpp.base_url, "model": "tiny-chat"}
    config = {"models": {"tiny-chat": {"aliases": ["tiny"], "deployments": [deployment]}}}
    with running_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gateway"


@pytest.fixture(scope="session")
def _upstream() -> Iterator[RecordedUpstream]:
    with recorded_upstream([b""]) as running:
        yield running


@pytest.fixture
def upstream(_upstream: RecordedUpstream) -> RecordedUpstream:
    """The recorded upstream behind `door`. Tell it what to `play`."""
    _upstream.play([b""])
    return _upstream


@pytest.fixture(scope="session")
def door(
    _upstream: RecordedUpstream, llamacpp: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway in front of `upstream`, which stands behind every one of its models but `tiny`, the real llama.cpp.

    `m` is vLLM, `llamacpp` and `ollama` what they say, `paid` OpenAI with a price, `unpriced` without, `claude`
    Anthropic; `hasty` waits 0.4 s for the next piece of a stream, `brief` 0.5 s for a whole answer. Nobody is behind
    `dead`; `spare` has it for its first deployment, and `pair` has two that are well.
    """
    url = _upstream.base_url
    own = {"provider": "vllm", "base_url": url, "model": "up"}
    dead = {**own, "base_url": f"http://127.0.0.1:{free_port()}/v1"}
    paid = {"provider": "openai", "base_url": url, "model": "up", "credential": "env:UPSTREAM_KEY"}
    config = models_config(
        m=own,
        llamacpp={**own, "provider": "llamacpp"},
        ollama={**own, "provider": "ollama"},
        paid={**paid, "price": {"input": 2, "output": 8, "cached_input": 0.5}},
        unpriced=paid,
        claude={**paid, "provider": "anthropic"},
        hasty={**own, "timeouts": {"idle": 0.4}},
        brief={**own, "timeouts": {"total": 0.5}},
        dead=dead,
        tiny={**own, "base_url": llamacpp.base_url, "model": "tiny-chat"},
    )
    config["circuit"] = {"failures": 1_000_000}  # of tests of failures there are many in a row
    config["models"]["spare"] = {"deployments": [dead, {**own, "name": "second"}]}
    config["models"]["pair"] = {"deployments": [{**own, "name": "first"}, {**own, "name": "second"}]}
    with running_gateway(tmp_path_factory.mktemp("door"), config, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as running:
        yield running


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """AWS on this machine, shared by all tests: each makes tables, buckets and secrets of its own."""
    from tests.support.emulator import running_emulator

    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running
