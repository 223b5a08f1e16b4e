"""The gateway as a function: what both doors' functions have in common."""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.bedrock import allow_models
from infra.data import DataStack
from infra.function import PythonFunction
from infra.nag import acknowledge
from infra.secrets import secret_arns
from infra.seed import MODEL_MAP_KEY
from infra.settings import LIMIT_SETTINGS, Settings

# Of the metrics that the functions write.
SERVICE = "lexora"
NAMESPACE = "Lexora"


class Gateway(PythonFunction):
    """A function that reads answers, model map and secrets and writes records; doors call its alias `live`.

    `max_seconds` is the deadline of a request; the function itself has `timeout`. With `canary` a new version gets a
    tenth of the calls for five minutes, and is taken back if one of them crashes.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        settings: Settings,
        data: DataStack,
        *,
        description: str,
        handler: str,
        timeout: cdk.Duration,
        max_seconds: int,
        environment: Mapping[str, str] | None = None,
        snap_start: bool = False,
        layers: Sequence[lambda_.ILayerVersion] = (),
    ) -> None:
        super().__init__(
            scope,
            id_,
            settings,
            description=description,
            handler=handler,
            timeout=timeout,
            memory_mb=settings.memory_mb,
            snap_start=snap_start,
            layers=layers,
            environment={**_environment(settings, data), "MAX_SECONDS": str(max_seconds), **(environment or {})},
        )
        self.allow([data.answers.table_arn], "dynamodb:GetItem")
        self.allow([data.requests.table_arn], "dynamodb:BatchWriteItem", "dynamodb:Query")
        self.allow(
            [data.limits.table_arn], *(f"dynamodb:{action}" for action in ("GetItem", "PutItem", "UpdateItem", "Query"))
        )
        if data.responses is not None:
            self.allow(
                [data.responses.table_arn], *(f"dynamodb:{action}" for action in ("PutItem", "Query", "DeleteItem"))
            )
        self.allow([data.cache.table_arn], "dynamodb:GetItem", "dynamodb:PutItem")
        self.allow([data.model_map_arn], "s3:GetObject", "s3:GetObjectVersion")
        # The one finds an earlier version where the map is broken; without the other a missing map is a forbidden one.
        self.allow([data.config.bucket_arn], "s3:ListBucketVersions", "s3:ListBucket")
        names = [f"{settings.secret_prefix}{name}" for name in settings.secrets]
        if data.edge_secret is not None:
            names.append(data.edge_secret.name)
        self.allow(secret_arns(self, names), "secretsmanager:GetSecretValue")
        allow_models(self, settings.bedrock_models)
        self.alias = lambda_.Alias(self, "Live", alias_name="live", version=self.function.current_version)
        if settings.canary:
            self._add_canary()

    def _add_canary(self) -> None:
        crashes = cloudwatch.Alarm(
            self,
            "Crashes",
            metric=self.alias.metric_errors(period=cdk.Duration.minutes(1)),
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description="The new version has crashed: CodeDeploy goes back to the one before.",
        )
        group = codedeploy.LambdaDeploymentGroup(
            self,
            "Canary",
            alias=self.alias,
            deployment_config=codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_5_MINUTES,
            alarms=[crashes],
        )
        acknowledge(
            group,
            {
                "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
                "AWSCodeDeployRoleForLambdaLimited]": "AWS keeps this policy as narrow as CodeDeploy's work allows."
            },
        )


def _environment(settings: Settings, data: DataStack) -> dict[str, str]:
    variables = {
        "LEXORA_ENVIRONMENT": settings.environment,
        "LEXORA_STAGE": settings.environment,
        "ANSWERS_TABLE": data.answers.table_name,
        "REQUESTS_TABLE": data.requests.table_name,
        "LIMITS_TABLE": data.limits.table_name,
        "CACHE_TABLE": data.cache.table_name,
        "CONFIG_BUCKET": data.config.bucket_name,
        "MODEL_MAP_KEY": MODEL_MAP_KEY,
        "SECRET_PREFIX": settings.secret_prefix,
        "ALLOW_ORIGINS": ",".join(settings.allow_origins),
        "MESSAGE_TEXT": str(settings.message_text).lower(),
        "LOG_LEVEL": settings.log_level,
        "RECORD_TTL_DAYS": str(settings.record_ttl_days),
    }
    variables |= {
        name.upper(): _text(getattr(settings, name)) for name in LIMIT_SETTINGS if getattr(settings, name) is not None
    }
    if data.responses is not None:
        variables["RESPONSES_TABLE"] = data.responses.table_name
    if data.edge_secret is not None:
        variables["EDGE_SECRET"] = data.edge_secret.name
    return variables


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
