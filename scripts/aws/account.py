"""One environment of Lexora in the AWS account that the process is logged in to."""

import json
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
_CLIENTS = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=5, read_timeout=30)


class Problem(Exception):
    """What whoever called must mend, in one line."""


class Account:
    """The account and region come from the environment as AWS's own tools read it; names from cdk.json and the stacks.

    AWS_ENDPOINT_URL is honoured. Methods raise Problem, or botocore's exceptions where AWS fails or refuses.
    """

    def __init__(self, environment: str) -> None:
        """Raises SettingsError or Problem if the environment's name or settings cannot be used."""
        try:
            context = json.loads((ROOT / "cdk.json").read_bytes()).get("context", {})
        except ValueError as error:
            raise Problem(f"cdk.json: not valid JSON: {error}") from None
        self.settings = read_settings({**context, "environment": environment}.get, os.environ)
        self.environment = self.settings.environment
        # boto3 does not read AWS_REGION, which the CDK prefers: both shall mean the same place.
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._session = boto3.Session(region_name=region or None)

    @property
    def region(self) -> str:
        if not self._session.region_name:
            raise Problem("no AWS region is set; for example: export AWS_REGION=us-east-1")
        return str(self._session.region_name)

    @cached_property
    def id(self) -> str:
        """The account's number, asked of AWS: whoever has it has credentials that work."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def client(self, service: str) -> Any:
        return self._session.client(service, region_name=self.region, config=_CLIENTS)

    def stack(self, part: str) -> str:
        """The name of a stack: Data, Api, Edge, Ops."""
        return f"{self.settings.prefix.capitalize()}-{self.environment}-{part}"

    def find_outputs(self, stack: str) -> dict[str, str] | None:
        """The outputs of a stack, None if there is no such stack."""
        try:
            found = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in error.response["Error"]["Message"]:
                return None
            raise
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}

    def outputs(self, part: str) -> dict[str, str]:
        """The outputs of one of the environment's stacks."""
        found = self.find_outputs(self.stack(part))
        if found is None:
            raise self.not_deployed(part)
        return found

    def not_deployed(self, part: str) -> Problem:
        return Problem(
            f"there is no stack {self.stack(part)} in account {self.id}, {self.region}; "
            f"deploy it with: make deploy ENV={self.environment}"
        )


def say(text: str) -> None:
    """Tells people something; stdout is for what programs read."""
    print(text, file=sys.stderr, flush=True)
