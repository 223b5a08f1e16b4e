"""docs/answers.md: the commands that it shows are there."""

import argparse
import re

import pytest

from lexora.entry.answers import ACTIONS, add_actions
from tests.support.gateway import ROOT

PAGE = (ROOT / "docs" / "answers.md").read_text()


def test_every_action_is_told_and_there() -> None:
    assert set(re.findall(r"lexora answers ([a-z]+)", PAGE)) == set(ACTIONS)


def test_every_option_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    helped = ""
    for action in ACTIONS:
        parser = argparse.ArgumentParser()
        add_actions(parser, [])
        with pytest.raises(SystemExit):
            parser.parse_args([action, "--help"])
        helped += capsys.readouterr().out
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert len(told) > 10
    assert told <= set(re.findall(r"--[a-z][a-z-]+", helped))
