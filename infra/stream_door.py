"""The streaming door: a REST API whose responses are passed on as they come, up to 15 minutes.

Neither an HTTP API nor a managed Python function can stream. The Lambda Web Adapter can: a layer that starts the app
under uvicorn and passes on what it answers.
"""

import aws_cdk as cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.data import DataStack
from infra.gateway import Gateway
from infra.http_door import NO_AUTHORIZER
from infra.nag import acknowledge
from infra.settings import Settings

_MINUTES = 15
_MAX_SECONDS = 870  # leaves the function time to write down what happened
_MAX_PLAIN_SECONDS = 110  # CloudFront cuts what is silent for 120 s, as an answer that is not streamed is while made
_PORT = "8080"
# The Lambda Web Adapter 1.0.0, published by AWS in this account for every region.
_ADAPTER_LAYERS = {
    "arm64": "753240598075:layer:LambdaAdapterLayerArm64:27",
    "x86_64": "753240598075:layer:LambdaAdapterLayerX86:27",
}


class StreamDoor(Construct):
    """Every path goes to the app, which has the route table and answers CORS preflights."""

    def __init__(self, scope: Construct, id_: str, settings: Settings, data: DataStack) -> None:
        super().__init__(scope, id_)
        stack = cdk.Stack.of(self)
        adapter = settings.adapter_layer_arn or (
            f"arn:{stack.partition}:lambda:{stack.region}:{_ADAPTER_LAYERS[settings.architecture]}"
        )
        self.gateway = Gateway(
            self,
            "Gateway",
            settings,
            data,
            description=f"{settings.name}: the gateway, streaming",
            handler="lambdas/stream/run.sh",
            timeout=cdk.Duration.minutes(_MINUTES),
            max_seconds=_MAX_SECONDS,
            layers=[lambda_.LayerVersion.from_layer_version_arn(self, "Adapter", adapter)],
            environment={
                "AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap",
                "AWS_LWA_INVOKE_MODE": "response_stream",
                "AWS_LWA_PORT": _PORT,
                # Not over HTTP: /health reads the model map, which a prepared answer does not need.
                "AWS_LWA_READINESS_CHECK_PROTOCOL": "tcp",
                "MAX_PLAIN_SECONDS": str(_MAX_PLAIN_SECONDS),
            },
        )
        self.api = apigateway.RestApi(
            self,
            "Api",
            rest_api_name=f"{settings.name}-stream",
            description=f"{settings.name}: the streaming door",
            # An edge-optimised API cuts a stream that is silent for 30 s, a regional one after 5 minutes.
            endpoint_configuration=apigateway.EndpointConfiguration(types=[apigateway.EndpointType.REGIONAL]),
            cloud_watch_role=False,
            binary_media_types=["multipart/form-data"],  # whose bytes are no text, and would not survive as such
            deploy_options=apigateway.StageOptions(
                stage_name=settings.environment,
                throttling_rate_limit=settings.rate_per_second,
                throttling_burst_limit=settings.burst_limit,
                tracing_enabled=settings.tracing,
            ),
        )
        self.api.node.try_remove_child("Endpoint")  # an output; the stack has one of a better name
        _add_errors(self.api)
        integration = apigateway.LambdaIntegration(
            self.gateway.alias,
            response_transfer_mode=apigateway.ResponseTransferMode.STREAM,
            timeout=cdk.Duration.minutes(_MINUTES),
            allow_test_invoke=False,
        )
        for resource in (self.api.root, self.api.root.add_resource("{proxy+}")):
            method = resource.add_method("ANY", integration)
            acknowledge(
                method,
                {
                    "AwsSolutions-APIG4": NO_AUTHORIZER,
                    "AwsSolutions-COG4": NO_AUTHORIZER,
                },
            )
        acknowledge(self.api, {"AwsSolutions-APIG2": "The app checks requests, with messages that name the field."})
        no_account_role = (
            "A REST API logs by a role of the whole account and region, which environments would take from each other. "
            "The function writes a line for each request, and CloudWatch counts what is throttled before it."
        )
        acknowledge(
            self.api.deployment_stage,
            {
                "AwsSolutions-APIG1": no_account_role,
                "AwsSolutions-APIG6": no_account_role,
                "AwsSolutions-APIG3": "A firewall costs while idle; where one is wanted it belongs on CloudFront.",
            },
        )

    @property
    def url(self) -> str:
        """Without a slash at its end, as the buffered door's."""
        return f"https://{self.host}/{self.api.deployment_stage.stage_name}"

    @property
    def host(self) -> str:
        stack = cdk.Stack.of(self)
        return f"{self.api.rest_api_id}.execute-api.{stack.region}.{stack.url_suffix}"


def _add_errors(api: apigateway.RestApi) -> None:
    """What API Gateway answers by itself, in OpenAI's envelope."""
    its_own = "$context.error.messageString"  # it comes with its quotes
    throttled = '"Too many requests at once. Try again soon."'
    kinds = apigateway.ResponseType
    for kind, status, message, type_, code, headers in (
        (kinds.THROTTLED, "429", throttled, "requests", '"rate_limit_exceeded"', {"Retry-After": "'1'"}),
        (kinds.DEFAULT_4_XX, None, its_own, "invalid_request_error", "null", {}),
        (kinds.DEFAULT_5_XX, None, its_own, "server_error", "null", {}),
    ):
        error = f'{{"message":{message},"type":"{type_}","param":null,"code":{code}}}'
        api.add_gateway_response(
            kind.response_type,
            type=kind,
            status_code=status,
            response_headers={"Access-Control-Allow-Origin": "'*'", **headers},
            templates={"application/json": f'{{"error":{error}}}'},
        )
