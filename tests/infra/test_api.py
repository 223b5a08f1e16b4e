import json
import re
from typing import Any

import pytest

from lexora.api.cors import EXPOSED
from tests.infra.synthesis import Environment, text


@pytest.mark.parametrize(
    ("function", "handler", "seconds"),
    [("Chat", "lambdas.chat.handler.handler", 29), ("Stream", "lambdas/stream/run.sh", 900)],
)
def test_functions(dev: Environment, prod: Environment, function: str, handler: str, seconds: int) -> None:
    made = dev.one("Api", "Lambda::Function", f"{function}Gateway")
    assert (made["Handler"], made["Timeout"], made["MemorySize"]) == (handler, seconds, 512)
    assert (made["Runtime"], made["Architectures"]) == ("python3.13", ["arm64"])
    other = prod.one("Api", "Lambda::Function", f"{function}Gateway")
    assert (other["Runtime"], other["Architectures"], other["MemorySize"]) == ("python3.12", ["x86_64"], 1024)


def test_all_functions_share_one_zip(dev: Environment) -> None:
    functions = [*dev.resources("Api", "Lambda::Function").values(), dev.one("Data", "Lambda::Function", "Seed")]
    assert len({function["Code"]["S3Key"] for function in functions}) == 1


@pytest.mark.parametrize(("function", "max_seconds"), [("Chat", "24"), ("Stream", "870")])
def test_the_functions_environment(dev: Environment, prod: Environment, function: str, max_seconds: str) -> None:
    variables = dev.one("Api", "Lambda::Function", f"{function}Gateway")["Environment"]["Variables"]
    adapter = {name: value for name, value in variables.items() if name.startswith("AWS_")}
    plain = {name: value for name, value in variables.items() if isinstance(value, str) and name not in adapter}
    assert plain == {
        "LEXORA_ENVIRONMENT": "dev",
        "LEXORA_STAGE": "dev",
        "MODEL_MAP_KEY": "config/model_map.json",
        "SECRET_PREFIX": "/lexora/dev/",
        "ALLOW_ORIGINS": "",
        "MESSAGE_TEXT": "true",
        "LOG_LEVEL": "INFO",
        "MAX_SECONDS": max_seconds,
        "RECORD_TTL_DAYS": "90",
        "AUTH_REQUIRED": "true",
        "PREPARED_NEED_KEY": "false",
        "JWT_USER_CLAIM": "sub",
        "JWT_ADMIN_VALUE": "admin",
        "OWN_OPEN": "true",
        "PAID_OPEN": "false",
        "CACHE_TTL_SECONDS": "3600",
        "CACHE_PER_USER": "true",
        "CACHE_BY_REQUEST": "true",
        **({"MAX_PLAIN_SECONDS": "110"} if function == "Stream" else {}),
    }
    references = variables.keys() - plain.keys() - adapter.keys()
    assert references == {"ANSWERS_TABLE", "REQUESTS_TABLE", "LIMITS_TABLE", "CACHE_TABLE", "CONFIG_BUCKET"}
    assert adapter == (
        {
            "AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap",
            "AWS_LWA_INVOKE_MODE": "response_stream",
            "AWS_LWA_PORT": "8080",
            "AWS_LWA_READINESS_CHECK_PROTOCOL": "tcp",
        }
        if function == "Stream"
        else {}
    )
    other = prod.one("Api", "Lambda::Function", f"{function}Gateway")["Environment"]["Variables"]
    assert other["ALLOW_ORIGINS"] == "https://app.example.org,http://localhost:3000"
    assert (other["MESSAGE_TEXT"], other["EDGE_SECRET"]) == ("false", "/lexora/prod/EDGE_SECRET")


@pytest.mark.parametrize("function", ["Chat", "Stream"])
def test_functions_may_do_what_they_must(dev: Environment, function: str) -> None:
    granted = {
        tuple(statement["Action"]) if isinstance(statement["Action"], list) else statement["Action"]: statement
        for statement in dev.statements("Api", f"{function}GatewayRole")
    }
    assert granted.keys() == {
        ("logs:CreateLogStream", "logs:PutLogEvents"),
        "dynamodb:GetItem",
        ("dynamodb:BatchWriteItem", "dynamodb:Query"),
        ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"),
        ("dynamodb:GetItem", "dynamodb:PutItem"),
        ("s3:GetObject", "s3:GetObjectVersion"),
        ("s3:ListBucket", "s3:ListBucketVersions"),
        "secretsmanager:GetSecretValue",
    }
    assert "Answers" in text(granted["dynamodb:GetItem"]["Resource"])
    assert "Cache" in text(granted["dynamodb:GetItem", "dynamodb:PutItem"]["Resource"])
    assert "Requests" in text(granted["dynamodb:BatchWriteItem", "dynamodb:Query"]["Resource"])
    assert text(granted["s3:GetObject", "s3:GetObjectVersion"]["Resource"]).endswith("}/config/model_map.json")
    bucket = text(granted["s3:ListBucket", "s3:ListBucketVersions"]["Resource"])
    assert "Config" in bucket
    assert "/" not in bucket
    secrets = granted["secretsmanager:GetSecretValue"]["Resource"]
    arn = "arn:{AWS::Partition}:secretsmanager:{AWS::Region}:{AWS::AccountId}:secret:/lexora/dev/"
    assert {text(secret) for secret in secrets} == {
        f"{arn}{name}-??????" for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GPU_API_KEY")
    }
    for role in dev.resources("Api", "IAM::Role").values():
        assert "ManagedPolicyArns" not in role


