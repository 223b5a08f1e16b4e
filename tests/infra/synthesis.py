"""The application's templates, as CloudFormation would read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from infra.application import build

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("Data", "Api", "Edge", "Ops")

Properties = dict[str, Any]


class Environment(NamedTuple):
    """One environment's templates by stack, and what cdk-nag and the CDK have to say."""

    name: str
    templates: dict[str, dict[str, Any]]
    findings: list[Any]
    warnings: list[Any]

    def resources(self, stack: str, kind: str) -> dict[str, Properties]:
        """The properties of all resources of one type (`S3::Bucket`), by logical id."""
        return {
            id_: resource.get("Properties", {})
            for id_, resource in self.templates[stack]["Resources"].items()
            if resource["Type"] in (kind, f"AWS::{kind}")
        }

    def one(self, stack: str, kind: str, beginning: str = "") -> Properties:
        """The only one whose logical id begins so."""
        found = [it for id_, it in self.resources(stack, kind).items() if id_.startswith(beginning)]
        assert len(found) == 1, f"{len(found)} of {kind} {beginning}*"
        return found[0]

    def outputs(self, stack: str) -> dict[str, Any]:
        """Without what only other stacks read."""
        outputs = self.templates[stack]["Outputs"]
        return {name: output["Value"] for name, output in outputs.items() if not name.startswith("ExportsOutput")}

    def statements(self, stack: str, role: str) -> list[Any]:
        """What the role whose logical id begins so may do."""
        policies = self.resources(stack, "IAM::Policy")
        return [
            statement
            for id_, policy in policies.items()
            if id_.startswith(role)
            for statement in policy["PolicyDocument"]["Statement"]
        ]


def context_of(settings: Mapping[str, str]) -> dict[str, Any]:
    """What the CLI hands to the application, without the zip: it takes seconds, and test_bundle builds it."""
    in_file = json.loads((ROOT / "cdk.json").read_text())["context"]
    return {**in_file, "aws:cdk:bundling-stacks": [], **settings}


def synthesise(folder: Path, settings: Mapping[str, str]) -> Environment:
    build({}, context_of(settings), str(folder)).synth()
    name = settings.get("environment", "dev")
    templates = {stack: json.loads((folder / f"Lexora-{name}-{stack}.template.json").read_text()) for stack in STACKS}
    findings = json.loads((folder / "validation-report.json").read_text())["pluginReports"]
    return Environment(name, templates, findings, _warnings(folder))


def _warnings(folder: Path) -> list[Any]:
    """What the CDK itself has to say against the application."""
    return [
        entry["data"]
        for file in folder.glob("*.metadata.json")
        for entries in json.loads(file.read_text()).values()
        for entry in entries
        if entry["type"] in ("aws:cdk:warning", "aws:cdk:error")
    ]


def text(value: Any) -> str:
    """A value in which CloudFormation's functions are written out, roughly: `arn:{AWS::Partition}:…`."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        return "".join(text(part) for part in value["Fn::Join"][1])
    ((function, argument),) = value.items()
    if function == "Ref":
        return f"{{{argument}}}"
    assert function in ("Fn::GetAtt", "Fn::ImportValue"), function
    return f"{{{argument if isinstance(argument, str) else '.'.join(argument)}}}"
