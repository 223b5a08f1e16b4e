"""The places of an environment's prepared answers in the emulator, without the rest of a deploy."""

import json
import time
from typing import Any

from lexora.adapters.cloudfront import CloudFrontSite, edge_code
from lexora.adapters.dynamodb_versions import DynamoVersions, PublishedCatalogue
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.versions import Version
from tests.support.emulator import Emulator


def version_of(id_: str = "", /, by: str = "ann", **answers: list[str]) -> Version:
    """A version by keyword: the prompts are their ids with a question mark."""
    catalogue = Catalogue(PreparedPrompt(name, f"{name}?", [], len(texts)) for name, texts in answers.items())
    texts = {(f"{name}?", k): text for name, texts in answers.items() for k, text in enumerate(texts)}
    content = Version.of(catalogue, texts)
    return Version(id_, 1.0, by, "", None, content.prompts, content.answers)


class AnswersPlace:
    """Two tables, two buckets, a function of the edge and a distribution."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.answers_table = emulator.table(prompt="S", variant="N")
        self.state_table = emulator.table(pk="S", sk="S")
        self.config, self.bucket = emulator.bucket(), emulator.bucket()
        self.function = emulator.name("function")
        self.s3, self.cloudfront = emulator.client("s3"), emulator.client("cloudfront")
        made = self.cloudfront.create_function(
            Name=self.function,
            FunctionConfig={"Comment": "ours", "Runtime": "cloudfront-js-2.0"},
            FunctionCode=b"function handler(event) { return event.request; }",
        )
        self.cloudfront.publish_function(Name=self.function, IfMatch=made["ETag"])
        origin = {
            "Id": "o",
            "DomainName": f"{self.bucket}.s3.amazonaws.com",
            "S3OriginConfig": {"OriginAccessIdentity": ""},
        }
        config = {
            "CallerReference": self.function,
            "Comment": "",
            "Enabled": True,
            "Origins": {"Quantity": 1, "Items": [origin]},
            "DefaultCacheBehavior": {
                "TargetOriginId": "o",
                "ViewerProtocolPolicy": "allow-all",
                "CachePolicyId": "4135ea2d-6df8-44a3-9df3-4b5a84be39ad",
            },
        }
        self.distribution = self.cloudfront.create_distribution(DistributionConfig=config)["Distribution"]["Id"]
        self.store = DynamoVersions(
            emulator.client("dynamodb"), self.s3, self.answers_table, self.state_table, self.config
        )
        self.site = CloudFrontSite(self.s3, self.cloudfront, self.bucket, self.function, self.distribution)

    def variables(self) -> dict[str, str]:
        """The environment of the function that a deploy calls."""
        ours = {
            "ANSWERS_TABLE": self.answers_table,
            "LIMITS_TABLE": self.state_table,
            "CONFIG_BUCKET": self.config,
            "SITE_BUCKET": self.bucket,
            "EDGE_FUNCTION": self.function,
            "DISTRIBUTION": self.distribution,
        }
        return self.emulator.environment(ours)

    def make_stacks(self, name: str) -> None:
        """Stacks that consist of their outputs, as those of an environment."""
        self._stack(
            f"Lexora-{name}-Data",
            AnswersTableName=self.answers_table,
            LimitsTableName=self.state_table,
            ConfigBucketName=self.config,
        )
        self._stack(
            f"Lexora-{name}-Edge",
            SiteBucketName=self.bucket,
            EdgeFunctionName=self.function,
            DistributionId=self.distribution,
        )

    def _stack(self, name: str, **outputs: str) -> None:
        template = {
            "Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}},
            "Outputs": {key: {"Value": value} for key, value in outputs.items()},
        }
        cloudformation = self.emulator.client("cloudformation")
        cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))
        until = time.monotonic() + 10
        while cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] != "CREATE_COMPLETE":
            assert time.monotonic() < until
            time.sleep(0.05)

    def answers(self) -> dict[tuple[str, int], str]:
        items = self.emulator.items(self.answers_table)
        return {(item["prompt"]["S"], int(item["variant"]["N"])): item["response"]["S"] for item in items}

    def catalogue(self) -> bytes | None:
        return PublishedCatalogue(self.emulator.client("dynamodb"), self.state_table).read()

    def code(self) -> str:
        found = self.cloudfront.get_function(Name=self.function, Stage="LIVE")
        code: str = found["FunctionCode"].read().decode()
        return code

    def keys(self) -> set[str]:
        """What lies in the site's bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}

    def flat(self) -> dict[str, bytes]:
        """What lies in the bucket under public paths."""
        keys = [key for key in self.keys() if key.startswith("responses/")]
        return {f"/{key}": self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def invalidations(self) -> list[list[str]]:
        """The paths of each invalidation, oldest first."""
        return invalidated(self.cloudfront, self.distribution)

    def assert_serves(self, version: Version) -> None:
        """Table, catalogue, edge and bucket all have just this."""
        assert self.answers() == version.items()
        assert self.catalogue() == version.catalogue()
        assert self.code() == edge_code(version)
        assert self.flat() == version.files()


def invalidated(cloudfront: Any, distribution: str) -> list[list[str]]:
    """The paths of each invalidation but those of the page to try, oldest first."""
    listed = cloudfront.list_invalidations(DistributionId=distribution)["InvalidationList"].get("Items", ())
    made = [cloudfront.get_invalidation(DistributionId=distribution, Id=it["Id"])["Invalidation"] for it in listed]
    paths = [it["InvalidationBatch"]["Paths"]["Items"] for it in sorted(made, key=lambda it: str(it["CreateTime"]))]
    return [items for items in paths if items != ["/try/*"]]
