"""`lexora answers check`."""

import json
from pathlib import Path
from typing import Any

import pytest

from lexora.entry.prepared import SHIPPED
from tests.support.answers import CAPITAL, CAPITALS, Operator
from tests.support.command import LEXORA, run


def test_what_comes_with_lexora_passes(tmp_path: Path) -> None:
    status, out, err = run(LEXORA, "answers", "check", folder=tmp_path)
    assert (status, out) == (0, "")
    assert err == f"{SHIPPED}: 50 answers to 10 prompts, 0 drafts: no mistakes\n"


Q1 = "responses/q1_capital"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (f"{Q1}/0.json", '{"response": "a"', "Input data was truncated; mend it by hand"),
        (f"{Q1}/0.json", {"response": "Tokyo is the capital."}, "it is not in the prompt's language"),
        (f"{Q1}/0.json", {"response": ""}, "it is empty; rewrite it, or ask for another"),
        (f"{Q1}/3.json", {"response": CAPITALS[0]}, "the same as responses/q1_capital/0.json (100% alike)"),
        (f"{Q1}/3.json", {"response": "東京は、"}, "lexora answers generate --ids q1_capital/3"),
        (f"{Q1}/5.json", {"response": "東京です。"}, "is not served; the catalogue gives q1_capital 5 variants"),
        (f"{Q1}/note.txt", "", "is not served"),
        ("responses/q77/0.json", {"response": "a"}, "no such id; remove it, or add the prompt: lexora answers add"),
        ("drafts/q77/0.json", {}, "no catalogue has a prompt of that id"),
        ("drafts/q1_capital/x.json", {}, "is no draft; remove it, or name it by a number"),
        ("drafts/q1_capital/07.json", {}, "is no draft; remove it, or name it by a number"),
        ("drafts/q1_capital/7.json", {"response": "東京です。"}, "missing required field `prompt`"),
        (
            "drafts/q1_capital/7.json",
            {"prompt": CAPITAL, "response": "Tokyo."},
            "lexora answers reject q1_capital/7 && lexora answers generate",
        ),
        ("drafts/q1_capital/7.json", {"prompt": "光合成とは", "response": "東京です。"}, "no longer the prompt"),
        ("drafts/catalogue.json", {"prompts": [{"id": "q1", "prompt": "光"}]}, "share the id 'q1'; give one"),
        ("drafts/catalogue.json", {"prompts": [{"id": "q11", "prompt": CAPITAL}]}, "stands for both 'q1_capital' and"),
        ("catalogue.json", {"prompts": [{"id": "a"}]}, "missing required field `prompt`"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_its_mend(answers: Operator, name: str, content: Any, said: str) -> None:
    answers.copy_shipped()
    file = answers.write(name, content)
    status, out, err = answers("check")
    assert status == 1
    at_fault = [line for line in out.splitlines() if line.startswith((f"{file}: ", f"{file.parent}: "))]
    assert len(at_fault) == 1, out
    assert said in at_fault[0]
    assert "mistake" in err


def test_hidden_files_are_no_answers(answers: Operator) -> None:
    """As a file manager makes them, and as a write that was cut off leaves them."""
    answers.copy_shipped()
    answers.write(f"{Q1}/.0.json.new", "{")
    answers.write("responses/q77/.DS_Store", "")
    assert answers("check").status == 0


def test_a_missing_answer_is_named(answers: Operator) -> None:
    answers.copy_shipped()
    (answers.folder / Q1 / "4.json").unlink()
    status, out, _ = answers("check", "--json")
    (finding,) = json.loads(out)["findings"]
    assert (status, finding["file"]) == (1, str(answers.folder / Q1 / "4.json"))
    assert "lexora answers generate --ids q1_capital" in finding["mend"]


def test_a_folder_without_a_catalogue_is_no_mistake_of_the_answers(answers: Operator) -> None:
    status, out, err = answers("check")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "name the folder of one with --folder" in err
