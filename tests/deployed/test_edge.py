"""The prepared answers' files at the CDN: `CloudFront` of the emulator, over the private bucket."""

import json

import httpx2
import pytest

from lexora.entry.prepared import SHIPPED
from tests.support.deployment import ORIGIN, Environment

pytestmark = pytest.mark.timeout(600)
FILES = {
    path.relative_to(SHIPPED).as_posix(): json.loads(path.read_bytes()) for path in SHIPPED.glob("responses/*/*.json")
}


def test_every_answer_is_there_by_both_of_its_names(blue: Environment) -> None:
    assert len(FILES) == 50
    with blue.client("cdn") as client:
        for name, content in FILES.items():
            folder, prompt, file = name.split("/")
            for path in (f"/{name}", f"/{folder}/{prompt.partition('_')[0]}/{file}"):
                response = client.get(path)
                assert (response.status_code, response.json()) == (200, content), path


@pytest.mark.parametrize("path", ["/responses/q1/3.json", "/responses/q1_capital/3.json", "/responses/catalogue.json"])
def test_an_answer_may_be_kept_and_read_by_any_page(dev: Environment, path: str) -> None:
    with dev.client("cdn") as client:
        response = client.get(path, headers={"origin": "https://any.example"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "public, max-age=300, stale-while-revalidate=86400"
    assert response.headers["access-control-allow-origin"] == "*"
    assert "x-lexora-origin" in response.headers["access-control-expose-headers"]
    assert (response.headers["x-lexora-origin"], response.headers["x-lexora-cost-usd"]) == ("edge", "0")
    assert response.headers["x-cache"] == "Miss from cloudfront"


def test_random_chooses_at_the_edge(dev: Environment) -> None:
    capitals = {content["response"] for name, content in FILES.items() if "/q1_capital/" in name}
    seen = set()
    with dev.client("cdn") as client:
        for _ in range(60):
            response = client.get("/responses/q1/random.json")
            assert response.headers["cache-control"] == "no-store"
            seen.add(response.json()["response"])
            if len(seen) == len(capitals):
                break
    assert seen == capitals


@pytest.mark.parametrize("path", ["q1/5.json", "q1/03.json", "q1_capita/0.json", "q0/random.json", "q1/0.txt", "q1"])
def test_what_is_not_there_is_not_found_in_json(dev: Environment, path: str) -> None:
    with dev.client("cdn") as client:
        response = client.get(f"/responses/{path}", headers={"origin": ORIGIN})
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]["code"] == "not_found"


def test_a_missing_answer_may_be_read_by_any_page(dev: Environment) -> None:
    with dev.client("cdn") as client:
        response = client.get("/responses/q1/5.json", headers={"origin": "https://any.example"})
    assert response.headers["access-control-allow-origin"] == "*"


def test_a_preflight_is_answered_at_the_edge(dev: Environment) -> None:
    asks = {"origin": "https://any.example", "access-control-request-method": "GET"}
    with dev.client("cdn") as client:
        response = client.options("/responses/q1/3.json", headers=asks)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == "*"
    assert "GET" in response.headers["access-control-allow-methods"]


@pytest.mark.parametrize(("path", "status"), [("/responses/q1/3.json", 301), ("/v1/models", 403)])
def test_nothing_is_said_without_tls(dev: Environment, path: str, status: int) -> None:
    """Files are redirected; at the doors, a key that was sent in the clear must not seem to work."""
    with dev.client("cdn") as client:
        response = client.get(path, headers={"x-forwarded-proto": "http"})
    assert response.status_code == status


def test_only_the_cdn_reads_the_bucket(dev: Environment) -> None:
    emulator = dev.emulator
    bucket = dev.outputs["SiteBucketName"]
    blocked = emulator.client("s3").get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    distribution = emulator.client("cloudfront").get_distribution(Id=dev.outputs["DistributionId"])["Distribution"]
    policy = emulator.client("s3").get_bucket_policy(Bucket=bucket)["Policy"]
    assert distribution["ARN"] in policy
    # A distribution that the policy does not name reads nothing, so the other tests show that it is asked.
    emulator.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy.replace(distribution["ARN"], "arn:other"))
    try:
        with dev.client("cdn") as client:
            assert client.get("/responses/q1/3.json").status_code == 403
    finally:
        emulator.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    with dev.client("cdn") as client:
        assert client.get("/responses/q1/3.json").status_code == httpx2.codes.OK
