"""What holds for all stacks, and for app.py as the CLI starts it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from infra.application import build
from tests.infra.synthesis import ROOT, STACKS, Environment, context_of

# Unique within something of ours, or not names of ours at all.
LOCAL = {"AttributeName", "MetricName", "PolicyName", "StageName"}


def names(value: Any, key: str = "") -> set[str]:
    """Every name below `value` that is chosen here."""
    if isinstance(value, dict):
        if value.get("Type") == "AWS::Lambda::Alias":
            return set()
        return {name for key, part in value.items() if key != "Dimensions" for name in names(part, key)}
    if isinstance(value, list):
        return {name for part in value for name in names(part, key)}
    return {value} if isinstance(value, str) and key.endswith("Name") and key not in LOCAL else set()


def test_two_environments_share_no_name(dev: Environment, prod: Environment) -> None:
    of_dev, of_prod = (
        names([environment.templates[stack]["Resources"] for stack in STACKS]) for environment in (dev, prod)
    )
    assert {"lexora-dev", "lexora-dev-stream", "/lexora/dev/OPENAI_API_KEY"} <= of_dev
    assert of_dev & of_prod == set()


def test_cdk_nag_finds_nothing(dev: Environment, prod: Environment) -> None:
    assert dev.findings == []
    assert prod.findings == []


def test_the_cdk_warns_of_nothing(dev: Environment, prod: Environment) -> None:
    assert dev.warnings == []
    assert prod.warnings == []


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_cdk_nag_looks_and_every_acknowledgement_is_needed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    acknowledged = set()

    def note(_: Any, *rules: cdk.Acknowledgment) -> None:
        acknowledged.update(rule.id for rule in rules)

    monkeypatch.setattr(cdk.Validations, "acknowledge", note)
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        build({}, context_of({"environment": environment}), str(folder)).synth()
    (report,) = json.loads((folder / "validation-report.json").read_text())["pluginReports"]
    assert {violation["ruleName"] for violation in report["violations"]} == acknowledged


def test_everything_is_tagged(dev: Environment) -> None:
    tag = {"Key": "lexora:environment", "Value": "dev"}
    for stack, kind in (
        ("Data", "DynamoDB::Table"),
        ("Data", "S3::Bucket"),
        ("Data", "SecretsManager::Secret"),
        ("Api", "Lambda::Function"),
        ("Api", "Logs::LogGroup"),
        ("Api", "ApiGateway::RestApi"),
        ("Edge", "CloudFront::Distribution"),
        ("Edge", "S3::Bucket"),
        ("Ops", "SNS::Topic"),
    ):
        for id_, made in dev.resources(stack, kind).items():
            assert tag in made["Tags"], id_
    assert dev.one("Api", "ApiGatewayV2::Api")["Tags"]["lexora:environment"] == "dev"


@pytest.mark.parametrize(
    ("context", "setting", "told"),
    [
        ({"memory_mb": "12"}, {}, "-c memory_mb: Input should be greater than or equal to 128 (it is '12')"),
        ({}, {"BURST_LIMIT": "x"}, "environment variable BURST_LIMIT: Input should be a valid integer"),
    ],
)
def test_app_py_tells_a_wrong_setting_in_one_line(context: dict[str, str], setting: dict[str, str], told: str) -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "app.py"],
        env={**os.environ, **setting, "CDK_CONTEXT_JSON": json.dumps(context)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"lexora: {told}")
    assert ran.stderr.count("\n") == 1


def test_infra_never_imports_the_product() -> None:
    for file in sorted((ROOT / "infra").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in modules if name.partition(".")[0] in ("lexora", "lambdas")], file.name
