"""cdk-nag's findings that are meant."""

from collections.abc import Mapping

import aws_cdk as cdk
from constructs import IConstruct


def acknowledge(scope: IConstruct, reasons: Mapping[str, str]) -> None:
    """Accepts single findings (`AwsSolutions-IAM5[Resource::*]`) within `scope`, each with its reason."""
    cdk.Validations.of(scope).acknowledge(*(cdk.Acknowledgment(id=rule, reason=why) for rule, why in reasons.items()))
