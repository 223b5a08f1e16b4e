import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from infra import page, publisher
from tests.infra.synthesis import Environment, text
from tests.support.edge import edge_function

CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
ALL_VIEWER_EXCEPT_HOST = "b689b0a8-53d0-40ab-baf2-68738e2966ac"


def distribution(environment: Environment) -> dict[str, Any]:
    config: dict[str, Any] = environment.one("Edge", "CloudFront::Distribution")["DistributionConfig"]
    return config


def behaviours(environment: Environment) -> dict[str, dict[str, Any]]:
    return {behaviour["PathPattern"]: behaviour for behaviour in distribution(environment)["CacheBehaviors"]}


def origin(environment: Environment, behaviour: dict[str, Any]) -> dict[str, Any]:
    origins = {it["Id"]: it for it in distribution(environment)["Origins"]}
    found: dict[str, Any] = origins[behaviour["TargetOriginId"]]
    return found


def test_the_function_runs_before_the_cache_is_looked_up(dev: Environment) -> None:
    function = dev.one("Edge", "CloudFront::Function", "SiteFunction")
    assert function["FunctionConfig"]["Runtime"] == "cloudfront-js-2.0"
    assert function["AutoPublish"] is True
    # Publishing replaces the code. Were it another one here, CloudFormation would put this one back at its next deploy.
    assert function["FunctionCode"] == "function handler(event) { return event.request; }"
    for path in ("/responses/*", "/responses/*/random.json"):
        (association,) = behaviours(dev)[path]["FunctionAssociations"]
        assert association["EventType"] == "viewer-request"


def test_files_are_cached_and_compressed(dev: Environment) -> None:
    cache = dev.one("Edge", "CloudFront::CachePolicy")["CachePolicyConfig"]
    key = cache["ParametersInCacheKeyAndForwardedToOrigin"]
    assert cache["DefaultTTL"] == 300
    assert (key["EnableAcceptEncodingBrotli"], key["EnableAcceptEncodingGzip"]) == (True, True)
    for part in ("Headers", "Cookies", "QueryStrings"):
        assert key[f"{part}Config"] == {f"{part[:-1]}Behavior": "none"}
    for path in ("/responses/*", "/responses/*/random.json"):
        behaviour = behaviours(dev)[path]
        assert behaviour["Compress"] is True
        assert behaviour["CachePolicyId"]["Ref"] in dev.resources("Edge", "CloudFront::CachePolicy")


def test_only_what_is_random_is_asked_for_each_time(dev: Environment) -> None:
    policies = dev.resources("Edge", "CloudFront::ResponseHeadersPolicy")
    headers = {}
    for path in ("/responses/*", "/responses/*/random.json"):
        policy = policies[behaviours(dev)[path]["ResponseHeadersPolicyId"]["Ref"]]["ResponseHeadersPolicyConfig"]
        assert policy["CorsConfig"]["AccessControlAllowOrigins"] == {"Items": ["*"]}
        headers[path] = {it["Header"]: it["Value"] for it in policy["CustomHeadersConfig"]["Items"]}
    assert headers["/responses/*"] == {"x-lexora-origin": "edge", "x-lexora-cost-usd": "0"}
    assert headers["/responses/*/random.json"] == {**headers["/responses/*"], "cache-control": "no-store"}
    # The first pattern that fits is taken.
    assert list(behaviours(dev)).index("/responses/*/random.json") < list(behaviours(dev)).index("/responses/*")


def test_a_deploy_publishes_when_all_is_there(dev: Environment) -> None:
    resource = next(it for it in dev.templates["Edge"]["Resources"].values() if it["Type"] == "Custom::LexoraAnswers")
    assert any(id_.startswith("AnswersFunctionRoleDefaultPolicy") for id_ in resource["DependsOn"])
    places = {name: text(value) for name, value in resource["Properties"].items()}
    variables = dev.one("Edge", "Lambda::Function", "Answers")["Environment"]["Variables"]
    assert variables.keys() == places.keys() - {"Content", "ServiceToken", "ServiceTimeout"}
    assert places["DISTRIBUTION"].startswith("{Distribution")
    assert places["SITE_BUCKET"].startswith("{SiteBucket")
    assert "SiteFunction" in places["EDGE_FUNCTION"]


