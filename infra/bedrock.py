"""Amazon Bedrock: what a function may ask there."""

import aws_cdk as cdk

from infra.function import PythonFunction
from infra.nag import acknowledge

ACTIONS = ("bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream")


def allow_models(function: PythonFunction, models: tuple[str, ...]) -> None:
    """Grants Converse and ConverseStream of just these models, which are ids or ARNs."""
    resources = [arn for model in models for arn in _arns(function, model)]
    function.allow(resources, *ACTIONS)
    where = (
        "A model is asked where its deployment's address says, and a profile passes the request on to other regions."
    )
    if models:
        acknowledge(
            function.role,
            {f"AwsSolutions-IAM5[Resource::{_told(function, arn)}]": where for arn in resources if "*" in arn},
        )


def _arns(function: PythonFunction, model: str) -> list[str]:
    if model.startswith("arn:"):
        return [model]
    stack = cdk.Stack.of(function)
    models, profiles = (
        f"arn:{stack.partition}:bedrock:*:{account}:{kind}/"
        for account, kind in (("", "foundation-model"), (stack.account, "inference-profile"))
    )
    # `eu.anthropic.…` is a profile that passes requests on to `anthropic.…`, which must be allowed too.
    _, _, behind = model.partition(".")
    return [f"{models}{model}", *([f"{profiles}{model}", f"{models}{behind}"] if "." in behind else [])]


def _told(function: PythonFunction, arn: str) -> str:
    """As cdk-nag writes it."""
    stack = cdk.Stack.of(function)
    return arn.replace(stack.partition, "<AWS::Partition>").replace(stack.account, "<AWS::AccountId>")
