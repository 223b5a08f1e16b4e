"""Estimates of tokens, where nobody has counted."""

import pytest

from lexora.core.usage import estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("four", 1),
        ("five!", 2),
        ("a" * 400, 100),
        ("日本", 2),
        ("日本の首都はどこですか？", 12),
        ("Pythonのリスト", 4 + 2),
        ("é", 1),
        ("\x7f", 1),
    ],
)
def test_four_ascii_characters_or_one_other_make_a_token(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