@pytest.mark.parametrize("function", ["Chat", "Stream"])
def test_functions_may_ask_the_models_of_bedrock_that_are_listed_and_no_other(prod: Environment, function: str) -> None:
    (granted,) = [
        statement
        for statement in prod.statements("Api", f"{function}GatewayRole")
        if "bedrock" in json.dumps(statement["Action"])
    ]
    assert granted["Action"] == ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]
    models = "arn:{AWS::Partition}:bedrock:*::foundation-model/"
    assert {text(resource) for resource in granted["Resource"]} == {
        "arn:{AWS::Partition}:bedrock:*:{AWS::AccountId}:inference-profile/eu.anthropic.claude-sonnet-4-6",
        f"{models}eu.anthropic.claude-sonnet-4-6",
        f"{models}anthropic.claude-sonnet-4-6",
        f"{models}amazon.nova-pro-v1:0",
        "arn:aws:bedrock:eu-west-1:123456789012:prompt-router/a",
    }


def test_tracing_snap_start_and_canary_are_settings(dev: Environment, prod: Environment) -> None:
    for function in dev.resources("Api", "Lambda::Function").values():
        assert "SnapStart" not in function
        assert "TracingConfig" not in function
    assert not dev.resources("Api", "CodeDeploy::DeploymentGroup")
    for function in prod.resources("Api", "Lambda::Function").values():
        assert function["TracingConfig"] == {"Mode": "Active"}
    chat = prod.one("Api", "Lambda::Function", "ChatGateway")
    assert chat["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    for group in prod.resources("Api", "CodeDeploy::DeploymentGroup").values():
        assert group["DeploymentConfigName"] == "CodeDeployDefault.LambdaCanary10Percent5Minutes"
        assert group["AlarmConfiguration"]["Enabled"]
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    for alias in _resources(prod, "Api", "AWS::Lambda::Alias"):
        assert alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert len(prod.resources("Api", "CodeDeploy::DeploymentGroup")) == 2


def test_doors_call_the_alias(dev: Environment) -> None:
    aliases = dev.resources("Api", "Lambda::Alias")
    assert [alias["Name"] for alias in aliases.values()] == ["live", "live"]
    assert {text(it["FunctionName"])[1:].split("Live")[0] for it in dev.resources("Api", "Lambda::Permission").values()}
    for permission in dev.resources("Api", "Lambda::Permission").values():
        assert permission["FunctionName"]["Ref"] in aliases
    integration = dev.one("Api", "ApiGatewayV2::Integration")
    assert integration["IntegrationUri"]["Ref"] in aliases


def test_log_groups_forget(dev: Environment, prod: Environment) -> None:
    for environment, days in ((dev, 14), (prod, 90)):
        for stack in ("Data", "Api", "Edge"):
            groups = environment.resources(stack, "Logs::LogGroup")
            assert groups
            assert {group["RetentionInDays"] for group in groups.values()} == {days}
        for function in environment.resources("Api", "Lambda::Function").values():
            assert function["LoggingConfig"]["LogGroup"]["Ref"] in environment.resources("Api", "Logs::LogGroup")


def test_the_buffered_door(dev: Environment, prod: Environment) -> None:
    integration = dev.one("Api", "ApiGatewayV2::Integration")
    assert integration["PayloadFormatVersion"] == "2.0"
    assert "TimeoutInMillis" not in integration  # so that it is 30 s, more than the function's and the CDK's most
    assert dev.one("Api", "ApiGatewayV2::Route")["RouteKey"] == "$default"
    stage = dev.one("Api", "ApiGatewayV2::Stage")
    assert (stage["StageName"], stage["AutoDeploy"]) == ("dev", True)
    assert stage["DefaultRouteSettings"] == {"ThrottlingRateLimit": 10, "ThrottlingBurstLimit": 100}
    throttled = prod.one("Api", "ApiGatewayV2::Stage")["DefaultRouteSettings"]
    assert throttled == {"ThrottlingRateLimit": 20, "ThrottlingBurstLimit": 50}


def test_access_logs_are_json(dev: Environment) -> None:
    settings = dev.one("Api", "ApiGatewayV2::Stage")["AccessLogSettings"]
    assert text(settings["DestinationArn"]).startswith("{ChatAccessLog")
    line = json.loads(settings["Format"])
    assert line["requestId"] == "$context.requestId"
    assert line["status"] == "$context.status"


def test_cors(dev: Environment, prod: Environment) -> None:
    assert "CorsConfiguration" not in dev.one("Api", "ApiGatewayV2::Api")
    cors = prod.one("Api", "ApiGatewayV2::Api")["CorsConfiguration"]
    assert cors["AllowOrigins"] == ["https://app.example.org", "http://localhost:3000"]
    assert cors["AllowHeaders"] == ["authorization", "*"]
    assert set(cors["AllowMethods"]) == {"GET", "POST", "DELETE", "OPTIONS"}
    # API Gateway's list takes the place of the application's.
    assert ", ".join(cors["ExposeHeaders"]) == EXPOSED.decode()
    assert "AllowCredentials" not in cors


def test_the_streaming_door(dev: Environment) -> None:
    methods = dev.resources("Api", "ApiGateway::Method")
    assert len(methods) == 2  # the root and everything below it
    for method in methods.values():
        integration = method["Integration"]
        assert method["HttpMethod"] == "ANY"
        assert (integration["Type"], integration["ResponseTransferMode"]) == ("AWS_PROXY", "STREAM")
        assert integration["TimeoutInMillis"] == 900_000
        uri = text(integration["Uri"])
        assert ":lambda:path/2021-11-15/functions/{StreamGatewayLive" in uri
        assert uri.endswith("}/response-streaming-invocations")
    assert dev.one("Api", "ApiGateway::Resource")["PathPart"] == "{proxy+}"
    api = dev.one("Api", "ApiGateway::RestApi")
    assert api["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    # Else a sound would reach the function as text, which it is not.
    assert api["BinaryMediaTypes"] == ["multipart/form-data"]
    assert not dev.resources("Api", "ApiGateway::Account")  # it would be the whole account's


def test_the_streaming_doors_own_errors_are_openais(dev: Environment) -> None:
    responses = {it["ResponseType"]: it for it in dev.resources("Api", "ApiGateway::GatewayResponse").values()}
    errors = {}
    for kind, response in responses.items():
        ((content_type, template),) = response["ResponseTemplates"].items()
        assert content_type == "application/json"
        errors[kind] = json.loads(template.replace("$context.error.messageString", '"its own"'))["error"]
        assert response["ResponseParameters"]["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
    assert errors == {
        "THROTTLED": {
            "message": "Too many requests at once. Try again soon.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        },
        "DEFAULT_4XX": {"message": "its own", "type": "invalid_request_error", "param": None, "code": None},
        "DEFAULT_5XX": {"message": "its own", "type": "server_error", "param": None, "code": None},
    }
    assert responses["THROTTLED"]["StatusCode"] == "429"
    assert responses["THROTTLED"]["ResponseParameters"]["gatewayresponse.header.Retry-After"] == "'1'"
    assert not any("StatusCode" in responses[kind] for kind in ("DEFAULT_4XX", "DEFAULT_5XX"))


def test_the_streaming_doors_stage(dev: Environment, prod: Environment) -> None:
    for environment, rate, burst in ((dev, 10, 100), (prod, 20, 50)):
        stage = environment.one("Api", "ApiGateway::Stage")
        assert stage["StageName"] == environment.name
        (settings,) = stage["MethodSettings"]
        assert (settings["ResourcePath"], settings["HttpMethod"]) == ("/*", "*")
        assert (settings["ThrottlingRateLimit"], settings["ThrottlingBurstLimit"]) == (rate, burst)
        assert stage.get("TracingEnabled", False) is (environment is prod)


def test_the_adapters_layer_fits_the_architecture(dev: Environment, prod: Environment) -> None:
    for environment, layer in ((dev, "LambdaAdapterLayerArm64:27"), (prod, "LambdaAdapterLayerX86:27")):
        (arn,) = environment.one("Api", "Lambda::Function", "StreamGateway")["Layers"]
        assert text(arn) == f"arn:{{AWS::Partition}}:lambda:{{AWS::Region}}:753240598075:layer:{layer}"
        assert "Layers" not in environment.one("Api", "Lambda::Function", "ChatGateway")


def test_outputs(dev: Environment) -> None:
    outputs = dev.outputs("Api")
    assert outputs.keys() == {
        *("ChatApiEndpoint", "ChatLambdaName", "ChatLogGroupName"),
        *("StreamApiEndpoint", "StreamLambdaName", "StreamLogGroupName"),
    }
    assert re.fullmatch(
        r"https://\{ChatApi\w+\}\.execute-api\.\{AWS::Region\}\.\{AWS::URLSuffix\}/dev/?",
        text(outputs["ChatApiEndpoint"]),
    )
    assert re.fullmatch(
        r"https://\{StreamApi\w+\}\.execute-api\..*/\{StreamApiDeploymentStage\w+\}/?",
        text(outputs["StreamApiEndpoint"]),
    )


def _resources(environment: Environment, stack: str, kind: str) -> list[dict[str, Any]]:
    return [it for it in environment.templates[stack]["Resources"].values() if it["Type"] == kind]
