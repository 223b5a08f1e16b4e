"""An environment on AWS, as a target of `lexora answers`."""

import time

from lexora.adapters.cloudfront import CloudFrontSite
from lexora.adapters.dynamodb_versions import DynamoVersions
from lexora.core.versions import Version
from lexora.entry.aws_account import AwsAccount
from lexora.entry.publishing import Plan, check_aws, put_in_force, say

_LONGEST_SECONDS = 900.0
_LOOK_AGAIN_SECONDS = 3.0


class OnAws:
    """Finds its tables, buckets and distribution in the outputs of the stacks. Raises ConfigError if they lack one."""

    def __init__(self, account: AwsAccount, *, wait: bool) -> None:
        self.name = f"environment {account.environment}"
        self._account = account
        self._wait = wait
        names = {}
        for part, wanted in _OUTPUTS.items():
            found = account.outputs(part)
            if not wanted <= found.keys():  # deployed before answers could be published
                raise account.not_deployed(part)
            names.update(found)
        s3 = account.client("s3")
        self.store = DynamoVersions(
            account.client("dynamodb"),
            s3,
            names["AnswersTableName"],
            names["LimitsTableName"],
            names["ConfigBucketName"],
        )
        self._site = CloudFrontSite(
            s3,
            account.client("cloudfront"),
            names["SiteBucketName"],
            names["EdgeFunctionName"],
            names["DistributionId"],
        )

    @property
    def user(self) -> str:
        return self._account.user

    def in_force(self) -> Version | None:
        version = self.store.in_force().version
        return self.store.get(version) if version else None

    def check(self, version: Version) -> None:
        check_aws(version)

    def keep_what_is_served(self) -> None:
        """A deploy has made a version of it."""

    def put_in_force(self, plan: Plan) -> None:
        invalidation = put_in_force(self.store, self._site, plan, say)
        if invalidation is None:
            return
        say(f"the CDN is forgetting what it kept of the old answers (invalidation {invalidation})")
        if self._wait:
            self._wait_for(invalidation)

    def _wait_for(self, invalidation: str) -> None:
        until = time.monotonic() + _LONGEST_SECONDS
        while not self._site.is_invalidated(invalidation):
            if time.monotonic() > until:
                say("it is still at it; the published answers are in force all the same")
                return
            time.sleep(_LOOK_AGAIN_SECONDS)
        say("it has forgotten")


_OUTPUTS = {
    "Data": {"AnswersTableName", "LimitsTableName", "ConfigBucketName"},
    "Edge": {"SiteBucketName", "EdgeFunctionName", "DistributionId"},
}
