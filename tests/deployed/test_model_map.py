"""A model map that is broken in a running environment. `deployed` has broken blue's, after blue had read a good one."""

import time
from typing import Any

import pytest

from tests.deployed.conftest import BROKEN, Deployed
from tests.support.client import bearer
from tests.support.deployment import Environment

pytestmark = pytest.mark.timeout(600)
LOOKED_AGAIN_SECONDS = 45  # a change is noticed within a minute


def test_a_broken_model_map_is_refused_and_the_last_good_one_serves(deployed: Deployed) -> None:
    blue = deployed.blue
    assert blue.model_map() == BROKEN
    until = time.monotonic() + LOOKED_AGAIN_SECONDS
    while not (refusals := said(blue, "the model map is refused")):
        assert time.monotonic() < until, "the broken map was not noticed"
        assert models(blue) == {"tiny", "open", "m", "dead", "paid"}
        time.sleep(0.5)
    assert refusals[0]["level"] == "ERROR"
    assert "models.tiny.deployments[0].provider" in refusals[0]["message"]
    (counted,) = [line for line in blue.log_lines() if "ModelMapRefused" in line]
    assert (counted["ModelMapRefused"], counted["environment"]) == ([1], "blue")
    body = {"model": "open", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    with blue.client("chat") as client:
        key = bearer(blue.make_key("--user", "ann"))
        assert client.post("/v1/chat/completions", headers=key, json=body).status_code == 200


def said(environment: Environment, text: str) -> list[dict[str, Any]]:
    return [line for line in environment.log_lines() if text in line.get("message", "")]


def models(environment: Environment) -> set[str]:
    with environment.sdk("chat") as client:
        return {model.id for model in client.models.list()}
