"""The seed function: what CloudFormation asks of it, what it fills, and what it says when it cannot."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from lambdas.seed.handler import handler
from lexora.entry import seed as seeding
from tests.support.cloudformation import CloudFormation
from tests.support.emulator import Emulator
from tests.support.gateway import ROOT

KEY = "config/model_map.json"


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    started = CloudFormation()
    yield started
    started.stop()


class Environment:
    """A table and a bucket, as the function's environment variables name them, and the folder of its zip."""

    def __init__(self, emulator: Emulator, root: Path) -> None:
        self._emulator = emulator
        self.root = root
        self.bucket = emulator.bucket()

    def model_map(self) -> bytes | None:
        s3 = self._emulator.client("s3")
        try:
            content: bytes = s3.get_object(Bucket=self.bucket, Key=KEY)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return content


@pytest.fixture
def environment(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A fresh environment, and the function in it."""
    (tmp_path / "model_map.json").write_text('{"default": true}')
    made = Environment(emulator, tmp_path)
    settings = {"CONFIG_BUCKET": made.bucket, "MODEL_MAP_KEY": KEY}
    for name, value in emulator.environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(seeding, "ROOT", tmp_path)
    return made


def test_a_new_environment_gets_a_model_map(environment: Environment, cloudformation: CloudFormation) -> None:
    answer = cloudformation.ask("Create", handler)
    assert answer["Status"] == "SUCCESS"
    assert environment.model_map() == b'{"default": true}'


def test_an_update_leaves_the_operators_model_map(
    environment: Environment, cloudformation: CloudFormation, emulator: Emulator
) -> None:
    cloudformation.ask("Create", handler)
    emulator.client("s3").put_object(Bucket=environment.bucket, Key=KEY, Body=b"the operator's")
    (environment.root / "model_map.json").write_text("another default")
    assert cloudformation.ask("Update", handler)["Status"] == "SUCCESS"
    assert environment.model_map() == b"the operator's"


def test_in_a_checkout_the_model_map_is_where_it_is_kept(
    environment: Environment, cloudformation: CloudFormation
) -> None:
    (environment.root / "infra").mkdir()
    (environment.root / "model_map.json").rename(environment.root / "infra" / "model_map.json")
    assert cloudformation.ask("Create", handler)["Status"] == "SUCCESS"
    assert environment.model_map() == b'{"default": true}'


def test_deleting_it_deletes_nothing(environment: Environment, cloudformation: CloudFormation) -> None:
    cloudformation.ask("Create", handler)
    assert cloudformation.ask("Delete", handler)["Status"] == "SUCCESS"
    assert environment.model_map() == b'{"default": true}'
    assert environment.model_map() is not None


def test_deleting_what_never_came_about_succeeds(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its creation has failed and the stack is rolled back."""
    monkeypatch.delenv("CONFIG_BUCKET")
    assert cloudformation.ask("Delete", handler)["Status"] == "SUCCESS"


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
def test_an_answer_says_what_it_answers(environment: Environment, cloudformation: CloudFormation, kind: str) -> None:
    answer = cloudformation.ask(kind, handler)
    assert (answer["StackId"], answer["RequestId"], answer["LogicalResourceId"]) == (
        "arn:aws:cloudformation:us-east-1:1:stack/Lexora-dev-Data/1",
        "unique",
        "Seed",
    )
    assert answer["PhysicalResourceId"] == "lexora-seed"  # a change of it would be taken for another resource
    assert answer["path"] == "/answer?signature=abc%2Fdef"


def test_the_answer_fits_the_signature_of_its_address(environment: Environment, cloudformation: CloudFormation) -> None:
    """The address is signed for an empty content type."""
    cloudformation.ask("Delete", handler)
    assert cloudformation.headers[-1]["content-type"] == ""


def test_what_is_not_there_is_named(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG_BUCKET", "nowhere")
    answer = cloudformation.ask("Create", handler)
    assert answer["Status"] == "FAILED"
    assert "nowhere" in answer["Reason"]
    assert answer["PhysicalResourceId"] == "lexora-seed"


def test_a_missing_setting_is_named(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_MAP_KEY")
    answer = cloudformation.ask("Create", handler)
    assert answer["Status"] == "FAILED"
    assert "MODEL_MAP_KEY" in answer["Reason"]


def test_a_broken_import_is_told_too(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lexora.entry.seed", None)
    answer = cloudformation.ask("Create", handler)
    assert (answer["Status"], answer["Reason"].partition(":")[0]) == ("FAILED", "ModuleNotFoundError")


def test_a_long_reason_is_cut(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer above 4096 bytes is none."""
    monkeypatch.setattr(seeding, "S3Object", lambda *_: (_ for _ in ()).throw(OSError("🗻\x00" * 5000)))
    answer = cloudformation.ask("Create", handler)
    assert answer["Status"] == "FAILED"
    assert answer["bytes"] <= 4096
    assert answer["Reason"].endswith("mend this and deploy again")


def test_an_answer_that_cannot_be_given_is_an_error(environment: Environment, cloudformation: CloudFormation) -> None:
    """Lambda then asks again: CloudFormation's calls are asynchronous ones."""
    cloudformation.status = 403
    with pytest.raises(HTTPError):
        cloudformation.ask("Create", handler)
    cloudformation.status = 200
    assert cloudformation.ask("Create", handler)["Status"] == "SUCCESS"


def test_it_needs_nothing_that_the_zip_has_not() -> None:
    code = (
        "import sys, lambdas.seed.handler, lexora.entry.seed; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'yaml', 'xllamacpp', 'uvloop', 'starlette', 'pydantic', 'psutil', 'httpx2'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "[]\n"
