"""What a deploy puts into the data stack: the prepared answers, and a model map where there is none."""

import hashlib
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.bundle import MODEL_MAP, STATIC_RESPONSES
from infra.function import PythonFunction
from infra.settings import Settings

MODEL_MAP_KEY = "config/model_map.json"


class Seed(Construct):
    """A function that CloudFormation calls when the answers, the default model map or what it fills have changed."""

    def __init__(
        self, scope: Construct, id_: str, settings: Settings, answers: dynamodb.Table, config: s3.Bucket
    ) -> None:
        super().__init__(scope, id_)
        seed = PythonFunction(
            self,
            "Function",
            settings,
            description=f"{settings.name}: fills the answers table and the config bucket at deploy",
            handler="lambdas.seed.handler.handler",
            timeout=cdk.Duration.minutes(2),
            memory_mb=256,
            environment={
                "ANSWERS_TABLE": answers.table_name,
                "CONFIG_BUCKET": config.bucket_name,
                "MODEL_MAP_KEY": MODEL_MAP_KEY,
            },
        )
        seed.allow([answers.table_arn], "dynamodb:Scan", "dynamodb:BatchWriteItem")
        seed.allow([config.arn_for_objects(MODEL_MAP_KEY)], "s3:PutObject")
        filled = cdk.CustomResource(
            self,
            "Filled",
            resource_type="Custom::LexoraSeed",
            service_token=seed.function.function_arn,
            service_timeout=cdk.Duration.minutes(5),
            properties={
                "Content": content_hash([*sorted(STATIC_RESPONSES.rglob("*.json")), MODEL_MAP]),
                "Table": answers.table_name,
                "Bucket": config.bucket_name,
            },
        )
        # Its log and its rights are there when it runs, and still when it is deleted.
        filled.node.add_dependency(seed)


def content_hash(files: list[Path]) -> str:
    """The same for the same files, whatever machine they lie on."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.parent.name}/{file.name}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
