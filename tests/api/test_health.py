"""GET /health, for watchdogs and people."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lexora import __version__
from lexora.api.health import _duration
from tests.support.client import post
from tests.support.fake_server import fake_server
from tests.support.gateway import RunningGateway, free_port, models_config, running_gateway
from tests.support.recorded import wait_until


def health_of(gateway: RunningGateway, status: str) -> dict[str, Any]:
    """The health, once the servers have been looked at and it is what it should be."""

    def asked() -> httpx2.Response:
        return httpx2.get(f"{gateway.url}/health")

    wait_until(lambda: asked().json()["status"] == status, f"health to be {status}")
    response = asked()
    assert response.status_code == (503 if status == "unhealthy" else 200)
    return dict(response.json())


def test_health_says_what_can_answer_and_what_cannot(site: RunningGateway) -> None:
    body = health_of(site, "degraded")
    assert re.fullmatch(r"(\d+d )?(\d+h )?\d+m", body.pop("uptime"))
    assert body == {
        "status": "degraded",
        "version": __version__,
        "model": "org/chat",
        "models": 4,
        "prepared_prompts": 10,
        "vllm_status": "disconnected",
    }


def test_all_is_well_with_a_server_that_answers(gateway: RunningGateway) -> None:
    body = health_of(gateway, "healthy")
    assert "vllm_status" not in body
    assert "gpu_memory_used" not in body  # there is no GPU here, and none is made up


def test_a_server_that_goes_away_and_comes_back(folder: Path) -> None:
    port = free_port()
    own = {"provider": "vllm", "base_url": f"http://127.0.0.1:{port}/v1", "model": "up"}
    with running_gateway(folder, models_config(m=own)) as running:
        assert health_of(running, "unhealthy")["prepared_prompts"] == 10
        with fake_server("up", port=port):
            wait_until(lambda: httpx2.get(f"{running.url}/health").status_code == 200, "the server to be seen", 10)
            assert health_of(running, "healthy")["vllm_status"] == "connected"


def test_of_a_vllm_at_which_nobody_has_looked_nothing_is_said(folder: Path) -> None:
    with fake_server("up") as server:
        server.delay = 2
        own = {"provider": "vllm", "base_url": f"{server.url}/v1", "model": "up"}
        with running_gateway(folder, models_config(m=own)) as running:
            assert "vllm_status" not in health_of(running, "healthy")
            url = f"{running.url}/health"
            wait_until(lambda: httpx2.get(url).json().get("vllm_status") == "connected", "the server to be seen", 10)


def test_a_server_that_is_slow_to_be_looked_at_gets_the_requests_all_the_same(folder: Path) -> None:
    with fake_server("up") as server, fake_server("up", text="paid") as other:
        server.delay = 1.5
        own = {"provider": "vllm", "base_url": f"{server.url}/v1", "model": "up"}
        paid = {"provider": "openai", "base_url": f"{other.url}/v1", "model": "up", "credential": None}
        with running_gateway(folder, {"models": {"m": {"deployments": [own, paid]}}}) as running:
            url = f"{running.url}/health"
            wait_until(lambda: len(server.asked) > 1, "the first look to have an answer")
            wait_until(lambda: httpx2.get(url).json().get("vllm_status") == "connected", "the server to be seen")
            assert post(running).headers["x-lexora-origin"] == "own"


def test_a_server_that_answers_chats_is_there_whatever_it_says_when_it_is_looked_at(folder: Path) -> None:
    port = free_port()
    own = {"provider": "vllm", "base_url": f"http://127.0.0.1:{port}/v1", "model": "up"}
    with running_gateway(folder, models_config(m=own)) as running:
        health_of(running, "unhealthy")
        with fake_server("up", port=port, status=500):
            assert post(running).status_code == 200
            wait_until(lambda: httpx2.get(f"{running.url}/health").status_code == 200, "the server to be seen", 10)


def test_without_models_prepared_answers_are_enough(folder: Path) -> None:
    with running_gateway(folder, {"models": {}}) as running:
        assert health_of(running, "healthy")["model"] is None


def test_the_model_of_health_is_the_one_that_answers_by_default(gateway: RunningGateway) -> None:
    assert httpx2.get(f"{gateway.url}/health").json()["model"] == "tiny-chat"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0m"),
        (59, "0m"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h 0m"),
        (86_399, "23h 59m"),
        (86_400, "1d 0h 0m"),
        (3 * 86_400 + 4 * 3600 + 12 * 60 + 5, "3d 4h 12m"),
    ],
)
def test_the_uptime_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert _duration(seconds) == said
