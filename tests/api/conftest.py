"""What the tests of the API share."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.support.gateway import RunningGateway, running_gateway

APP = "https://app.example.com"
DEV = "http://localhost:5173"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that lets two web origins in, takes small bodies, and has models with nobody behind them."""
    nobody = {"provider": "vllm", "base_url": "http://127.0.0.1:9/v1", "model": "up"}
    paid = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "up", "credential": None}
    config = {
        "server": {"max_body_mb": 0.01},
        "cors": {"allow_origins": [APP, DEV]},
        "default_model": "org/chat",
        "models": {
            "chat": {"aliases": ["gpt-4o-mini", "日本語"], "deployments": [nobody]},
            "org/chat": {"deployments": [paid, nobody]},
        },
    }
    with running_gateway(tmp_path_factory.mktemp("site"), config) as running:
        yield running


@pytest.fixture(scope="session")
def web(site: RunningGateway) -> Iterator[httpx2.Client]:
    """A client of `site`."""
    with httpx2.Client(base_url=site.url, timeout=10) as client:
        yield client
