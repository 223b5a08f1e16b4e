"""The function at the edge, run by Node, and the files that it finds, in the emulator's S3 and CloudFront."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from lexora.adapters.cloudfront import CloudFrontSite, edge_code
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.versions import Version, changed_paths
from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support import edge
from tests.support.emulator import Emulator

SHIPPED_VERSION = Version.of(*load_prepared(SHIPPED))


def version_of(answers: Mapping[str, list[str]]) -> Version:
    """The prompts are their ids."""
    catalogue = Catalogue(PreparedPrompt(id_, id_, [], len(texts)) for id_, texts in answers.items())
    return Version.of(catalogue, {(id_, k): text for id_, texts in answers.items() for k, text in enumerate(texts)})


def edge_function(requests: list[tuple[str, str]], version: Version = SHIPPED_VERSION) -> list[dict[str, Any]]:
    """What the function of a version makes of each (method, path)."""
    return edge.edge_function(requests, edge_code(version))


def uris(*paths: str, version: Version = SHIPPED_VERSION) -> list[str]:
    return [answer["uri"] for answer in edge_function([("GET", path) for path in paths], version)]


def test_short_and_long_ids_are_one_file() -> None:
    short, long = uris("/responses/q1/3.json", "/responses/q1_capital/3.json")
    assert short == long == f"/published/q1_capital/{SHIPPED_VERSION.answers_hash('q1_capital')}/3.json"


@pytest.mark.parametrize("ids", [["q1", "q10_a", "q11"], ["q11", "q10_a", "q1"], ["a_b_c", "a-b", "ab"]])
def test_ids_that_begin_alike_are_told_apart(ids: list[str]) -> None:
    version = version_of({id_: [id_] for id_ in ids})
    found = uris(*(f"/responses/{id_}/0.json" for id_ in ids), version=version)
    assert [uri.split("/")[2] for uri in found] == ids
    for name in ("b", "q", "q10_", "c", "a_b", "0"):
        (answer,) = edge_function([("GET", f"/responses/{name}/0.json")], version)
        assert answer["statusCode"] == 404, name


def test_what_has_not_changed_stays_where_it_is() -> None:
    """So the CDN's copies of it are good in the next version too."""
    paths = sorted(SHIPPED_VERSION.files())
    texts = {**SHIPPED_VERSION.answers, "q3_mountain": ["富士山です。"] * 5}
    changed = msgspec.structs.replace(SHIPPED_VERSION, answers=texts)
    moved = {
        path
        for path, one, other in zip(paths, uris(*paths), uris(*paths, version=changed), strict=True)
        if one != other
    }
    assert (
        moved == set(changed_paths(SHIPPED_VERSION, changed)) == {f"/responses/q3_mountain/{k}.json" for k in range(5)}
    )


def test_random_becomes_one_of_the_variants() -> None:
    seen = set(uris(*["/responses/q1/random.json"] * 200))
    assert seen == set(uris(*(f"/responses/q1/{variant}.json" for variant in range(5))))


@pytest.mark.parametrize(("prompts", "taken"), [(200, True), (400, False)])
def test_more_code_than_cloudfront_takes_is_refused(prompts: int, taken: bool) -> None:
    version = version_of({f"q{number}_a-usual-name": ["a"] for number in range(prompts)})
    if taken:
        assert len(edge_code(version)) <= 10_240
        return
    with pytest.raises(ValueError, match=r"400 prompts make .* CloudFront takes no more than 10240; take some out"):
        edge_code(version)


@pytest.mark.parametrize("id_", ["a b", "a/b", "a'b", "", "日本", "a\n"])
def test_an_id_that_is_no_part_of_a_path_is_refused(id_: str) -> None:
    with pytest.raises(ValueError, match="can be no part of a path"):
        edge_code(version_of({id_: ["a"]}))


