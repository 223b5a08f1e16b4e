"""The function with which a deploy publishes the repository's prepared answers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lambdas.publish.handler import handler
from lexora.core.versions import Version
from lexora.entry import shipped_answers
from lexora.entry.prepared import SHIPPED, load_prepared
from lexora.entry.publishing import plan, put_in_force
from tests.support.answers_place import AnswersPlace
from tests.support.cloudformation import CloudFormation
from tests.support.emulator import Emulator
from tests.support.gateway import ROOT


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    started = CloudFormation()
    yield started
    started.stop()


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the release ships."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "static_responses"))
    monkeypatch.setattr(shipped_answers, "SHIPPED", folder)
    return folder


@pytest.fixture
def place(emulator: Emulator, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> AnswersPlace:
    made = AnswersPlace(emulator)
    for name, value in made.variables().items():
        monkeypatch.setenv(name, value)
    return made


def change(folder: Path, text: str) -> Version:
    (folder / "responses" / "q1_capital" / "3.json").write_text(json.dumps({"response": text}))
    return Version.of(*load_prepared(folder))


def published_by_ann(place: AnswersPlace, text: str) -> Version:
    shipped = Version.of(*load_prepared(SHIPPED))
    wanted = msgspec.structs.replace(shipped, answers={**shipped.answers, "q1_capital": [text] * 5})
    put_in_force(place.store, place.site, plan(place.store, wanted, "user/ann", ""), lambda _: None)
    place.assert_serves(wanted)
    return wanted


def test_a_new_environment_gets_the_answers(place: AnswersPlace, cloudformation: CloudFormation, shipped: Path) -> None:
    assert cloudformation.ask("Create", handler)["Status"] == "SUCCESS"
    place.assert_serves(Version.of(*load_prepared(shipped)))
    assert len(place.answers()) == 50
    (id_,) = place.store.ids()
    assert place.store.in_force().version == id_
    assert place.invalidations() == []


def test_an_update_brings_what_has_changed(place: AnswersPlace, cloudformation: CloudFormation, shipped: Path) -> None:
    cloudformation.ask("Create", handler)
    wanted = change(shipped, "changed")
    assert cloudformation.ask("Update", handler)["Status"] == "SUCCESS"
    place.assert_serves(wanted)
    assert place.invalidations() == [["/responses/q1_capital/3.json"]]


def test_what_an_operator_has_published_stays(
    place: AnswersPlace, cloudformation: CloudFormation, shipped: Path
) -> None:
    cloudformation.ask("Create", handler)
    theirs = published_by_ann(place, "ann's")
    change(shipped, "changed")
    assert cloudformation.ask("Update", handler)["Status"] == "SUCCESS"
    place.assert_serves(theirs)


def test_what_an_operator_has_gone_back_to_stays(
    place: AnswersPlace, cloudformation: CloudFormation, shipped: Path
) -> None:
    cloudformation.ask("Create", handler)
    first = place.store.get(place.store.ids()[0])
    assert first is not None
    change(shipped, "a mistake")
    cloudformation.ask("Update", handler)
    put_in_force(place.store, place.site, plan(place.store, first, "user/ann", ""), lambda _: None)
    assert cloudformation.ask("Update", handler)["Status"] == "SUCCESS"
    place.assert_serves(first)


def test_code_of_the_edge_that_was_lost_is_put_back(place: AnswersPlace, cloudformation: CloudFormation) -> None:
    cloudformation.ask("Create", handler)
    theirs = published_by_ann(place, "ann's")
    found = place.cloudfront.describe_function(Name=place.function, Stage="DEVELOPMENT")
    config = found["FunctionSummary"]["FunctionConfig"]
    place.cloudfront.update_function(
        Name=place.function, IfMatch=found["ETag"], FunctionConfig=config, FunctionCode=b"function handler() {}"
    )
    found = place.cloudfront.describe_function(Name=place.function, Stage="DEVELOPMENT")
    place.cloudfront.publish_function(Name=place.function, IfMatch=found["ETag"])
    assert cloudformation.ask("Update", handler)["Status"] == "SUCCESS"
    place.assert_serves(theirs)


def test_deleting_it_deletes_nothing(place: AnswersPlace, cloudformation: CloudFormation) -> None:
    cloudformation.ask("Create", handler)
    assert cloudformation.ask("Delete", handler)["Status"] == "SUCCESS"
    assert len(place.answers()) == 50


def test_a_broken_file_is_named(place: AnswersPlace, cloudformation: CloudFormation, shipped: Path) -> None:
    (shipped / "responses" / "q3_mountain" / "2.json").write_text("{")
    answer = cloudformation.ask("Create", handler)
    assert answer["Status"] == "FAILED"
    assert "q3_mountain/2.json: Input data was truncated" in answer["Reason"]
    assert answer["Reason"].endswith("mend this and deploy again")
    assert (place.answers(), place.flat()) == ({}, {})


@pytest.mark.parametrize("variable", ["ANSWERS_TABLE", "CONFIG_BUCKET", "SITE_BUCKET", "EDGE_FUNCTION"])
def test_what_is_not_there_is_named(
    place: AnswersPlace, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "nowhere")
    answer = cloudformation.ask("Create", handler)
    assert answer["Status"] == "FAILED"
    assert "nowhere" in answer["Reason"]


def test_it_needs_nothing_that_the_zip_has_not() -> None:
    code = (
        "import sys, lambdas.publish.handler, lexora.entry.shipped_answers; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'yaml', 'xllamacpp', 'uvloop', 'starlette', 'pydantic', 'psutil', 'httpx2'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "[]\n"
