"""`lexora answers add`."""

import shutil
from pathlib import Path

import pytest

from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.answers import Operator


def test_a_new_prompt_waits_for_its_answers(answers: Operator) -> None:
    answers.copy_shipped()
    status, out, err = answers(
        "add", "フランスの首都は？", "--id", "q11_france", "--alias", "仏の首都", "--variants", "3"
    )
    assert (status, out) == (0, "added q11_france: フランスの首都は？\n")
    assert "lexora answers generate --ids q11_france" in err
    new = {"id": "q11_france", "prompt": "フランスの首都は？", "aliases": ["仏の首都"], "variants": 3}
    assert answers.read("drafts/catalogue.json") == {"prompts": [new]}
    assert len(load_prepared(answers.folder)[1]) == 50  # a gateway is not disturbed
    assert answers("check").status == 0


def test_an_alias_changes_one_line_of_the_catalogue(answers: Operator) -> None:
    answers.copy_shipped()
    assert answers("add", "--id", "q9", "--alias", "BMIとは").status == 0
    before = (SHIPPED / "catalogue.json").read_text().splitlines()
    after = (answers.folder / "catalogue.json").read_text().splitlines()
    assert [line for line in after if line not in before] == [
        '        "BMIはどのように計算するのですか？",',
        '        "BMIとは"',
    ]
    assert len(after) == len(before) + 1
    found = load_prepared(answers.folder)[0].match("bmiとは？")
    assert found is not None
    assert found.id == "q9_bmi"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("日本の首都は", "--id", "q11"), "stands for both 'q1_capital' and 'q11'"),
        (("光とは", "--id", "q1_capital"), "lexora answers add --id q1_capital --alias '光とは'"),
        (("光とは", "--id", "q1"), "share the id 'q1'"),
        (("光とは", "--id", "../q11"), "is no id"),
        (("?", "--id", "q11"), "is empty"),
        (("光とは", "--id", "q11", "--alias", "光とは？"), "says the same as '光とは'"),
        (("--id", "q11", "--alias", "光とは"), "there is no prompt q11; ids are q1_capital, "),
        (("--id", "q1", "--alias", "光合成とは"), "stands for both"),
        (("--id", "q1"), "nothing to add"),
        (("光とは", "--id", "q11", "--variants", "0"), "give one from 1 to 100"),
    ],
)
def test_what_cannot_be_added_is_refused(answers: Operator, arguments: tuple[str, ...], said: str) -> None:
    answers.copy_shipped()
    before = answers.files()
    status, out, err = answers("add", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert answers.files() == before
    assert (answers.folder / "catalogue.json").read_bytes() == (SHIPPED / "catalogue.json").read_bytes()


def test_an_installed_package_is_not_written_to(answers: Operator, tmp_path: Path) -> None:
    installed = tmp_path / "lib" / "python3" / "site-packages" / "static_responses"
    shutil.copytree(SHIPPED, installed)
    answers.folder = installed
    status, _, err = answers("add", "光とは", "--id", "q11")
    assert (status, err.count("\n")) == (2, 1)
    assert f"copy it (cp -r {installed} static_responses)" in err
    assert not (installed / "drafts").exists()
    assert answers("check").status == 0
