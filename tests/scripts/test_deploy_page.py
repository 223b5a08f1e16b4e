"""docs/deploy.md and the READMEs against the code: what they name is there."""

import json
import re
from pathlib import Path

import pytest

from infra.settings import Settings
from lexora.entry.model_map import read_model_map
from tests.infra.conftest import EVERYTHING
from tests.infra.synthesis import STACKS, synthesise
from tests.support.gateway import ROOT

PAGE = (ROOT / "docs" / "deploy.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", ["docs/deploy.md", "README.md", "README.ja.md"])
def test_every_target_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"(?:`|^|: )make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert {"deploy", "destroy", "bootstrap", "logs", "config-push", "secrets-set"} <= named
    assert named <= TARGETS


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| (`[a-z_`, ]+`) \| ([^|]+?) \|", section("Settings"), re.MULTILINE))
    listed = {name: default for names, default in rows.items() for name in re.findall(r"[a-z_]+", names)}
    assert listed.keys() == Settings.model_fields.keys() - {"environment"}
    for name, default in listed.items():
        value = getattr(Settings(), name)
        if isinstance(value, bool | int | float):
            assert re.match(rf"{json.dumps(value).removesuffix('.0')}\b", default), name
        elif isinstance(value, str):
            assert f"`{value}`" in default, name
        elif value:
            assert default == ", ".join(f"`{item}`" for item in value), name
        else:
            assert default in ("none", "AWS's"), name


def test_the_model_map_is_valid_and_its_secrets_are_in_the_settings_shown() -> None:
    model_map, cdk_json = re.findall(r"```json\n(.+?)```", section("Your own models"), re.DOTALL)
    deployments = read_model_map(model_map, "docs/deploy.md").models["chat"].deployments
    needed = {reference.removeprefix("env:") for deployment in deployments for reference in deployment.references}
    assert needed <= set(Settings(**json.loads(f"{{{cdk_json}}}")["dev"]).secrets)


def test_the_rights_name_what_the_scripts_call() -> None:
    policy = json.loads(re.findall(r"```json\n(.+?)```", section("Rights"), re.DOTALL)[0])
    allowed = {action for statement in policy["Statement"] for action in as_list(statement["Action"])}
    assert "*" not in "".join(allowed)
    calls: dict[str, str | tuple[str, ...]] = {
        "describe_stacks": "cloudformation:DescribeStacks",
        "get_object": "s3:GetObject",
        "put_object": "s3:PutObject",
        "describe_secret": "secretsmanager:DescribeSecret",
        "put_secret_value": "secretsmanager:PutSecretValue",
        "filter_log_events": "logs:FilterLogEvents",
        "get_item": "dynamodb:GetItem",
        "put_item": "dynamodb:PutItem",
        "query": "dynamodb:Query",
        "scan": "dynamodb:Scan",
        "transact_write_items": tuple(f"dynamodb:{it}Item" for it in ("Put", "Update", "Delete", "ConditionCheck")),
        "list_objects_v2": "s3:ListBucket",
        "delete_objects": "s3:DeleteObject",
        "get_function": "cloudfront:GetFunction",
        "describe_function": "cloudfront:DescribeFunction",
        "update_function": "cloudfront:UpdateFunction",
        "publish_function": "cloudfront:PublishFunction",
        "create_invalidation": "cloudfront:CreateInvalidation",
        "get_invalidation": "cloudfront:GetInvalidation",
    }
    needed = {action for actions in calls.values() for action in ([actions] if isinstance(actions, str) else actions)}
    assert allowed == {*needed, "sts:AssumeRole", "sts:TagSession"}
    adapters = ("adapters/dynamodb_keys.py", "adapters/dynamodb_versions.py", "adapters/cloudfront.py")
    files = [*(ROOT / "scripts" / "aws").glob("*.py")]
    files += [ROOT / "lexora" / name for name in (*adapters, "entry/aws_account.py")]
    source = "".join(path.read_text() for path in files)
    client = r'(?:client(?:\("[a-z0-9]+"\))?|_dynamodb|_s3|_cloudfront)\.'
    called = set(re.findall(client + r'(?:get_paginator\("([a-z0-9_]+)"\)|([a-z_]+)[(,])', source))
    assert {one or other for one, other in called} == {*calls, "get_caller_identity"}  # which everybody may


def test_cloudformation_may_do_something_of_every_service_in_the_templates(tmp_path: Path) -> None:
    policy = json.loads(re.findall(r"```json\n(.+?)```", section("Rights"), re.DOTALL)[1])
    assert len("".join(json.dumps(policy).split())) <= 6144, "IAM takes no larger managed policy"
    allowed = {action for statement in policy["Statement"] for action in as_list(statement["Action"])}
    templates = synthesise(tmp_path, {"environment": "prod", **EVERYTHING}).templates
    types = {resource["Type"] for stack in STACKS for resource in templates[stack]["Resources"].values()}
    services = {type_.split("::")[1].lower() for type_ in types if type_.startswith("AWS::")} - {"cdk"}
    services = {"apigateway" if service == "apigatewayv2" else service for service in services}
    assert services == {action.partition(":")[0] for action in allowed} - {"ssm"}  # the bootstrap's parameter


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
