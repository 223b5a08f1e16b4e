"""Which prompts are proposed, and what they would have saved."""

import pytest

from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.promotion import Asked, Proposals, propose

CATALOGUE = Catalogue([PreparedPrompt("q1_capital", "日本の首都はどこですか？", ["日本の首都は？"])])


def proposals(*asked: Asked, users: int | None = 1, count: int = 1) -> Proposals:
    return propose(asked, CATALOGUE, min_count=count, min_users=users, variants=5)


def test_wordings_that_are_the_same_once_normalised_are_one_prompt() -> None:
    (found,) = proposals(
        Asked("光合成とは?", "ann", 100, 0.02),
        Asked("光合成とは？", "bob", 120, 0.03),
        Asked("光合成とは？", "ann", 80, 0.01),
        users=2,
        count=3,
    ).found
    assert (found.prompt, found.count, found.users, found.tokens) == ("光合成とは？", 3, 2, 300)
    assert found.cost_usd == pytest.approx(0.06)
    assert found.making_usd == pytest.approx(5 * 0.02)
    assert found.saved_usd == pytest.approx(0.06 - 0.10)


def test_the_dearest_come_first_then_those_with_more_tokens_then_those_asked_more_often() -> None:
    found = proposals(
        Asked("a", None, 5, 0.0),
        *[Asked("b", None, 5, 0.0)] * 2,
        Asked("c", None, 10, 0.0),
        Asked("d", None, 1, 0.1),
        Asked("e", None, 99, None),
    ).found
    assert [proposal.prompt for proposal in found] == ["d", "e", "b", "c", "a"]
    assert [proposal.unpriced for proposal in found] == [0, 1, 0, 0, 0]
    assert [proposal.suggested_id for proposal in found] == ["q2_d", "q3_e", "q4_b", "q5_c", "q6_a"]


def test_answers_that_cost_nothing_say_nothing_of_what_making_costs() -> None:
    (found,) = proposals(Asked("a", None, 5, 0.0), Asked("a", None, 5, 0.0), Asked("a", None, 5, 0.3)).found
    assert found.making_usd == pytest.approx(1.5)


def test_known_prompts_and_their_aliases_are_left_out() -> None:
    assert proposals(Asked("日本の首都は", None, 5, 0.1), Asked("日本の首都はどこですか", None, 5, 0.1)).found == []


def test_what_is_asked_too_rarely_or_is_too_long_is_left_out() -> None:
    asked = [Asked("a", None, 5, 0.1)] * 2 + [Asked("b" * 1001, None, 5, 0.1)] * 3 + [Asked("?!", None, 5, 0.1)] * 3
    assert proposals(*asked, count=3) == Proposals([], 0)


def test_what_one_user_asks_is_held_back_unless_wanted() -> None:
    asked = [Asked("a", "ann", 5, 0.1)] * 5 + [Asked("b", "ann", 5, 0.1), Asked("b", None, 5, 0.1)]
    found = proposals(*asked, users=None)
    assert ([proposal.prompt for proposal in found.found], found.of_few) == (["b"], 1)
    assert [proposal.prompt for proposal in proposals(*asked, users=1).found] == ["a", "b"]


def test_where_no_request_has_a_user_nobody_is_told_apart() -> None:
    assert len(proposals(*[Asked("a", None, 5, 0.1)] * 3, users=None).found) == 1


def test_a_prompt_that_is_close_to_a_known_one_says_so() -> None:
    near, other = proposals(Asked("韓国の首都はどこですか？", None, 9, 0.1), Asked("光合成とは？", None, 5, 0.1)).found
    assert (near.near, other.near) == ("q1_capital", None)


def test_a_ref_names_a_prompt_whatever_its_place() -> None:
    (alone,) = proposals(Asked("光合成とは?", None, 5, 0.1)).found
    _, second = proposals(Asked("a", None, 5, 0.9), Asked("光合成とは", None, 5, 0.1)).found
    assert alone.ref == second.ref


def test_ids_of_ascii_prompts_have_words() -> None:
    (found,) = proposals(Asked("What is the capital of France?", None, 5, 0.1)).found
    assert found.suggested_id == "q2_what_is_the"