def test_a_deploy_publishes_again_when_an_answer_has_changed(tmp_path: Path, dev: Environment) -> None:
    shutil.copytree(publisher.STATIC_RESPONSES, tmp_path / "static_responses")
    files = sorted((tmp_path / "static_responses").rglob("*.json"))
    before = publisher.content_hash([*files, *publisher._EDGE])
    assert dev.one("Edge", "Custom::LexoraAnswers")["Content"] == before
    files[7].write_text('{"response": "another"}')
    assert publisher.content_hash([*files, *publisher._EDGE]) != before


def test_the_publisher_may_publish_and_nothing_else(dev: Environment) -> None:
    _, *statements = dev.statements("Edge", "AnswersFunctionRole")
    allowed = {
        action for it in statements for action in ([it["Action"]] if isinstance(it["Action"], str) else it["Action"])
    }
    assert allowed == {
        *(f"dynamodb:{it}" for it in ("Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")),
        *(f"s3:{it}" for it in ("GetObject", "PutObject", "DeleteObject", "ListBucket")),
        *(f"cloudfront:{it}Function" for it in ("Get", "Describe", "Update", "Publish")),
        "cloudfront:CreateInvalidation",
    }
    assert "*" not in {resource for it in statements for resource in [it["Resource"]] if isinstance(resource, str)}


def test_the_page_has_its_files_and_nothing_else() -> None:
    names = ["index.html", "lexora-answers.js", "page.css", "page.js"]
    paths = ["/try/", *(f"/try/{name}" for name in names), "/try", "/"]
    paths += ["/try/../responses/", "/try/index", "/try/page.js/"]
    answers = edge_function([("GET", path) for path in paths], page.function_source())
    assert [answer.get("uri") for answer in answers[:5]] == ["/try/index.html", *paths[1:5]]
    for answer in answers[5:7]:
        assert (answer["statusCode"], answer["headers"]) == (307, {"location": {"value": "/try/"}})
    for path, answer in zip(paths[7:], answers[7:], strict=True):
        assert answer["statusCode"] == 404
        assert json.loads(answer["body"]["data"])["error"]["message"] == f"There is no {path}."


def test_the_page_comes_out_of_the_same_bucket(dev: Environment) -> None:
    files = dev.one("Edge", "Custom::CDKBucketDeployment", "PageFiles")
    assert (files["DestinationBucketKeyPrefix"], files["Prune"]) == ("try", True)
    # Each file has the type of its own.
    assert files["SystemMetadata"] == {"cache-control": "public, max-age=300, stale-while-revalidate=86400"}
    assert files["DistributionPaths"] == ["/try/*"]
    function = dev.one("Edge", "CloudFront::Function", "PageFunction")
    assert function["FunctionCode"] == page.function_source()
    for path in ("/", "/try", "/try/*"):
        behaviour = behaviours(dev)[path]
        assert behaviour["TargetOriginId"] == behaviours(dev)["/responses/*"]["TargetOriginId"]
        assert [it["EventType"] for it in behaviour["FunctionAssociations"]] == ["viewer-request"]
        assert (behaviour["ViewerProtocolPolicy"], behaviour["Compress"]) == ("redirect-to-https", True)


def test_the_page_runs_its_own_scripts_only(dev: Environment) -> None:
    policy = dev.one("Edge", "CloudFront::ResponseHeadersPolicy", "PageHeaders")["ResponseHeadersPolicyConfig"]
    security = policy["SecurityHeadersConfig"]
    content = security["ContentSecurityPolicy"]["ContentSecurityPolicy"]
    assert "default-src 'none'; script-src 'self'; " in content
    assert "unsafe" not in content
    assert security["ContentTypeOptions"] == {"Override": True}
    # Other pages may import the module.
    assert policy["CorsConfig"]["AccessControlAllowOrigins"] == {"Items": ["*"]}


