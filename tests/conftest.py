"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lexora.core.model_map import Deployment
from lexora.entry.model_server import start_model_server
from tests.support.gateway import TINY_CHAT, RunningGateway, running_gateway


@pytest.fixture(scope="session")
def llamacpp() -> Iterator[Deployment]:
    """A real llama.cpp server with the tiny model (gibberish text, real everything else)."""
    server = start_model_server(TINY_CHAT, print)
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
