"""How a model is asked for a variant."""

import pytest

from lexora.core.answer_drafts import answer_of, draft_messages


@pytest.mark.parametrize(("prompt", "words"), [("首都は？", "日本語で"), ("Which capital?", "in the language")])
def test_it_is_asked_in_the_prompts_language_and_is_no_lone_prompt(prompt: str, words: str) -> None:
    system, user = draft_messages(prompt, [])
    assert (system["role"], user) == ("system", {"role": "user", "content": prompt})
    assert words in system["content"]


def test_it_is_shown_what_there_is_already() -> None:
    system, _ = draft_messages("首都は？", ["東京です。", "答えは東京。"])
    assert system["content"].endswith("\n\n1. 東京です。\n\n2. 答えは東京。")


@pytest.mark.parametrize(
    "content",
    [
        "東京です。",
        " 東京です。\n",
        "<think>\nHm.\n</think>\n\n東京です。",
        "Hm.\n</think>\n\n東京です。",  # of models whose template has written the first tag itself
    ],
)
def test_thoughts_are_no_part_of_an_answer(content: str) -> None:
    assert answer_of(content) == "東京です。"


def test_thoughts_that_have_no_end_are_no_answer() -> None:
    assert answer_of("<think>\n東京かな。") == ""
