"""The prepared answers at the edge: a private bucket, and what CloudFront does with its files."""

import aws_cdk as cdk
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from constructs import Construct

from infra.data import private_bucket
from infra.settings import Settings

_FOLDER = "responses"
# Files lie in the bucket under their public paths as well.
_AS_THEY_LIE = "function handler(event) { return event.request; }"


class Site(Construct):
    """The files behind `/responses/*`: open to every web page, compressed, kept by the CDN."""

    def __init__(self, scope: Construct, id_: str, settings: Settings) -> None:
        super().__init__(scope, id_)
        self._settings = settings
        self.bucket = private_bucket(self, "Bucket", settings)
        self.origin = origins.S3BucketOrigin.with_origin_access_control(self.bucket)
        # Its code says which version of the answers is in force. Publishing replaces it, and so does the end of a
        # deploy (infra/publisher.py): as long as what stands here stays the same, CloudFormation does not touch it.
        self.function = cloudfront.Function(
            self,
            "Function",
            comment=f"{settings.name}: the version of /responses/ that is in force",
            runtime=cloudfront.FunctionRuntime.JS_2_0,
            code=cloudfront.FunctionCode.from_inline(_AS_THEY_LIE),
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
                    function=self.function, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST
                )
            ],
        )


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
