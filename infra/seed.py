"""What a deploy puts into the data stack: a model map where there is none."""

import hashlib

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.bundle import MODEL_MAP
from infra.function import PythonFunction
from infra.settings import Settings

MODEL_MAP_KEY = "config/model_map.json"


class Seed(Construct):
    """A function that CloudFormation calls when the default model map or the bucket has changed."""

    def __init__(self, scope: Construct, id_: str, settings: Settings, config: s3.Bucket) -> None:
        super().__init__(scope, id_)
        seed = PythonFunction(
            self,
            "Function",
            settings,
            description=f"{settings.name}: fills the config bucket at deploy",
            handler="lambdas.seed.handler.handler",
            timeout=cdk.Duration.minutes(2),
            memory_mb=256,
            environment={
                "CONFIG_BUCKET": config.bucket_name,
                "MODEL_MAP_KEY": MODEL_MAP_KEY,
            },
        )
        seed.allow([config.arn_for_objects(MODEL_MAP_KEY)], "s3:PutObject")
        filled = cdk.CustomResource(
            self,
            "Filled",
            resource_type="Custom::LexoraSeed",
            service_token=seed.function.function_arn,
            service_timeout=cdk.Duration.minutes(5),
            properties={
                "Content": hashlib.sha256(MODEL_MAP.read_bytes()).hexdigest(),
                "Bucket": config.bucket_name,
            },
        )
        # Its log and its rights are there when it runs, and still when it is deleted.
        filled.node.add_dependency(seed)
