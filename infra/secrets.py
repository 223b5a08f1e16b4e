"""Secrets Manager: the upstreams' keys, and what CloudFront proves itself with."""

import aws_cdk as cdk
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.function import removal
from infra.nag import acknowledge
from infra.settings import Settings


class Secrets(Construct):
    """The environment's secrets by name, made empty; `make secrets-set` gives them values."""

    def __init__(self, scope: Construct, id_: str, settings: Settings) -> None:
        super().__init__(scope, id_)
        for name in settings.secrets:
            secret = secretsmanager.CfnSecret(self, name, name=f"{settings.secret_prefix}{name}")
            secret.apply_removal_policy(removal(settings))
            acknowledge(secret, {"AwsSolutions-SMG4": "The provider makes this key; nothing here could rotate it."})


class EdgeSecret(Construct):
    """A generated value that CloudFront sends in a header, so that the doors know it."""

    def __init__(self, scope: Construct, id_: str, settings: Settings) -> None:
        super().__init__(scope, id_)
        self.name = f"{settings.secret_prefix}EDGE_SECRET"
        secret = secretsmanager.CfnSecret(
            self,
            "Secret",
            name=self.name,
            generate_secret_string=secretsmanager.CfnSecret.GenerateSecretStringProperty(
                exclude_punctuation=True, password_length=48
            ),
        )
        secret.apply_removal_policy(removal(settings))
        acknowledge(
            secret,
            {"AwsSolutions-SMG4": "CloudFront reads it at deploy only: a rotation without a deploy would lock it out."},
        )


def secret_arns(scope: Construct, names: list[str]) -> list[str]:
    """What to grant for secrets of these names. AWS adds six characters of its own to each."""
    return [
        cdk.Stack.of(scope).format_arn(
            service="secretsmanager",
            resource="secret",
            resource_name=f"{name}-??????",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for name in names
    ]
