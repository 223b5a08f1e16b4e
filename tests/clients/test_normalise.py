"""The clients know a prompt however it is written, by the same rule as the gateway."""

import gzip
import json
import unicodedata
from pathlib import Path

import lexora_answers
import pytest

from lexora.core import answers
from lexora.entry.prepared import PAGE
from tests.clients.callers import NodeCaller

# Each pair: what somebody writes, and the form in which it is compared.
NASTY = [tuple(pair) for pair in json.loads(Path(__file__).with_name("nasty.json").read_text())]
ASSIGNED = [
    chr(code)
    for code in range(0x110000)
    if unicodedata.category(chr(code)) not in ("Cn", "Cs")  # newer versions of Unicode have more
]


def test_the_core_compares_so() -> None:
    assert [(written, answers.normalise(written)) for written, _ in NASTY] == NASTY


def test_python_compares_so() -> None:
    assert [(written, lexora_answers.normalise(written)) for written, _ in NASTY] == NASTY


def test_javascript_compares_so(node: NodeCaller) -> None:
    assert list(zip([written for written, _ in NASTY], node.normalise([it for it, _ in NASTY]), strict=True)) == NASTY


@pytest.mark.parametrize("around", ["a{}b", "Σ{}", "{}́"], ids=["within a word", "at the end", "under an accent"])
def test_what_is_the_same_to_the_core_is_the_same_to_javascript(node: NodeCaller, around: str) -> None:
    """Of every character. The forms themselves may differ: Cherokee is upper case to Python, lower to JavaScript."""
    written = [around.format(char) for char in ASSIGNED]
    assert _same(written, node.normalise(written)) == _same(written, [answers.normalise(it) for it in written])


def _same(written: list[str], forms: list[str]) -> list[str]:
    """For each text, the first one that has its form."""
    first: dict[str, str] = {}
    return [first.setdefault(form, text) for text, form in zip(written, forms, strict=True)]


def test_the_module_is_small_and_needs_no_other() -> None:
    module = (PAGE / "lexora-answers.js").read_bytes()
    assert len(gzip.compress(module)) <= 2048
    assert b"import" not in module
