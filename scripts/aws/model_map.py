"""The model map of an environment: fetched, and replaced by one that is valid."""

import json
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from lexora.core.model_map import ModelMap
from lexora.entry.model_map import read_model_map
from scripts.aws.account import Account, Problem, say
from scripts.aws.secrets import has_value

KEY = "config/model_map.json"


def push(account: Account, file: Path) -> None:
    """Uploads a model map and says what it changes. Raises ConfigError, with the exact path, if it is broken."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Problem(f"{file}: cannot be read: {error.strerror}") from None
    model_map = read_model_map(content, str(file))
    bucket = account.outputs("Data")["ConfigBucketName"]
    current, etag = _read(account, bucket)
    changes = list(_changes(current, content))
    if not changes:
        say(f"{file} says what is in force; nothing to change")
        return
    for note in _missing_secrets(account, model_map):
        say(f"note: {note}")
    print("\n".join(changes), flush=True)
    unchanged_since = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    try:
        account.client("s3").put_object(
            Bucket=bucket, Key=KEY, Body=content, ContentType="application/json", **unchanged_since
        )
    except ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise Problem("somebody else has just changed the model map; look at theirs, then push again") from None
        raise
    say(f"uploaded to s3://{bucket}/{KEY}; in force within a minute")


def pull(account: Account, file: Path) -> None:
    """Writes the model map that is in force to a new file."""
    bucket = account.outputs("Data")["ConfigBucketName"]
    content, _ = _read(account, bucket)
    if content is None:
        raise Problem(f"there is no s3://{bucket}/{KEY}; make one with: make config-push ENV={account.environment}")
    try:
        with file.open("xb") as new:
            new.write(content)
    except OSError as error:
        raise Problem(f"{file}: cannot be written: {error.strerror}") from None
    say(f"wrote {file}")


def _read(account: Account, bucket: str) -> tuple[bytes | None, str]:
    try:
        found = account.client("s3").get_object(Bucket=bucket, Key=KEY)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None, ""
        raise
    return found["Body"].read(), found["ETag"]


def _changes(current: bytes | None, new: bytes) -> Iterator[str]:
    """The difference as a patch, made of what the files say, not of how they are laid out."""
    before = [] if current is None else _laid_out(current)
    yield from unified_diff(before, _laid_out(new), "in force", "new", n=2, lineterm="")


def _laid_out(content: bytes) -> list[str]:
    try:
        data: Any = json.loads(content)
    except ValueError:  # somebody has put it there by other means
        return content.decode(errors="replace").splitlines()
    return json.dumps(data, indent=2, ensure_ascii=False).splitlines()


def _missing_secrets(account: Account, model_map: ModelMap) -> Iterator[str]:
    places: dict[str, str] = {}
    for name, route in model_map.models.items():
        for position, deployment in enumerate(route.deployments):
            for reference in deployment.references:
                places.setdefault(reference.removeprefix("env:"), f"models.{name}.deployments[{position}]")
    for secret, place in places.items():
        if secret not in account.settings.secrets:
            yield f"{place} needs {secret}, which no function may read; add it to `secrets` in cdk.json and deploy"
        elif not has_value(account, secret):
            yield f"{place} needs {secret}; set it: make secrets-set ENV={account.environment} NAME={secret}"
