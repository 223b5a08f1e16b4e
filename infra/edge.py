"""The edge stack: CloudFront, one domain for the prepared answers' files, the page to try them, and both doors."""

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as certificatemanager
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from constructs import Construct

from infra.api import ApiStack
from infra.data import DataStack
from infra.nag import acknowledge
from infra.page import Page
from infra.publisher import Publisher
from infra.settings import Settings
from infra.site import Site

# What may be streamed, or takes its time.
_SLOW_PATHS = (
    *("/v1/chat/completions", "/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"),
    *("/v1/audio/transcriptions", "/v1/images/generations", "/api/v1/llm/query"),
)
_EDGE_HEADER = "x-lexora-edge"
# How long a door may be silent. The buffered one gives up earlier, and a stream has a comment every 15 s.
_READ_SECONDS = 120
# What CloudFront would keep for 10 s even where nothing is cached.
_NEVER_KEPT = (403, 404, 405, 500, 501, 502, 503, 504)


class EdgeStack(cdk.Stack):
    """Chats go to the streaming door: whether they want a stream is in their bodies, where CloudFront cannot see it."""

    def __init__(self, scope: Construct, id_: str, settings: Settings, data: DataStack, api: ApiStack) -> None:
        super().__init__(scope, id_, description=f"Lexora {settings.environment}: CloudFront and its files")
        site = Site(self, "Site", settings)
        page = Page(self, "Page", settings, site)
        streaming = _door(api.stream.host, settings, data)
        distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=settings.name,
            domain_names=[settings.domain] if settings.domain else None,
            certificate=_certificate(self, settings),
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021 if settings.domain else None,
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            default_behavior=_door(api.chat.host, settings, data),
            additional_behaviors={**site.behaviours(), **page.behaviours(), **dict.fromkeys(_SLOW_PATHS, streaming)},
            error_responses=[
                cloudfront.ErrorResponse(http_status=status, ttl=cdk.Duration.seconds(0)) for status in _NEVER_KEPT
            ],
        )
        Publisher(self, "Answers", settings, data, site, distribution)
        page.fill(distribution)
        _acknowledge(distribution, settings)
        host = settings.domain or distribution.distribution_domain_name
        cdk.CfnOutput(self, "CdnUrl", value=f"https://{host}")
        cdk.CfnOutput(self, "SiteBucketName", value=site.bucket.bucket_name)
        cdk.CfnOutput(self, "EdgeFunctionName", value=site.function.function_name)
        cdk.CfnOutput(self, "DistributionId", value=distribution.distribution_id)


def _certificate(stack: cdk.Stack, settings: Settings) -> certificatemanager.ICertificate | None:
    if settings.certificate_arn is None:
        return None
    return certificatemanager.Certificate.from_certificate_arn(stack, "Certificate", settings.certificate_arn)


def _door(host: str, settings: Settings, data: DataStack) -> cloudfront.BehaviorOptions:
    """Everything is passed on and nothing cached, errors neither; no page takes the place of a door's own errors."""
    headers = {}
    if data.edge_secret is not None:
        # CloudFormation looks it up; the template holds a reference.
        headers[_EDGE_HEADER] = cdk.SecretValue.secrets_manager(data.edge_secret.name).unsafe_unwrap()
    return cloudfront.BehaviorOptions(
        origin=origins.HttpOrigin(
            host,
            origin_path=f"/{settings.environment}",
            protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
            origin_ssl_protocols=[cloudfront.OriginSslPolicy.TLS_V1_2],
            read_timeout=cdk.Duration.seconds(_READ_SECONDS),
            keepalive_timeout=cdk.Duration.seconds(60),
            custom_headers=headers,
        ),
        # A key that was sent without TLS is lost already; a redirect would hide that.
        viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
        allowed_methods=cloudfront.AllowedMethods.ALLOW_ALL,
        cache_policy=cloudfront.CachePolicy.CACHING_DISABLED,
        origin_request_policy=cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
    )


def _acknowledge(distribution: cloudfront.Distribution, settings: Settings) -> None:
    acknowledge(
        distribution,
        {
            "AwsSolutions-CFR1": "An API for the whole world; nothing in it is licensed by country.",
            "AwsSolutions-CFR2": "A firewall costs while idle; the stages' throttling holds without one.",
            "AwsSolutions-CFR3": "The doors write a line for each request; files are counted by CloudFront's metrics.",
        },
    )
    if settings.domain is None:
        acknowledge(
            distribution,
            {"AwsSolutions-CFR4": "CloudFront's own certificate allows old TLS; a domain of yours ends that."},
        )
