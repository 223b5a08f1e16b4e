"""The end of the story, and so the last file by name: a deploy that changes an answer, and then the end of it all."""

import json

import pytest

from tests.deployed.conftest import CHANGED, NEW_ANSWER, Deployed
from tests.support.answers_place import invalidated
from tests.support.deployment import inventory

pytestmark = pytest.mark.timeout(600)
CAPITAL = "日本の首都はどこですか？"


def test_a_changed_answer_is_deployed_and_all_else_stays(deployed: Deployed) -> None:
    dev, cdk = deployed.dev, deployed.cdk
    answers, model_map, outputs = dev.answers(), dev.model_map(), cdk.outputs("dev")
    records = dev.emulator.items(outputs["RequestsTableName"])
    assert model_map != deployed.first["dev"][1], "the operator has edited it"
    assert len(records) > 20
    blue = deployed.blue.answers()
    cdk.deploy("changed")

    assert dev.answers() == {**answers, (CAPITAL, 0): NEW_ANSWER} != answers
    assert dev.model_map() == model_map
    assert dev.emulator.items(outputs["RequestsTableName"]) == records
    secrets = dev.emulator.client("secretsmanager")
    assert secrets.get_secret_value(SecretId="/lexora/dev/GPU_API_KEY")["SecretString"] == "the-gpu-host's-key"
    same = {name for name in outputs if not name.startswith("Exports")}
    assert {name: cdk.outputs("changed")[name] for name in same} == {name: outputs[name] for name in same}
    with dev.client("cdn") as client:
        assert client.get(f"/responses/{CHANGED}/0.json").json() == {"response": NEW_ANSWER}
        unchanged = client.get(f"/responses/{CHANGED}/1.json").json()
    assert unchanged == {"response": answers[CAPITAL, 1]}
    paths = invalidated(dev.emulator.client("cloudfront"), outputs["DistributionId"])
    assert paths == [[f"/responses/{CHANGED}/0.json"]], "the CDN forgets what has changed"
    assert deployed.blue.answers() == blue

    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    with dev.client("chat") as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200


def test_nothing_is_left_of_what_was_destroyed(deployed: Deployed) -> None:
    emulator = deployed.dev.emulator
    there = inventory(emulator)
    for kind, names in there.items():
        assert names - deployed.before[kind], f"no {kind} to be destroyed: the inventory does not see them"
    deployed.cdk.destroy("changed", "blue")
    left = inventory(emulator)
    assert json.dumps({kind: sorted(left[kind] - deployed.before[kind]) for kind in left}) == json.dumps(
        {kind: [] for kind in left}
    )
