"""The data stack: tables, config bucket, secrets, and what fills them at deploy."""

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.function import removal
from infra.nag import acknowledge
from infra.secrets import EdgeSecret, Secrets
from infra.seed import MODEL_MAP_KEY, Seed
from infra.settings import Settings


class DataStack(cdk.Stack):
    """What is kept. `edge_secret` is None unless the doors are to answer CloudFront alone, `responses` unless responses
    are to be stored.
    """

    def __init__(self, scope: Construct, id_: str, settings: Settings) -> None:
        super().__init__(scope, id_, description=f"Lexora {settings.environment}: tables, configuration, secrets")
        text, number = dynamodb.AttributeType.STRING, dynamodb.AttributeType.NUMBER
        self.answers = _table(self, "Answers", settings, {"prompt": text, "variant": number})
        self.requests = _table(self, "Requests", settings, {"day": text, "request_id": text}, expires=True)
        # API keys, and what is used of limits.
        self.limits = _table(self, "Limits", settings, {"pk": text, "sk": text}, expires=True)
        self.responses = (
            _table(self, "Responses", settings, {"pk": text, "sk": text}, expires=True)
            if settings.store_responses
            else None
        )
        # Kept answers: what is lost is asked again.
        self.cache = _table(self, "Cache", settings, {"key": text}, expires=True)
        self.config = private_bucket(self, "Config", settings, versioned=True)
        self.secrets = Secrets(self, "Secrets", settings)
        self.edge_secret = EdgeSecret(self, "EdgeSecret", settings) if settings.edge_only else None
        Seed(self, "Seed", settings, self.config)
        cdk.CfnOutput(self, "AnswersTableName", value=self.answers.table_name)
        cdk.CfnOutput(self, "RequestsTableName", value=self.requests.table_name)
        cdk.CfnOutput(self, "LimitsTableName", value=self.limits.table_name)
        cdk.CfnOutput(self, "CacheTableName", value=self.cache.table_name)
        cdk.CfnOutput(self, "ConfigBucketName", value=self.config.bucket_name)

    @property
    def model_map_arn(self) -> str:
        return self.config.arn_for_objects(MODEL_MAP_KEY)


def _table(
    scope: Construct, id_: str, settings: Settings, keys: dict[str, dynamodb.AttributeType], *, expires: bool = False
) -> dynamodb.Table:
    partition, *sort = (dynamodb.Attribute(name=name, type=type_) for name, type_ in keys.items())
    table = dynamodb.Table(
        scope,
        id_,
        partition_key=partition,
        sort_key=sort[0] if sort else None,
        billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        time_to_live_attribute="expires_at" if expires else None,
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=settings.pitr
        ),
        deletion_protection=settings.removal == "retain",
        removal_policy=removal(settings),
    )
    if not settings.pitr:
        acknowledge(
            table, {"AwsSolutions-DDB3": "Off in environments whose data may be lost: it is billed by the gigabyte."}
        )
    return table


def private_bucket(scope: Construct, id_: str, settings: Settings, *, versioned: bool = False) -> s3.Bucket:
    """A bucket that nobody reads in public or without TLS; it empties itself where data may go."""
    bucket = s3.Bucket(
        scope,
        id_,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        encryption=s3.BucketEncryption.S3_MANAGED,
        enforce_ssl=True,
        versioned=versioned,
        removal_policy=removal(settings),
        auto_delete_objects=settings.removal == "destroy",
    )
    acknowledge(
        bucket,
        {"AwsSolutions-S1": "Only our functions and CloudFront read it, and they log; a bucket of logs would not add."},
    )
    return bucket
