"""The buffered door: an HTTP API in front of the chat function. It cannot stream and gives up after 30 s."""

import json

import aws_cdk as cdk
import jsii
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.data import DataStack
from infra.function import log_group
from infra.gateway import Gateway
from infra.nag import acknowledge
from infra.settings import Settings

_SECONDS = 29  # an integration waits for 30 s, its default and its most
# It counts from when the body has come and the model is looked up, and the record is written after it.
_MAX_SECONDS = 24
NO_AUTHORIZER = "The app is what asks for keys, on every door and every machine alike."

# One line a request, what API Gateway itself refused (throttled, too large) included.
_ACCESS_LOG = {
    "requestId": "$context.requestId",
    "requestTime": "$context.requestTime",
    "sourceIp": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    "path": "$context.path",
    "status": "$context.status",
    "responseLength": "$context.responseLength",
    "responseLatencyMs": "$context.responseLatency",
    "integrationLatencyMs": "$context.integrationLatency",
    "error": "$context.error.message",
    "integrationError": "$context.integrationErrorMessage",
    "userAgent": "$context.identity.userAgent",
}


class HttpDoor(Construct):
    """Every path goes to the app, which has the route table."""

    def __init__(self, scope: Construct, id_: str, settings: Settings, data: DataStack) -> None:
        super().__init__(scope, id_)
        self.gateway = Gateway(
            self,
            "Gateway",
            settings,
            data,
            description=f"{settings.name}: the gateway, buffered",
            handler="lambdas.chat.handler.handler",
            timeout=cdk.Duration.seconds(_SECONDS),
            max_seconds=_MAX_SECONDS,
            snap_start=settings.snap_start,
        )
        self.api = apigatewayv2.HttpApi(
            self,
            "Api",
            api_name=settings.name,
            create_default_stage=False,
            cors_preflight=_cors(settings),
            default_integration=integrations.HttpLambdaIntegration("Integration", self.gateway.alias),
        )
        self.stage = apigatewayv2.HttpStage(
            self,
            "Stage",
            http_api=self.api,
            stage_name=settings.environment,
            auto_deploy=True,
            throttle=apigatewayv2.ThrottleSettings(
                rate_limit=settings.rate_per_second, burst_limit=settings.burst_limit
            ),
            access_log_settings=_AccessLog(log_group(self, "AccessLog", settings)),
        )
        acknowledge(self.api, {"AwsSolutions-APIG4": NO_AUTHORIZER})

    @property
    def url(self) -> str:
        return self.stage.url

    @property
    def host(self) -> str:
        stack = cdk.Stack.of(self)
        return f"{self.api.api_id}.execute-api.{stack.region}.{stack.url_suffix}"


@jsii.implements(apigatewayv2.IAccessLogSettings)
class _AccessLog:
    def __init__(self, group: logs.LogGroup) -> None:
        self._group = group

    @property
    def destination(self) -> apigatewayv2.LogGroupLogDestination:
        return apigatewayv2.LogGroupLogDestination(self._group)

    @property
    def format(self) -> apigateway.AccessLogFormat:
        return apigateway.AccessLogFormat.custom(json.dumps(_ACCESS_LOG))


def _cors(settings: Settings) -> apigatewayv2.CorsPreflightOptions | None:
    if not settings.allow_origins:
        return None
    method = apigatewayv2.CorsHttpMethod
    return apigatewayv2.CorsPreflightOptions(
        allow_origins=list(settings.allow_origins),
        allow_methods=[method.GET, method.POST, method.DELETE, method.OPTIONS],
        # For browsers `*` does not cover `authorization`.
        allow_headers=["authorization", "*"],
        expose_headers=[
            *("x-request-id", "x-lexora-origin", "x-lexora-deployment", "x-lexora-model", "x-lexora-cost-usd"),
            *("x-lexora-saved-usd", "x-lexora-cache", "age"),
            *("x-lexora-queue-position", "x-lexora-queue-wait-ms", "x-lexora-tokens", "request-id", "retry-after"),
            *("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
            *("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ],
        max_age=cdk.Duration.minutes(10),
    )
