"""Every environment variable that infra sets is read, and every one that is read is set."""

import re
from typing import Any

import msgspec
import pytest

from infra.settings import LIMIT_SETTINGS
from lexora.entry.aws import Variables
from tests.infra.synthesis import ROOT, Environment, text

OURS = {field.encode_name for field in msgspec.structs.fields(Variables)}
FOR_THE_ADAPTER = {"AWS_LAMBDA_EXEC_WRAPPER", "AWS_LWA_INVOKE_MODE", "AWS_LWA_PORT", "AWS_LWA_READINESS_CHECK_PROTOCOL"}


def variables_of(environment: Environment, stack: str, function: str) -> dict[str, Any]:
    variables: dict[str, Any] = environment.one(stack, "Lambda::Function", function)["Environment"]["Variables"]
    return variables


def test_the_gateway_reads_what_is_set_and_nothing_else(prod: Environment) -> None:
    chat, stream = (variables_of(prod, "Api", f"{door}Gateway").keys() for door in ("Chat", "Stream"))
    limits = {name.upper() for name in LIMIT_SETTINGS}
    assert limits <= OURS
    assert stream | limits == OURS | FOR_THE_ADAPTER  # limits that are not set are left out
    assert chat == stream - FOR_THE_ADAPTER - {"MAX_PLAIN_SECONDS"}


@pytest.mark.parametrize("function", ["ChatGateway", "StreamGateway"])
def test_the_values_are_of_their_types(dev: Environment, prod: Environment, function: str) -> None:
    for environment in (dev, prod):
        values = {name: text(value) for name, value in variables_of(environment, "Api", function).items()}
        read = msgspec.convert(values, Variables, strict=False)
        assert (read.lexora_environment, read.message_text) == (environment.name, environment is dev)


@pytest.mark.parametrize(
    ("stack", "function", "module"), [("Data", "Seed", "seed"), ("Edge", "Answers", "shipped_answers")]
)
def test_what_a_deploy_calls_reads_what_is_set_and_nothing_else(
    dev: Environment, stack: str, function: str, module: str
) -> None:
    read = set(re.findall(r'environ\["(\w+)"\]', (ROOT / "lexora" / "entry" / f"{module}.py").read_text()))
    assert read
    assert variables_of(dev, stack, function).keys() == read


def test_nothing_else_reads_the_environment_in_the_cloud() -> None:
    source = (ROOT / "lexora" / "entry" / "aws.py").read_text()
    assert set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)", source)) <= OURS | FOR_THE_ADAPTER
