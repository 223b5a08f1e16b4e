"""One environment of Lexora in the AWS account that the process is logged in to."""

import os
from functools import cached_property
from typing import Any

from lexora.entry.errors import ConfigError

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
except ModuleNotFoundError:
    raise ConfigError(
        "what talks to AWS is not installed; in a checkout: make .venv/aws, elsewhere: pip install boto3"
    ) from None

AwsError = (BotoCoreError, ClientError)
_CLIENTS = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=5, read_timeout=30)
_LOG_IN = "log in first (`aws login`, `aws configure`), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its like"
# What to do about what AWS answers, where its own words do not say it.
_HINTS = {
    "ExpiredToken": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "InvalidClientTokenId": _LOG_IN,
    "UnrecognizedClientException": _LOG_IN,
    "AccessDenied": "docs/deploy.md lists the rights that are needed",
    "AccessDeniedException": "docs/deploy.md lists the rights that are needed",
    "Throttling": "try again in a minute",
    "ThrottlingException": "try again in a minute",
}


class AwsAccount:
    """The account and region come from the environment as AWS's own tools read it; names from the stacks.

    AWS_ENDPOINT_URL is honoured. Methods raise ConfigError, or botocore's exceptions where AWS fails or refuses.
    """

    def __init__(self, environment: str, prefix: str) -> None:
        self.environment = environment
        self._prefix = prefix
        # boto3 does not read AWS_REGION, which the CDK prefers: both shall mean the same place.
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._session = boto3.Session(region_name=region or None)

    @property
    def region(self) -> str:
        if not self._session.region_name:
            raise ConfigError("no AWS region is set; for example: export AWS_REGION=us-east-1")
        return str(self._session.region_name)

    @cached_property
    def _caller(self) -> dict[str, str]:
        found: dict[str, str] = self.client("sts").get_caller_identity()
        return found

    @property
    def id(self) -> str:
        """The account's number, asked of AWS: whoever has it has credentials that work."""
        return self._caller["Account"]

    @property
    def user(self) -> str:
        """Who is logged in: `user/ann`, `assumed-role/admin/ann`."""
        return self._caller["Arn"].rpartition(":")[2]

    def client(self, service: str) -> Any:
        return self._session.client(service, region_name=self.region, config=_CLIENTS)

    def stack(self, part: str) -> str:
        """The name of a stack: Data, Api, Edge, Ops."""
        return f"{self._prefix.capitalize()}-{self.environment}-{part}"

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

    def not_deployed(self, part: str) -> ConfigError:
        return ConfigError(
            f"there is no stack {self.stack(part)} in account {self.id}, {self.region}; "
            f"deploy it with: make deploy ENV={self.environment}"
        )


def explained(error: Exception) -> str:
    """What AWS has answered, in one line, and what to do about it."""
    if isinstance(error, NoCredentialsError):
        return f"there are no AWS credentials; {_LOG_IN}"
    if isinstance(error, ClientError):
        said = error.response["Error"]
        hint = _HINTS.get(said["Code"])
        line = f"{error.operation_name}: {said['Code']}: {said.get('Message', '')}" + (f"; {hint}" if hint else "")
        return " ".join(line.split())
    return " ".join(str(error).split())
