"""Runs ministack with what its CloudFormation lacks. A program of its own: tests.support.emulator starts it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from ministack import app
from ministack.core import iam_actions, iam_evaluator, lambda_runtime
from ministack.core.responses import get_account_id
from ministack.services import apigateway_v1, budgets, cloudfront, s3
from ministack.services.cloudformation import provisioners

_Properties = dict[str, Any]


def _camel_case(value: Any) -> Any:
    """`{"AllowOrigins": …}` as `{"allowOrigins": …}`, at any depth."""
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: _camel_case(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_camel_case(inner) for inner in value]
    return value


def _mend_cors(handlers: dict[str, Callable[..., Any]]) -> None:
    """HTTP APIs read their CORS settings in camelCase; CloudFormation's are left in PascalCase."""
    create, update = handlers["create"], handlers["update"]

    def mended(properties: _Properties) -> _Properties:
        cors = properties.get("CorsConfiguration")
        return {**properties, "CorsConfiguration": _camel_case(cors)} if cors else properties

    handlers["create"] = lambda logical_id, properties, stack: create(logical_id, mended(properties), stack)
    handlers["update"] = lambda physical_id, old, new, stack, *rest: update(
        physical_id, mended(old), mended(new), stack, *rest
    )


def _mend_bucket_tags(handlers: dict[str, Callable[..., Any]]) -> None:
    """A bucket's tags are dropped, and CDK empties no bucket on deletion that lacks its tag."""
    create, update = handlers["create"], handlers["update"]

    def tagged(made: tuple[str, Any], properties: _Properties) -> tuple[str, Any]:
        if tags := properties.get("Tags"):
            s3._bucket_tags[made[0]] = {tag["Key"]: tag["Value"] for tag in tags}
        return made

    handlers["create"] = lambda logical_id, properties, stack: tagged(create(logical_id, properties, stack), properties)
    handlers["update"] = lambda physical_id, old, new, *rest: tagged(update(physical_id, old, new, *rest), new)


def _empty_buckets(handlers: dict[str, dict[str, Callable[..., Any]]]) -> None:
    """CDK's function that empties a bucket before it is deleted is JavaScript and needs an SDK that is not here."""

    def empty(bucket: str, _: _Properties) -> None:
        if s3._bucket_tags.get(bucket, {}).get("aws-cdk:auto-delete-objects") == "true":
            s3._buckets[bucket]["objects"].clear()
            for key in [key for key in s3._object_versions if key[0] == bucket]:
                del s3._object_versions[key]

    handlers["Custom::S3AutoDeleteObjects"] = {
        "create": lambda _logical_id, properties, _stack: (properties["BucketName"], {}),
        "delete": empty,
    }


def _make_budgets(handlers: dict[str, dict[str, Callable[..., Any]]]) -> None:
    """The service is there, but its stacks cannot have one."""

    def create(_logical_id: str, properties: _Properties, _stack: str) -> tuple[str, _Properties]:
        status, _, answer = budgets._create_budget(properties)
        if status >= 400:
            raise ValueError(answer)
        return properties["Budget"]["BudgetName"], {}

    handlers["AWS::Budgets::Budget"] = {
        "create": create,
        "delete": lambda name, _: budgets._delete_budget({"BudgetName": name}),
    }


def _mend_alarms(handlers: dict[str, Callable[..., Any]]) -> None:
    """There are no alarms on what is calculated from metrics: here they look at the first of these."""
    create, update = handlers["create"], handlers["update"]

    def mended(properties: _Properties) -> _Properties:
        used = [metric["MetricStat"] for metric in properties.get("Metrics", ()) if "MetricStat" in metric]
        if not used:
            return properties
        rest = {name: value for name, value in properties.items() if name != "Metrics"}
        return {**rest, **used[0]["Metric"], "Period": used[0]["Period"], "Statistic": "Sum"}

    handlers["create"] = lambda logical_id, properties, stack: create(logical_id, mended(properties), stack)
    handlers["update"] = lambda physical_id, old, new, *rest: update(physical_id, mended(old), mended(new), *rest)


def _mend_streaming_integrations() -> None:
    """A REST API does not find the function in the address of an integration that streams; it buffers it now."""
    function_in = apigateway_v1._extract_lambda_ref_from_integration_uri
    apigateway_v1._extract_lambda_ref_from_integration_uri = lambda uri: function_in(
        uri.replace("/response-streaming-invocations", "/invocations")
    )


def _mend_origins() -> None:
    """CloudFront takes no API Gateway for an origin: here it is asked on this emulator's own port."""
    forward = cloudfront._forward_to_origin

    def forward_to_api(origin: dict[str, Any], method: str, uri: str, *rest: Any) -> Any:
        api, _, host = origin["domain_name"].partition(".")
        if host.startswith("execute-api."):
            here = {"domain_name": "127.0.0.1", "http_port": int(os.environ["GATEWAY_PORT"])}
            origin = {**origin, **here, "protocol_policy": "http-only"}
            uri = f"/_aws/execute-api/{api}{uri}"
        return forward(origin, method, uri, *rest)

    cloudfront._forward_to_origin = forward_to_api


def _take_requests_for_tls() -> None:
    """Buckets insist on TLS, which nobody needs on this machine."""
    pin = app.pin_request_origin
    app.pin_request_origin = lambda address, _: pin(address, True)


def _take_browsers_for_tls() -> None:
    """CloudFront's viewers say in a header whether they have TLS. Browsers cannot: they are believed to have it."""
    check = cloudfront._check_viewer_protocol_policy

    def checked(behavior: Any, method: str, is_https: bool, uri: str, query: str, headers: dict[str, str]) -> Any:
        return check(behavior, method, is_https or "x-forwarded-proto" not in headers, uri, query, headers)

    cloudfront._check_viewer_protocol_policy = checked


def _hold_functions_to_their_roles() -> None:
    """Functions may do what their roles allow. Who deploys and operates, and a test, may do all."""
    functions = set()
    credentials, enforce = lambda_runtime.execution_credentials, iam_evaluator.enforce

    def known(config: dict[str, Any]) -> dict[str, str]:
        given = credentials(config)
        functions.add(given["AWS_ACCESS_KEY_ID"])
        return given

    lambda_runtime.execution_credentials = known
    iam_evaluator.enforce = lambda key, *rest, **more: enforce(key, *rest, **more) if key in functions else None


def _name_functions_of_the_edge() -> None:
    """Of CloudFront's resources, roles know distributions alone; its functions are any resource."""
    resource_of = iam_actions.extract_resource_arn

    def named(service: str, method: str, path: str, *rest: Any) -> str:
        found: str = resource_of(service, method, path, *rest)
        if service == "cloudfront" and found == "*" and path.startswith("/2020-05-31/function/"):
            name = unquote(path.split("/")[3])
            return f"arn:aws:cloudfront::{get_account_id()}:function/{name}"
        return found

    iam_actions.extract_resource_arn = named


def _end_with_the_starter() -> None:
    """Ends this process when nobody holds the other end of standard input any more: tests may be killed."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    _mend_cors(provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"])
    _mend_bucket_tags(provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"])
    _empty_buckets(provisioners._RESOURCE_HANDLERS)
    _mend_alarms(provisioners._RESOURCE_HANDLERS["AWS::CloudWatch::Alarm"])
    _make_budgets(provisioners._RESOURCE_HANDLERS)
    _mend_streaming_integrations()
    _mend_origins()
    _take_requests_for_tls()
    _take_browsers_for_tls()
    _hold_functions_to_their_roles()
    _name_functions_of_the_edge()
    app.main()
