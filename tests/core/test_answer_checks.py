"""What makes an answer unfit, measured on the answers that come with Lexora."""

from itertools import combinations

import pytest

from lexora.core.answer_checks import LONGEST, MOST_ALIKE, alike, answer_faults, catalogue_faults, language, repeats
from lexora.core.answers import PreparedPrompt
from lexora.entry.prepared import SHIPPED, load_prepared

_, ANSWERS = load_prepared(SHIPPED)
CAPITAL = "日本の首都はどこですか？"


@pytest.mark.parametrize(("prompt", "variant"), ANSWERS)
def test_the_shipped_answers_pass(prompt: str, variant: int) -> None:
    assert answer_faults(prompt, ANSWERS[prompt, variant]) == []


def test_the_shipped_answers_are_far_below_the_bound_of_likeness() -> None:
    highest = max(alike(one, other) for one, other in combinations(ANSWERS.values(), 2))
    assert highest < MOST_ALIKE / 3


@pytest.mark.parametrize("text", list(ANSWERS.values())[::7])
def test_an_answer_with_other_endings_or_another_order_is_the_same(text: str) -> None:
    others = text.replace("です。", "でございます。").replace("ます。", "るのです。")
    turned = "。".join(reversed(text.rstrip("。").split("。")))
    full_width = text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    for changed in (others, turned, full_width):
        assert repeats(changed, [("a", "東京です。"), ("b", text)])[0].startswith("it says nearly the same as b (")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        (" 東京です。", "it begins or ends with blanks"),
        ("東", "it has 1 characters"),
        ("東京です" * LONGEST, "it has 16000 characters"),
        ("東京\ufffdです。", "it holds characters that no text has"),
        ("東京\x00です。", "it holds characters that no text has"),
        ("東京は、", "it breaks off"),
        ("東京（関東地方の南部です。", "it breaks off"),
        ("東京です。\n```python\nprint(1)", "it breaks off"),
        ("The capital of Japan is Tokyo.", "Japanese is wanted, and it is written in Latin"),
        ("日本的首都是东京，位于关东地区。", "Japanese is wanted, and it is written in han"),
        ("일본의 수도는 도쿄입니다.", "Japanese is wanted, and it is written in hangul"),
    ],
)
def test_what_is_unfit_says_why(answer: str, fault: str) -> None:
    faults = answer_faults(CAPITAL, answer)
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What is the capital of Japan?", "Tokyo (東京)."),
        ("大さじ1杯は何mlですか？", "15"),
        ("日本の首都は？", "東京"),
        ("Pythonで表示するには？", "次のとおりです。\n```python\nfor name in names:\n    print(name)\n```"),
        ("1+1=?", "二です。"),
        ("日本首都？", "東京です。"),
        ("日本首都？", "东京。"),
        ("Какая столица Японии?", "Токио."),
        ("일본의 수도는?", "도쿄(Tokyo)입니다."),
        ("Pythonのprintとは？", "`print()` は値を表示する関数です。"),
    ],
)
def test_what_is_in_the_language_passes(prompt: str, answer: str) -> None:
    assert answer_faults(prompt, answer) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("首都はどこ", "Japanese"),
        ("日本首都", "Chinese or Japanese"),
        ("수도는", "Korean"),
        ("Où est-ce?", "Latin writing"),
        ("Где", "Cyrillic writing"),
        ("ｶﾀｶﾅ", "Japanese"),
        ("12?", ""),
    ],
)
def test_languages_are_told_by_their_writing(text: str, found: str) -> None:
    assert language(text) == found


def test_every_fault_of_a_catalogue_is_found() -> None:
    faults = catalogue_faults(
        [
            PreparedPrompt("q1_a", "One?", ["ONE!", "..."]),
            PreparedPrompt("q1_b", "Two?"),
            PreparedPrompt("q1_a", "Three?"),
            PreparedPrompt("../x", "two"),
        ]
    )
    assert [fault.partition(";")[0] for fault in faults] == [
        "q1_a: the alias 'ONE!' says the same as 'One?'",
        "q1_a: the wording '...' is empty",
        "'q1_b' and 'q1_a' share the id 'q1'",
        "'q1_a' and 'q1_a' share the id 'q1_a'",
        "'q1_a' and 'q1_a' share the id 'q1'",
        "'../x' is no id",
        "'two' stands for both 'q1_b' and '../x'",
    ]


def test_the_shipped_catalogue_has_no_fault() -> None:
    catalogue, _ = load_prepared(SHIPPED)
    assert catalogue_faults(catalogue.prompts) == []
