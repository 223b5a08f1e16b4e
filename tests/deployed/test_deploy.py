"""What is there after `cdk deploy` alone, and that two environments have nothing in common."""

import pytest

from lexora.entry.model_map import read_model_map
from lexora.entry.prepared import SHIPPED, load_prepared
from tests.deployed.conftest import Deployed
from tests.support.client import bearer
from tests.support.deployment import Environment
from tests.support.gateway import ROOT

pytestmark = pytest.mark.timeout(600)
STACKS = ("Data", "Api", "Edge", "Ops")


def test_the_answers_are_in_the_table(deployed: Deployed) -> None:
    _, shipped = load_prepared(SHIPPED)
    assert len(shipped) == 50
    for answers, _ in deployed.first.values():
        assert answers == shipped


def test_a_valid_model_map_is_in_the_bucket(deployed: Deployed) -> None:
    for _, model_map in deployed.first.values():
        assert model_map == (ROOT / "infra" / "model_map.json").read_bytes()
        assert read_model_map(model_map, "model_map.json").models


def test_the_outputs_have_the_names_that_operators_know(dev: Environment, blue: Environment) -> None:
    names = {
        *("ChatApiEndpoint", "ChatLambdaName", "ChatLogGroupName", "StreamApiEndpoint", "StreamLambdaName"),
        *("ConfigBucketName", "AnswersTableName", "RequestsTableName", "CdnUrl", "SiteBucketName", "DistributionId"),
        "EdgeFunctionName",
    }
    for environment in (dev, blue):
        assert names <= environment.outputs.keys()
        assert environment.outputs["ChatApiEndpoint"].endswith(f".amazonaws.com/{environment.name}")


def test_two_environments_share_nothing(dev: Environment, blue: Environment) -> None:
    """No resource of the one has a name that the other's has too."""
    cloudformation = dev.emulator.client("cloudformation")
    resources = []
    for environment in (dev, blue):
        pages = [
            cloudformation.describe_stack_resources(StackName=f"Lexora-{environment.name}-{stack}")["StackResources"]
            for stack in STACKS
        ]
        resources.append(
            {
                (item["ResourceType"], item["PhysicalResourceId"])
                for page in pages
                for item in page
                # Their names are for CloudFormation alone, and always the same.
                if not item["ResourceType"].startswith("Custom::Lexora")
            }
        )
    assert len(resources[0]) > 60
    assert not resources[0] & resources[1]


def test_what_one_environment_is_told_does_not_reach_the_other(dev: Environment, blue: Environment) -> None:
    """The key that dev's operator has set is not blue's."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    with dev.client("chat") as ours, blue.client("chat") as theirs:
        theirs.headers.update(bearer(blue.make_key("--user", "ann")))
        assert ours.post("/v1/chat/completions", json=body).status_code == 200
        refused = theirs.post("/v1/chat/completions", json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "credential_missing"
        assert theirs.post("/v1/chat/completions", json={**body, "model": "open"}).status_code == 200


def test_secrets_are_made_empty_and_named_for_their_environment(deployed: Deployed) -> None:
    secrets = deployed.dev.emulator.client("secretsmanager").list_secrets()["SecretList"]
    names = {secret["Name"] for secret in secrets}
    for environment in (deployed.dev, deployed.blue):
        prefix = f"/lexora/{environment.name}/"
        assert {f"{prefix}{name}" for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GPU_API_KEY")} <= names
        for template in deployed.cdk.assembly(environment.name).glob("*.template.json"):
            assert "SecretString" not in template.read_text()