def test_only_cloudfront_reads_the_bucket(dev: Environment) -> None:
    files = origin(dev, behaviours(dev)["/responses/*"])
    assert files["OriginAccessControlId"]
    _, reading, *_ = (
        statement
        for statement in dev.one("Edge", "S3::BucketPolicy")["PolicyDocument"]["Statement"]
        if statement["Principal"] == {"Service": "cloudfront.amazonaws.com"} or statement["Effect"] == "Deny"
    )
    assert reading["Action"] == "s3:GetObject"
    assert ":distribution/" in text(reading["Condition"]["StringEquals"]["AWS:SourceArn"])
    control = dev.one("Edge", "CloudFront::OriginAccessControl")["OriginAccessControlConfig"]
    assert (control["SigningBehavior"], control["SigningProtocol"]) == ("always", "sigv4")


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions", "/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"),
        *("/v1/audio/transcriptions", "/v1/images/generations", "/api/v1/llm/query"),
    ],
)
def test_chats_go_to_the_streaming_door(dev: Environment, path: str) -> None:
    door = origin(dev, behaviours(dev)[path])
    assert "StreamApi" in text(door["DomainName"])
    assert door["OriginPath"] == "/dev"


def test_all_else_goes_to_the_buffered_door(dev: Environment) -> None:
    door = origin(dev, distribution(dev)["DefaultCacheBehavior"])
    assert "ChatApi" in text(door["DomainName"])
    assert door["OriginPath"] == "/dev"


def test_doors_get_requests_whole_and_answer_for_themselves(dev: Environment) -> None:
    config = distribution(dev)
    for behaviour in (config["DefaultCacheBehavior"], behaviours(dev)["/v1/chat/completions"]):
        assert behaviour["CachePolicyId"] == CACHING_DISABLED
        assert behaviour["OriginRequestPolicyId"] == ALL_VIEWER_EXCEPT_HOST
        assert "POST" in behaviour["AllowedMethods"]
        assert behaviour["ViewerProtocolPolicy"] == "https-only"
        custom = origin(dev, behaviour)["CustomOriginConfig"]
        assert (custom["OriginProtocolPolicy"], custom["OriginReadTimeout"]) == ("https-only", 120)


def test_no_error_is_kept_or_replaced(dev: Environment) -> None:
    # Without an entry CloudFront keeps an error for 10 s, and a page would hold for the whole distribution.
    wanted = (403, 404, 405, 500, 501, 502, 503, 504)
    assert distribution(dev)["CustomErrorResponses"] == [
        {"ErrorCode": status, "ErrorCachingMinTTL": 0} for status in wanted
    ]


def test_doors_can_tell_cloudfront_where_they_must(dev: Environment, prod: Environment) -> None:
    for environment in (dev, prod):
        for door in distribution(environment)["Origins"]:
            if "CustomOriginConfig" not in door:
                continue
            headers = {it["HeaderName"]: it["HeaderValue"] for it in door.get("OriginCustomHeaders", [])}
            secret = "{{resolve:secretsmanager:/lexora/prod/EDGE_SECRET:SecretString:::}}"
            assert headers == ({"x-lexora-edge": secret} if environment is prod else {})


def test_a_domain_is_a_setting(dev: Environment, prod: Environment) -> None:
    assert "Aliases" not in distribution(dev)
    assert distribution(prod)["Aliases"] == ["llm.example.org"]
    assert distribution(prod)["ViewerCertificate"]["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert prod.outputs("Edge")["CdnUrl"] == "https://llm.example.org"


def test_outputs(dev: Environment) -> None:
    outputs = dev.outputs("Edge")
    assert outputs.keys() == {"CdnUrl", "SiteBucketName", "DistributionId", "EdgeFunctionName"}
    assert text(outputs["CdnUrl"]).startswith("https://{Distribution")
