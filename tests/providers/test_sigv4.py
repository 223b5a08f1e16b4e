"""Signatures, against AWS's published examples and botocore's own."""

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lexora.providers.sigv4 import Identity, region_of, signed

# The identity and the moment of AWS's test suite for Signature Version 4.
EXAMPLE = Identity("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", region="us-east-1")
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
BEDROCK = "bedrock-runtime.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("path", "headers", "body", "names", "signature"),
    [
        # post-vanilla
        ("/", {}, b"", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        # post-vanilla-query
        (
            "/?Param1=value1",
            {},
            b"",
            "host;x-amz-date",
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
        # post-x-www-form-urlencoded
        (
            "/",
            {"content-type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)
def test_awss_published_examples(path: str, headers: dict[str, str], body: bytes, names: str, signature: str) -> None:
    found = signed(EXAMPLE, {"host": "example.amazonaws.com", **headers}, path, body, service="service", now=NOW)
    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    assert found == {
        "x-amz-date": "20150830T123600Z",
        "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}",
    }


def by_botocore(
    identity: Identity, headers: dict[str, str], path: str, body: bytes, *, region: str, moment: str
) -> dict[str, str]:
    """The same by botocore, at a moment of our choosing."""
    auth = SigV4Auth(Credentials(identity.key_id, identity.secret, identity.token or None), "bedrock", region)
    others = {name: value for name, value in headers.items() if name != "host"}
    request: Any = AWSRequest("POST", f"https://{headers['host']}{path}", headers=others, data=body)
    request.context["timestamp"] = request.headers["X-Amz-Date"] = moment
    if identity.token:
        request.headers["X-Amz-Security-Token"] = identity.token
    auth._inject_signature_to_request(  # type: ignore[attr-defined]
        request, auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    )
    ours = {"x-amz-date", "x-amz-security-token", "authorization"}
    return {name.lower(): value for name, value in request.headers.items() if name.lower() in ours}


@pytest.mark.parametrize("token", ["", "IQoJb3JpZ2luX2VjE/+=="])
@pytest.mark.parametrize(
    "path",
    [
        "/model/amazon.nova-pro-v1%3A0/converse",
        "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Ainference-profile%2Feu.anthropic.claude-v1%3A0/converse-stream",
        "/through/a/proxy/model/m/converse?b=2&a=1&a=0&c=",
        "/model/m~_-.%E6%9D%B1/converse",
    ],
)
def test_botocore_signs_the_same(path: str, token: str) -> None:
    identity = Identity("AKIA1", "secret/+", token)
    headers = {"host": BEDROCK, "content-type": "application/json", "x-amzn-bedrock-trace": "  a   b "}
    found = signed(identity, headers, path, '{"a":"東"}'.encode(), service="bedrock", now=NOW)
    theirs = by_botocore(
        identity, headers, path, '{"a":"東"}'.encode(), region="eu-central-1", moment="20150830T123600Z"
    )
    assert found == theirs


def test_headers_that_others_change_on_the_way_are_not_signed() -> None:
    headers = {"host": BEDROCK, "accept-encoding": "identity", "user-agent": "lexora", "x-team": "a"}
    found = signed(EXAMPLE, headers, "/", b"", service="bedrock", now=NOW)
    assert "SignedHeaders=host;x-amz-date," in found["authorization"]


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.us-east-1.amazonaws.com", "us-east-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("bedrock-runtime.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ("bedrock-runtime.eu-west-3.api.aws:443", "eu-west-3"),
        ("vpce-0a1-2b.bedrock-runtime.ap-northeast-1.vpce.amazonaws.com", "ap-northeast-1"),
        ("my-proxy-1.example.com", None),
        ("us-east-1.amazonaws.com.example.net", None),
        ("127.0.0.1:8080", None),
    ],
)
def test_the_region_that_an_address_tells(host: str, region: str | None) -> None:
    assert region_of(host) == region


def test_the_addresss_region_comes_before_the_identitys() -> None:
    for host, region in ((BEDROCK, "eu-central-1"), ("127.0.0.1", "us-east-1")):
        assert (
            f"/{region}/bedrock/"
            in signed(EXAMPLE, {"host": host}, "/", b"", service="bedrock", now=NOW)["authorization"]
        )
