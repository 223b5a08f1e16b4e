"""CloudFront over S3: the prepared answers' files of a version, and the function at the edge that says where they are.

A file is written once, under the hash of what it belongs to (`published/<id>/<hash>/<k>.json`), and stays. Which of
them are read is in the code of the edge's function (cloudfront.js), so a version comes into force at an edge all at
once, and what has not changed stays in its cache. `responses/<id>/<k>.json` are copies of the version in force, for
those who read the bucket itself.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lexora.core.versions import CATALOGUE_PATH, Version

# As the gateway itself answers /responses/.
_CACHE_CONTROL = "public, max-age=300, stale-while-revalidate=86400"
_MOST_CODE_BYTES = 10_240  # CloudFront's own limit
_MOST_PATHS = 1_000  # as many are free in a month; beyond that, one for all
_AT_ONCE = 8
_TEMPLATE = Path(__file__).with_suffix(".js")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_COMMENT = re.compile(r"^\s*//.*\n", re.MULTILINE)
_MIRROR = "responses/"


def edge_code(version: Version) -> str:
    """The function that serves this version. Raises ValueError if CloudFront would not take it."""
    lines = []
    for entry in version.prompts:
        if not _ID.fullmatch(entry.id):
            raise ValueError(f"'{entry.id}' can be no part of a path; an id has letters, digits, '_' and '-'")
        lines.append(f"{entry.id} {entry.variants} {version.answers_hash(entry.id)}")
    published = "\\n".join(("", *lines, ""))
    code = (
        _COMMENT.sub("", _TEMPLATE.read_text())
        .replace("CATALOGUE = ''", f"CATALOGUE = '{version.catalogue_hash()}'")
        .replace("PROMPTS = ''", f"PROMPTS = '{published}'")
    )
    if len(code) > _MOST_CODE_BYTES:
        raise ValueError(
            f"{len(lines)} prompts make {len(code)} bytes of code for the edge, and CloudFront takes no more than "
            f"{_MOST_CODE_BYTES}; take some out of the catalogue, or give them shorter ids"
        )
    return code


class CloudFrontSite:
    """Where prepared answers are read as files. Methods raise OSError; done again, they do what is left to do."""

    def __init__(self, s3: Any, cloudfront: Any, bucket: str, function: str, distribution: str) -> None:
        self._s3 = s3
        self._cloudfront = cloudfront
        self._bucket = bucket
        self._function = function
        self._distribution = distribution

    def put_files(self, version: Version) -> int:
        """Writes the files of a version that are not there yet. Nobody reads them. Returns how many it wrote."""
        there = self._keys("published/")
        files = {key: body for key, body in _files(version).items() if key not in there}
        self._for_each(files.items(), lambda file: self._put(*file))
        return len(files)

    def switch(self, version: Version) -> bool:
        """Puts a version in force at the edge. Returns whether it was not."""
        code = edge_code(version).encode()
        if self._code() == code:
            return False
        try:
            found = self._cloudfront.describe_function(Name=self._function, Stage="DEVELOPMENT")
            self._cloudfront.update_function(
                Name=self._function,
                IfMatch=found["ETag"],
                FunctionConfig=found["FunctionSummary"]["FunctionConfig"],
                FunctionCode=code,
            )
            # The update's own answer has the new tag under another name at AWS than anywhere else.
            found = self._cloudfront.describe_function(Name=self._function, Stage="DEVELOPMENT")
            self._cloudfront.publish_function(Name=self._function, IfMatch=found["ETag"])
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"function {self._function}: {error}") from None
        return True

    def copy(self, version: Version) -> None:
        """Makes `responses/` of the bucket hold just this version."""
        there = self._keys(_MIRROR)
        files = {path.removeprefix("/"): body for path, body in version.files().items()}
        self._for_each(files.items(), lambda file: self._put(*file))
        gone = sorted(there - files.keys())
        for start in range(0, len(gone), 1000):
            objects = [{"Key": key} for key in gone[start : start + 1000]]
            self._try(partial(self._s3.delete_objects, Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}))

    def invalidate(self, paths: Sequence[str], reference: str) -> str:
        """Has the CDN forget what it keeps of these paths. Returns the invalidation's id.

        The same `reference` is the same invalidation.
        """
        items = list(paths) if len(paths) <= _MOST_PATHS else [f"/{_MIRROR}*"]
        batch = {"Paths": {"Quantity": len(items), "Items": items}, "CallerReference": reference}
        try:
            made = self._cloudfront.create_invalidation(DistributionId=self._distribution, InvalidationBatch=batch)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"distribution {self._distribution}: {error}") from None
        return str(made["Invalidation"]["Id"])

    def is_invalidated(self, invalidation: str) -> bool:
        """Whether the CDN has done it."""
        try:
            found = self._cloudfront.get_invalidation(DistributionId=self._distribution, Id=invalidation)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"distribution {self._distribution}: {error}") from None
        return bool(found["Invalidation"]["Status"] == "Completed")

    def _code(self) -> bytes:
        try:
            content: bytes = self._cloudfront.get_function(Name=self._function, Stage="LIVE")["FunctionCode"].read()
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"function {self._function}: {error}") from None
        return content

    def _keys(self, prefix: str) -> set[str]:
        try:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return {item["Key"] for page in pages for item in page.get("Contents", ())}
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"s3://{self._bucket}: {error}") from None

    def _put(self, key: str, body: bytes) -> None:
        self._try(
            partial(
                self._s3.put_object,
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentType="application/json",
                CacheControl=_CACHE_CONTROL,
            )
        )

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"s3://{self._bucket}: {error}") from None

    def _for_each(self, files: Iterable[tuple[str, bytes]], work: Callable[[tuple[str, bytes]], None]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(work, files))


def _files(version: Version) -> dict[str, bytes]:
    """The same files as `version.files()`, under the names that the edge's function makes of their paths."""
    named = {}
    for path, body in version.files().items():
        if path == CATALOGUE_PATH:
            named[f"published/catalogue/{version.catalogue_hash()}.json"] = body
        else:
            _, _, id_, file = path.split("/")
            named[f"published/{id_}/{version.answers_hash(id_)}/{file}"] = body
    return named
