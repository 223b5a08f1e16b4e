"""The prepared answers at the edge: a private bucket, what CloudFront does with its files, and what fills it."""

import json
from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_deployment as s3_deployment
from constructs import Construct

from infra.bundle import ROOT, STATIC_RESPONSES
from infra.data import private_bucket
from infra.function import log_group
from infra.nag import acknowledge
from infra.settings import Settings

# As the gateway itself answers /responses/.
_CACHE_CONTROL = "public, max-age=300, stale-while-revalidate=86400"
_DEFAULT_VARIANTS = 5
_FOLDER = "responses"


class Site(Construct):
    """The files behind `/responses/*`: open to every web page, compressed, kept by the CDN until the next deploy."""

    def __init__(self, scope: Construct, id_: str, settings: Settings) -> None:
        super().__init__(scope, id_)
        self._settings = settings
        self.bucket = private_bucket(self, "Bucket", settings)
        self.origin = origins.S3BucketOrigin.with_origin_access_control(self.bucket)
        self._function = cloudfront.Function(
            self,
            "Function",
            comment=f"{settings.name}: short ids, random variants and 404 of /responses/",
            runtime=cloudfront.FunctionRuntime.JS_2_0,
            code=cloudfront.FunctionCode.from_inline(function_source()),
        )
        self._cache = cloudfront.CachePolicy(
            self,
            "Cache",
            comment=f"{settings.name}: prepared answers",
            default_ttl=cdk.Duration.minutes(5),
            enable_accept_encoding_brotli=True,
            enable_accept_encoding_gzip=True,
        )

    def behaviours(self) -> dict[str, cloudfront.BehaviorOptions]:
        """By path. What is random must be asked for each time; the variants themselves are cached."""
        return {
            f"/{_FOLDER}/*/random.json": self._behaviour("RandomHeaders", {"cache-control": "no-store"}),
            f"/{_FOLDER}/*": self._behaviour("Headers", {}),
        }

    def _behaviour(self, id_: str, headers: dict[str, str]) -> cloudfront.BehaviorOptions:
        return cloudfront.BehaviorOptions(
            origin=self.origin,
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
            allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD_OPTIONS,
            cache_policy=self._cache,
            compress=True,
            response_headers_policy=_headers(self, id_, self._settings, headers),
            function_associations=[
                cloudfront.FunctionAssociation(
                    function=self._function, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST
                )
            ],
        )

    def fill(self, distribution: cloudfront.Distribution) -> None:
        """At deploy: the bucket holds what the repository holds, and the CDN forgets its copies."""
        copier = s3_deployment.BucketDeployment(
            self,
            "Files",
            sources=[
                s3_deployment.Source.asset(str(STATIC_RESPONSES / _FOLDER)),
                s3_deployment.Source.data("catalogue.json", catalogue()),
            ],
            destination_bucket=self.bucket,
            destination_key_prefix=_FOLDER,
            content_type="application/json",
            cache_control=[s3_deployment.CacheControl.from_string(_CACHE_CONTROL)],
            distribution=distribution,
            distribution_paths=[f"/{_FOLDER}/*"],
            wait_for_distribution_invalidation=False,
            memory_limit=256,
            log_group=log_group(self, "FilesLog", self._settings),
        )
        # The function that copies is the CDK's own; the stack holds it.
        function = copier.handler_role.node.scope
        assert function is not None
        acknowledge(function, _copier_findings(self.bucket))


def catalogue() -> str:
    """`catalogue.json` as the gateway itself serves it: every field is there."""
    prompts = [
        {"aliases": [], "variants": _DEFAULT_VARIANTS, **entry}
        for entry in json.loads((STATIC_RESPONSES / "catalogue.json").read_bytes())["prompts"]
    ]
    fields = ("id", "prompt", "aliases", "variants")
    served = {"prompts": [{field: entry[field] for field in fields} for entry in prompts]}
    return json.dumps(served, ensure_ascii=False, separators=(",", ":"))


def function_source() -> str:
    """The edge's function with the prompts of the catalogue: its map of ids."""
    prompts = [
        (name, (entry["id"], entry["variants"]))
        for entry in json.loads(catalogue())["prompts"]
        for name in (entry["id"], entry["id"].partition("_")[0])
    ]
    source = (ROOT / "infra" / "answers.js").read_text()
    return source.replace("new Map([])", f"new Map({json.dumps(prompts)})")


def _copier_findings(bucket: s3.Bucket) -> dict[str, str]:
    stack = cdk.Stack.of(bucket)
    here = stack.resolve(stack.get_logical_id(cast("s3.CfnBucket", bucket.node.default_child)))
    assets = f"cdk-{cdk.DefaultStackSynthesizer.DEFAULT_QUALIFIER}-assets-<AWS::AccountId>-<AWS::Region>"
    family = "The CDK grants its copier these actions by family, on the bucket of assets and on this one only."
    return {
        "AwsSolutions-L1": "The CDK chooses the runtime of its copier.",
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole]": (
            "The CDK gives its copier AWS's policy for writing logs."
        ),
        **{
            f"AwsSolutions-IAM5[Action::s3:{action}]": family
            for action in ("GetBucket*", "GetObject*", "List*", "Abort*", "DeleteObject*")
        },
        f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:s3:::{assets}/*]": "Where the CLI puts the files to copy.",
        f"AwsSolutions-IAM5[Resource::<{here}.Arn>/*]": "All files of this bucket are its work.",
        "AwsSolutions-IAM5[Resource::*]": "CloudFront's invalidations, which the CDK grants for every distribution.",
    }


def _headers(
    scope: Construct, id_: str, settings: Settings, headers: dict[str, str]
) -> cloudfront.ResponseHeadersPolicy:
    ours = {"x-lexora-origin": "edge", "x-lexora-cost-usd": "0", **headers}
    return cloudfront.ResponseHeadersPolicy(
        scope,
        id_,
        comment=f"{settings.name}: prepared answers",
        cors_behavior=cloudfront.ResponseHeadersCorsBehavior(
            access_control_allow_credentials=False,
            access_control_allow_headers=["*"],
            access_control_allow_methods=["GET", "HEAD", "OPTIONS"],
            access_control_allow_origins=["*"],
            access_control_expose_headers=["x-lexora-origin", "x-lexora-cost-usd"],
            origin_override=True,
        ),
        custom_headers_behavior=cloudfront.ResponseCustomHeadersBehavior(
            custom_headers=[
                cloudfront.ResponseCustomHeader(header=name, value=value, override=True) for name, value in ours.items()
            ]
        ),
    )
