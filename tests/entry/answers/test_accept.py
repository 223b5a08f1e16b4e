"""Drafts from review to service: `review`, `accept`, `reject`."""

import json
import os
import pty
import subprocess

import pytest

from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.answers import CAPITAL, CAPITALS, Operator
from tests.support.command import LEXORA


@pytest.fixture
def drafts(answers: Operator) -> Operator:
    """Three drafts of a new prompt, of which five are wanted."""
    answers.begin()
    assert answers("add", CAPITAL, "--id", "q1_capital").status == 0
    for number in range(3):
        answers.draft(f"q1_capital/{number}", CAPITALS[number], model="up", deployment="vllm/up")
    return answers


def test_drafts_are_shown_with_where_they_come_from(drafts: Operator) -> None:
    status, out, err = drafts("review")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("q1_capital/")] == [
        f"q1_capital/{number}  {CAPITAL}" for number in range(3)
    ]
    assert "  vllm/up\n" in out
    assert "  !" not in out
    assert "3 drafts wait for review; then lexora answers accept NAME" in err
    (second,) = json.loads(drafts("review", "q1/1", "--json").out)
    assert (second["name"], second["response"], second["model"]) == ("q1_capital/1", CAPITALS[1], "up")


def test_what_accept_would_refuse_is_shown(drafts: Operator) -> None:
    drafts.draft("q1_capital/2", CAPITALS[1].replace("です。", "である。"))
    assert "\n  ! it says nearly the same as drafts/q1_capital/1.json" in drafts("review", "q1/2").out
    drafts("accept", "q1/1")
    assert "\n  ! it says nearly the same as responses/q1_capital/0.json" in drafts("review", "q1/2").out
    drafts.draft("q1_capital/2", CAPITALS[1], replaces=0)
    assert "  !" not in drafts("review", "q1/2").out


def test_what_is_accepted_is_served_without_gaps(drafts: Operator) -> None:
    assert load_prepared(drafts.folder)[1] == {}
    status, out, err = drafts("accept", "q1_capital/2")
    assert (status, out) == (0, "q1_capital/2 is responses/q1_capital/0.json\n")
    assert "lexora reload" in err
    assert load_prepared(drafts.folder)[1] == {(CAPITAL, 0): CAPITALS[2]}
    assert drafts("check").status == 0
    assert drafts("accept", "--all").status == 0
    assert load_prepared(drafts.folder)[1] == {(CAPITAL, n): CAPITALS[k] for n, k in enumerate((2, 0, 1))}
    assert drafts.read("catalogue.json")["prompts"][0]["variants"] == 3
    # Two more are wanted still.
    assert "drafts/catalogue.json" in drafts.files()
    for number in (3, 4):
        drafts.draft(f"q1_capital/{number}", CAPITALS[number])
    assert drafts("accept", "q1").status == 0
    assert drafts.files() == ["catalogue.json", *(f"responses/q1_capital/{number}.json" for number in range(5))]
    assert (drafts.folder / "responses/q1_capital/4.json").read_bytes() == (
        SHIPPED / "responses/q1_capital/4.json"
    ).read_bytes()
    assert drafts("check").status == 0


def test_a_draft_may_take_the_place_of_what_is_served(drafts: Operator) -> None:
    drafts("accept", "--all")
    drafts.draft("q1_capital/1", CAPITALS[4], replaces=1)
    assert drafts("accept", "q1/1").out == "q1_capital/1 is responses/q1_capital/1.json\n"
    assert load_prepared(drafts.folder)[1][CAPITAL, 1] == CAPITALS[4]
    assert drafts.read("catalogue.json")["prompts"][0]["variants"] == 3


def test_a_draft_is_checked_as_the_reviewer_leaves_it(drafts: Operator) -> None:
    drafts.draft("q1_capital/0", "It is Tokyo.")
    drafts.draft("q1_capital/2", CAPITALS[1].replace("です。", "である。"))
    status, out, err = drafts("accept", "--all")
    assert (status, out) == (1, "q1_capital/1 is responses/q1_capital/0.json\n")
    assert "q1_capital/0.json is refused: it is not in the prompt's language" in err
    assert "q1_capital/2.json is refused: it says nearly the same as responses/q1_capital/0.json" in err
    assert "lexora answers reject q1_capital/2" in err
    assert "1 accepted, 2 refused" in err
    assert load_prepared(drafts.folder)[1] == {(CAPITAL, 0): CAPITALS[1]}


def test_rejected_drafts_are_gone(drafts: Operator) -> None:
    status, out, _ = drafts("reject", "q1/0", "q1/2")
    assert (status, out) == (0, "rejected q1_capital/0\nrejected q1_capital/2\n")
    assert drafts.files() == ["catalogue.json", "drafts/catalogue.json", "drafts/q1_capital/1.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("accept",), "name the drafts to accept, or give --all"),
        (("accept", "--all", "q1"), "name the drafts to accept, or give --all"),
        (("accept", "q1/9"), "there is no draft q1/9; those that wait for review: q1_capital/0, q1_capital/1, "),
        (("reject", "q2"), "there is no draft q2"),
        (("review", "nobody"), "there is no draft nobody"),
    ],
)
def test_a_draft_that_there_is_not_is_named(drafts: Operator, arguments: tuple[str, ...], said: str) -> None:
    before = drafts.files()
    status, out, err = drafts(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert drafts.files() == before


def test_on_a_terminal_each_draft_is_asked_about(drafts: Operator) -> None:
    ours, theirs = pty.openpty()
    command = [str(LEXORA), "answers", "review", "--folder", str(drafts.folder)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"a\nwhat\ns\nr\n")
        shown = b""
        while b"no more drafts" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait(10) == 0
    os.close(ours)
    assert shown.decode().count("[a]ccept, [r]eject, [s]kip, [q]uit?") == 4
    assert load_prepared(drafts.folder)[1] == {(CAPITAL, 0): CAPITALS[0]}
    assert [name for name in drafts.files() if name.startswith("drafts/q1")] == ["drafts/q1_capital/1.json"]