class Place(CloudFrontSite):
    """A bucket and a function, without a distribution."""

    def __init__(self, emulator: Emulator) -> None:
        self.s3, cloudfront = emulator.client("s3"), emulator.client("cloudfront")
        self.bucket, function = emulator.bucket(), emulator.name("function")
        made = cloudfront.create_function(
            Name=function,
            FunctionConfig={"Comment": "ours", "Runtime": "cloudfront-js-2.0"},
            FunctionCode=b"function handler(event) { return event.request; }",
        )
        cloudfront.publish_function(Name=function, IfMatch=made["ETag"])
        super().__init__(self.s3, cloudfront, self.bucket, function, "none")

    def names(self) -> set[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}

    def read(self, path: str, version: Version) -> bytes:
        (uri,) = uris(path, version=version)
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=uri.removeprefix("/"))["Body"].read()
        return body


@pytest.fixture
def place(emulator: Emulator) -> Place:
    return Place(emulator)


def test_a_versions_files_are_where_its_function_looks(place: Place) -> None:
    version = version_of({"q1_a": ["東京", "a\n'b'"], "catalogue": ["c"]})
    assert place.put_files(version) == 4
    for path, content in version.files().items():
        assert place.read(path, version) == content
    assert json.loads(place.read("/responses/q1/1.json", version)) == {"response": "a\n'b'"}


def test_files_are_put_once_with_their_headers(place: Place) -> None:
    version = version_of({"q1": ["a", "b"]})
    place.put_files(version)
    assert place.put_files(version) == 0
    more = version_of({"q1": ["a", "b"], "q2": ["c"]})
    assert place.put_files(more) == 2  # the answer and the catalogue
    for key in place.names():
        found = place.s3.head_object(Bucket=place.bucket, Key=key)
        assert found["ContentType"] == "application/json"
        assert found["CacheControl"] == "public, max-age=300, stale-while-revalidate=86400"


def test_the_bucket_also_has_the_version_in_force_under_its_public_paths(place: Place) -> None:
    place.copy(version_of({"q1_a": ["a", "b", "c"], "q2": ["c"]}))
    version = version_of({"q1_a": ["d"], "q3": ["e"]})
    place.copy(version)
    assert place.names() == {"responses/catalogue.json", "responses/q1_a/0.json", "responses/q3/0.json"}
    found = place.s3.get_object(Bucket=place.bucket, Key="responses/q1_a/0.json")["Body"].read()
    assert json.loads(found) == {"response": "d"}


def test_a_version_is_put_in_force_once(place: Place) -> None:
    version = version_of({"q1": ["a"]})
    assert place.switch(version)
    assert not place.switch(version)
    live = place._cloudfront.get_function(Name=place._function, Stage="LIVE")["FunctionCode"].read().decode()
    assert live == edge_code(version)
    described = place._cloudfront.describe_function(Name=place._function, Stage="LIVE")["FunctionSummary"]
    assert described["FunctionConfig"]["Comment"] == "ours"


def test_what_is_not_there_is_an_os_error(emulator: Emulator) -> None:
    site = CloudFrontSite(emulator.client("s3"), emulator.client("cloudfront"), "nowhere", "none", "none")
    version = version_of({"q1": ["a"]})
    for call in (site.put_files, site.switch, site.copy):
        with pytest.raises(OSError, match=r"s3://nowhere|function none"):
            call(version)
    with pytest.raises(OSError, match="distribution none"):
        site.invalidate(["/a"], "reference")


@pytest.mark.parametrize(
    "path",
    [
        "/responses/q1/5.json",
        "/responses/q1/03.json",
        "/responses/q1/-1.json",
        "/responses/q1/3",
        "/responses/q99/0.json",
        "/responses/constructor/0.json",
        "/responses/q1_capital/../q2/0.json",
        "/responses/",
    ],
)
def test_what_is_not_there_is_a_json_404(path: str) -> None:
    (answer,) = edge_function([("GET", path)])
    assert answer["statusCode"] == 404
    assert answer["headers"]["content-type"] == {"value": "application/json"}
    assert answer["headers"]["access-control-allow-origin"] == {"value": "*"}
    error = json.loads(answer["body"]["data"])["error"]
    assert error == {
        "message": f"There is no prepared answer at {path}.",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }


def test_a_preflight_is_answered_at_the_edge() -> None:
    (answer,) = edge_function([("OPTIONS", "/responses/q1/3.json")])
    assert answer["statusCode"] == 204
    assert answer["headers"]["access-control-allow-origin"] == {"value": "*"}
    assert answer["headers"]["access-control-allow-headers"] == {"value": "authorization, *"}
