"""A Lambda function of ours: its own log group and role, nothing granted but what is named."""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.bundle import function_code
from infra.nag import acknowledge
from infra.settings import RETENTIONS, Settings

_ARCHITECTURES = {"arm64": lambda_.Architecture.ARM_64, "x86_64": lambda_.Architecture.X86_64}


class PythonFunction(Construct):
    """`handler` of the common zip, in a function that may write to its log group and to X-Ray if that is on."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        settings: Settings,
        *,
        description: str,
        handler: str,
        timeout: cdk.Duration,
        environment: Mapping[str, str],
        memory_mb: int,
        snap_start: bool = False,
        layers: Sequence[lambda_.ILayerVersion] = (),
    ) -> None:
        super().__init__(scope, id_)
        self.log_group = log_group(self, "Log", settings)
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.log_group.grant_write(self.role)
        self.function = lambda_.Function(
            self,
            "Function",
            description=description,
            code=function_code(settings),
            handler=handler,
            runtime=getattr(lambda_.Runtime, f"PYTHON_{settings.python.replace('.', '_')}"),
            architecture=_ARCHITECTURES[settings.architecture],
            memory_size=memory_mb,
            timeout=timeout,
            environment=dict(environment),
            layers=list(layers),
            role=self.role,
            log_group=self.log_group,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if snap_start else None,
            tracing=lambda_.Tracing.ACTIVE if settings.tracing else lambda_.Tracing.DISABLED,
        )
        if snap_start:
            published = "The doors call a published version, by its alias."
            acknowledge(self.function, {"Annotation::@aws-cdk/aws-lambda:snapStartRequirePublish": published})
        if settings.tracing:
            acknowledge(
                self.role, {"AwsSolutions-IAM5[Resource::*]": "X-Ray knows no resources: a trace is put or it is not."}
            )
        if settings.python != "3.14":
            acknowledge(
                self.function,
                {"AwsSolutions-L1": "The runtime is the one that the dependencies are locked and tested for."},
            )

    def allow(self, resources: Sequence[str], *actions: str) -> None:
        """Grants `actions` on exactly `resources`."""
        if resources:
            self.role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))


def log_group(scope: Construct, id_: str, settings: Settings) -> logs.LogGroup:
    """A log group that forgets after `log_retention_days`."""
    return logs.LogGroup(
        scope,
        id_,
        retention=logs.RetentionDays[RETENTIONS[settings.log_retention_days]],
        removal_policy=removal(settings),
    )


def removal(settings: Settings) -> cdk.RemovalPolicy:
    return cdk.RemovalPolicy.RETAIN if settings.removal == "retain" else cdk.RemovalPolicy.DESTROY
