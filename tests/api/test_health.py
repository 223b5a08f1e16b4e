"""GET /health, for watchdogs and people."""

import re

import httpx2
import pytest

from lexora import __version__
from lexora.api.health import _duration
from tests.support.gateway import RunningGateway


def test_health_says_that_all_is_well_and_with_what(web: httpx2.Client) -> None:
    response = web.get("/health")
    assert response.status_code == 200
    body = response.json()
    assert re.fullmatch(r"(\d+d )?(\d+h )?\d+m", body.pop("uptime"))
    assert body == {
        "status": "healthy",
        "version": __version__,
        "model": "org/chat",
        "models": 4,
        "prepared_prompts": 10,
    }


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
