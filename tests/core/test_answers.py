"""Known prompts, however they are written."""

import re
import unicodedata
from collections.abc import Callable

import pytest

from lexora.core.answers import Catalogue, PreparedPrompt, normalise
from lexora.entry.prepared import SHIPPED, load_prepared

CATALOGUE, ANSWERS = load_prepared(SHIPPED)
WORDINGS = [(entry.id, wording) for entry in CATALOGUE.prompts for wording in (entry.prompt, *entry.aliases)]

FULL_WIDTH = {ord(" "): "\u3000", **{code: code + 0xFEE0 for code in range(0x21, 0x7F)}}
# Half-width katakana: each is what NFKC makes the full-width form from, voiced ones in two characters.
HALF_WIDTH = {
    unicodedata.normalize("NFKC", kana + mark): kana + mark
    for kana in map(chr, range(0xFF61, 0xFF9E))
    for mark in ("", "ﾞ", "ﾟ")
    if len(unicodedata.normalize("NFKC", kana + mark)) == 1
}


def full_width(text: str) -> str:
    return text.translate(FULL_WIDTH)


def half_width(text: str) -> str:
    return "".join(HALF_WIDTH.get(char, char) for char in unicodedata.normalize("NFKC", text))


def test_the_shipped_catalogue_has_ten_prompts_with_five_answers_each() -> None:
    assert len(CATALOGUE.prompts) == 10
    assert {entry.variants for entry in CATALOGUE.prompts} == {5}
    assert len(ANSWERS) == len(set(ANSWERS.values())) == 50
    for entry in CATALOGUE.prompts:
        files = sorted(path.name for path in (SHIPPED / "responses" / entry.id).iterdir())
        assert files == [f"{variant}.json" for variant in range(5)]


def test_the_two_ways_to_write_katakana_differ() -> None:
    """Else the test below would test nothing."""
    assert half_width("Pythonのリストとタプル") == "Pythonのﾘｽﾄとﾀﾌﾟﾙ"
    assert full_width("BMI?") == "ＢＭＩ？"


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(str, id="as it stands"),
        pytest.param(full_width, id="full width"),
        pytest.param(half_width, id="half width"),
        pytest.param(str.lower, id="lower case"),
        pytest.param(str.upper, id="upper case"),
        pytest.param(lambda text: unicodedata.normalize("NFD", text), id="decomposed"),
        pytest.param(lambda text: f"  \t{text}\n", id="space around it"),
        pytest.param(lambda text: f"\u3000{text}\u3000", id="ideographic space around it"),
        pytest.param(lambda text: " " * 500 + text + "\n" * 500, id="much space around it"),
        pytest.param(lambda text: text.rstrip("？"), id="no mark"),
        pytest.param(lambda text: text.rstrip("？") + "?", id="half-width mark"),
        pytest.param(lambda text: text + "？！", id="more marks"),
        pytest.param(lambda text: text.rstrip("？") + "。", id="full stop"),
        pytest.param(lambda text: text.rstrip("？") + "｡", id="half-width full stop"),
        pytest.param(lambda text: text + "…", id="ellipsis"),
        pytest.param(lambda text: text + " ?", id="a space before the mark"),
    ],
)
def test_every_wording_is_known_however_it_is_written(written: Callable[[str], str]) -> None:
    for prompt_id, wording in WORDINGS:
        found = CATALOGUE.match(written(wording))
        assert found is not None, wording
        assert found.id == prompt_id


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "？",
        " ",
        "日本の首都はどこですか？東京ですか？",
        "ところで、日本の首都はどこですか？",
        "日本の首都",
        "日本の首 都はどこですか",
        "韓国の首都はどこですか？",
        "BM Iの計算式は？",
        "日本の首都はどこですか？" * 1000,
        "a" * 1_000_000,
    ],
)
def test_what_is_not_a_wording_is_not_known(prompt: str) -> None:
    assert CATALOGUE.match(prompt) is None


def test_an_empty_catalogue_knows_nothing() -> None:
    assert Catalogue.empty().match("") is None
    assert Catalogue.empty().by_id("q1") is None


@pytest.mark.parametrize("entry", CATALOGUE.prompts, ids=lambda entry: entry.id)
def test_an_id_may_be_shortened_to_its_number(entry: PreparedPrompt) -> None:
    assert CATALOGUE.by_id(entry.id) is CATALOGUE.by_id(entry.id.partition("_")[0]) is entry
    assert CATALOGUE.by_id(entry.id + "x") is None


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (PreparedPrompt("q1_a", "Different?"), "share the id 'q1_a'"),
        (PreparedPrompt("q1_b", "Different?"), "share the id 'q1'"),
        (PreparedPrompt("q1", "Different?"), "share the id 'q1'"),
        (PreparedPrompt("q2", "WHY"), "'WHY' stands for both 'q1_a' and 'q2'"),
        (PreparedPrompt("q2", "Different?", aliases=["How  come?"]), "'How  come?' stands for both"),
    ],
)
def test_two_entries_cannot_share_an_id_or_a_wording(second: PreparedPrompt, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        Catalogue([PreparedPrompt("q1_a", "Why?", aliases=["how come"]), second])


def test_normalised_text_stays_as_it_is() -> None:
    for _, wording in WORDINGS:
        assert normalise(normalise(wording)) == normalise(wording)
