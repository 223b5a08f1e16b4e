"""The files of the prepared answers."""

import json
import shutil
from pathlib import Path

import pytest

from lexora.entry.errors import ConfigError
from lexora.entry.prepared import SHIPPED, load_prepared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped files."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "answers"))


def write(folder: Path, name: str, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (folder / name).write_text(text)


def test_the_shipped_files_are_all_read() -> None:
    catalogue, answers = load_prepared(SHIPPED)
    on_disk = {path.relative_to(SHIPPED / "responses") for path in SHIPPED.rglob("responses/*/*.json")}
    assert len(on_disk) == len(answers) == 50
    for entry in catalogue.prompts:
        for variant in range(5):
            file = SHIPPED / "responses" / entry.id / f"{variant}.json"
            content = json.loads(file.read_text())
            assert content == {"response": answers[entry.prompt, variant]}
            assert content["response"].strip() == content["response"] != ""


def test_a_catalogue_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, "catalogue.json", {"prompts": [{"id": "hours", "prompt": "When are you open?", "variants": 1}]})
    (tmp_path / "responses" / "hours").mkdir(parents=True)
    write(tmp_path, "responses/hours/0.json", {"response": "All day."})
    catalogue, answers = load_prepared(tmp_path)
    assert answers == {("When are you open?", 0): "All day."}
    found = catalogue.match("WHEN ARE YOU OPEN")
    assert found is not None
    assert found.id == "hours"


def test_a_catalogue_may_be_empty(tmp_path: Path) -> None:
    write(tmp_path, "catalogue.json", {"prompts": []})
    catalogue, answers = load_prepared(tmp_path)
    assert (catalogue.prompts, answers) == ([], {})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("catalogue.json", "", "Input data was truncated"),
        ("catalogue.json", "not json", "JSON is malformed"),
        ("catalogue.json", [], "Expected `object`, got `array`"),
        ("catalogue.json", {}, "missing required field `prompts`"),
        ("catalogue.json", {"prompts": [{"id": "a"}]}, "missing required field `prompt` - at `$.prompts[0]`"),
        ("catalogue.json", {"prompts": [{"id": "a", "prompt": 5}]}, "got `int` - at `$.prompts[0].prompt`"),
        ("catalogue.json", {"prompts": [{"id": "a", "prompt": "b", "alias": []}]}, "unknown field `alias`"),
        ("catalogue.json", {"prompts": [{"id": "a", "prompt": "b", "variants": 0}]}, "`$.prompts[0].variants`"),
        ("catalogue.json", {"prompts": [{"id": "a", "prompt": "b"}] * 2}, "'a' and 'a' share the id 'a'"),
        ("responses/q3_mountain/2.json", "", "Input data was truncated"),
        ("responses/q3_mountain/2.json", '{"response": "a"', "Input data was truncated"),
        ("responses/q3_mountain/2.json", {}, "missing required field `response`"),
        ("responses/q3_mountain/2.json", {"response": None}, "Expected `str`, got `null` - at `$.response`"),
        ("responses/q3_mountain/2.json", {"response": "a", "note": "b"}, "unknown field `note`"),
    ],
)
def test_a_broken_file_is_named(folder: Path, name: str, content: object, said: str) -> None:
    write(folder, name, content)
    with pytest.raises(ConfigError) as caught:
        load_prepared(folder)
    assert str(caught.value).startswith(f"{folder / name}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["catalogue.json", "responses/q3_mountain/2.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError) as caught:
        load_prepared(folder)
    assert str(caught.value) == f"{folder / name}: cannot be read: No such file or directory"


def test_a_file_that_is_no_utf8_is_named(folder: Path) -> None:
    (folder / "responses" / "q1_capital" / "0.json").write_bytes('{"response": "東京"}'.encode("shift_jis"))
    with pytest.raises(ConfigError, match=r"q1_capital/0\.json"):
        load_prepared(folder)
