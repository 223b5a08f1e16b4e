"""The page to try prepared answers at `/try/`, beside the module that other web pages import: files of the site's."""

import json
from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_deployment as s3_deployment
from constructs import Construct

from infra.bundle import ROOT, WEB_CLIENT
from infra.function import log_group
from infra.nag import acknowledge
from infra.settings import Settings
from infra.site import Site

# As the gateway itself answers /try/: the page runs its own script, asks its own host, and stands in no frame.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CACHE_CONTROL = "public, max-age=300, stale-while-revalidate=86400"
_FOLDER = "try"


class Page(Construct):
    """What `/`, `/try` and `/try/*` lead to, out of the site's bucket. Every web page may import the module."""

    def __init__(self, scope: Construct, id_: str, settings: Settings, site: Site) -> None:
        super().__init__(scope, id_)
        self._settings = settings
        self._site = site
        self._function = cloudfront.Function(
            self,
            "Function",
            comment=f"{settings.name}: the file behind /try/",
            runtime=cloudfront.FunctionRuntime.JS_2_0,
            code=cloudfront.FunctionCode.from_inline(function_source()),
        )
        self._headers = cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            comment=f"{settings.name}: the page to try",
            cors_behavior=cloudfront.ResponseHeadersCorsBehavior(
                access_control_allow_credentials=False,
                access_control_allow_headers=["*"],
                access_control_allow_methods=["GET", "HEAD"],
                access_control_allow_origins=["*"],
                origin_override=True,
            ),
            security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
                content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(
                    content_security_policy=_CONTENT_SECURITY_POLICY, override=True
                ),
                content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
                referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                    referrer_policy=cloudfront.HeadersReferrerPolicy.NO_REFERRER, override=True
                ),
            ),
        )

    def behaviours(self) -> dict[str, cloudfront.BehaviorOptions]:
        """By path."""
        files = cloudfront.BehaviorOptions(
            origin=self._site.origin,
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
            allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD,
            cache_policy=cloudfront.CachePolicy.CACHING_OPTIMIZED,
            compress=True,
            response_headers_policy=self._headers,
            function_associations=[
                cloudfront.FunctionAssociation(
                    function=self._function, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST
                )
            ],
        )
        return dict.fromkeys(("/", f"/{_FOLDER}", f"/{_FOLDER}/*"), files)

    def fill(self, distribution: cloudfront.Distribution) -> None:
        """At deploy: the bucket holds what the repository holds, and the CDN forgets its copies."""
        copier = s3_deployment.BucketDeployment(
            self,
            "Files",
            sources=[s3_deployment.Source.asset(str(WEB_CLIENT))],
            destination_bucket=self._site.bucket,
            destination_key_prefix=_FOLDER,
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
        acknowledge(function, _copier_findings(self._site.bucket))


def function_source() -> str:
    """The edge's function with the names of the files."""
    files = sorted(file.name for file in WEB_CLIENT.iterdir())
    return (ROOT / "infra" / "page.js").read_text().replace("new Set([])", f"new Set({json.dumps(files)})")


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
