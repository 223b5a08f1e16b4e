"""What publishes the repository's prepared answers at a deploy."""

import hashlib
from pathlib import Path
from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.bundle import ROOT, STATIC_RESPONSES
from infra.data import DataStack
from infra.function import PythonFunction
from infra.nag import acknowledge
from infra.settings import Settings
from infra.site import Site

# What the edge's function is made of.
_EDGE = [ROOT / "lexora" / "adapters" / f"cloudfront.{suffix}" for suffix in ("py", "js")]
_VERSIONS = "answers/versions/"


class Publisher(Construct):
    """A function that CloudFormation calls when the answers, what serves them, or the places where they lie change.

    It does what `lexora answers publish` does; what an operator has published it leaves in force.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        settings: Settings,
        data: DataStack,
        site: Site,
        distribution: cloudfront.Distribution,
    ) -> None:
        super().__init__(scope, id_)
        places = {
            "ANSWERS_TABLE": data.answers.table_name,
            "LIMITS_TABLE": data.limits.table_name,
            "CONFIG_BUCKET": data.config.bucket_name,
            "SITE_BUCKET": site.bucket.bucket_name,
            "EDGE_FUNCTION": site.function.function_name,
            "DISTRIBUTION": distribution.distribution_id,
        }
        publisher = PythonFunction(
            self,
            "Function",
            settings,
            description=f"{settings.name}: publishes the prepared answers at deploy",
            handler="lambdas.publish.handler.handler",
            timeout=cdk.Duration.minutes(2),
            memory_mb=256,
            environment=places,
        )
        allow = publisher.allow
        allow([data.answers.table_arn], "dynamodb:Scan", "dynamodb:PutItem", "dynamodb:DeleteItem")
        allow([data.limits.table_arn], *(f"dynamodb:{it}" for it in ("GetItem", "UpdateItem", "ConditionCheckItem")))
        allow([data.config.arn_for_objects(f"{_VERSIONS}*")], "s3:GetObject", "s3:PutObject")
        allow([site.bucket.arn_for_objects("*")], "s3:PutObject", "s3:DeleteObject")
        # Without it a missing object is a forbidden one.
        allow([data.config.bucket_arn, site.bucket.bucket_arn], "s3:ListBucket")
        function = [f"cloudfront:{it}Function" for it in ("Get", "Describe", "Update", "Publish")]
        allow([site.function.function_arn], *function)
        allow([distribution.distribution_arn], "cloudfront:CreateInvalidation")
        _acknowledge(publisher, data, site)
        published = cdk.CustomResource(
            self,
            "Published",
            resource_type="Custom::LexoraAnswers",
            service_token=publisher.function.function_arn,
            service_timeout=cdk.Duration.minutes(5),
            properties={"Content": content_hash([*sorted(STATIC_RESPONSES.rglob("*.json")), *_EDGE]), **places},
        )
        # Its log and its rights are there when it runs, and still when it is deleted.
        published.node.add_dependency(publisher)


def _acknowledge(publisher: PythonFunction, data: DataStack, site: Site) -> None:
    stack = cdk.Stack.of(publisher)
    config = stack.resolve(data.export_value(data.config.bucket_arn))["Fn::ImportValue"]
    bucket = stack.resolve(stack.get_logical_id(cast("s3.CfnBucket", site.bucket.node.default_child)))
    acknowledge(
        publisher.role,
        {
            f"AwsSolutions-IAM5[Resource::{config}/{_VERSIONS}*]": "Each version has a name of its own.",
            f"AwsSolutions-IAM5[Resource::<{bucket}.Arn>/*]": "All files of this bucket are its work.",
        },
    )


def content_hash(files: list[Path]) -> str:
    """The same for the same files, whatever machine they lie on."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.parent.name}/{file.name}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
