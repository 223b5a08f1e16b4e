"""Estimates: bounds at first, and what they learn."""

import json
from typing import Any

import pytest

from lexora.core.chat import ChatRequest, parse_chat_request
from lexora.core.estimates import Estimates, cost_bound, nanodollars
from lexora.core.model_map import Price
from lexora.core.usage import Usage


def request(text: Any = "日本の首都は？", **fields: Any) -> ChatRequest:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    return parse_chat_request(json.dumps(body, ensure_ascii=False).encode())


def prompt(estimates: Estimates, label: str, asked: ChatRequest) -> int:
    return estimates.bounds(label, asked)[0]


def completion(estimates: Estimates, label: str, asked: ChatRequest) -> int:
    return estimates.bounds(label, asked)[1]


def test_a_prompt_has_no_more_tokens_than_bytes_until_more_is_known() -> None:
    estimates, asked = Estimates(), request("x" * 1000)
    assert 1000 < prompt(estimates, "m", asked) < 1100
    estimates.learn("m", asked, Usage(208, 5))
    assert 208 <= prompt(estimates, "m", asked) < 300
    assert prompt(estimates, "other", asked) > 1000
    for _ in range(3):
        estimates.learn("m", request("x" * 1000), Usage(20, 5))
    assert prompt(estimates, "m", asked) > 190  # forgets slowly
    estimates.learn("m", asked, Usage(10**30, 5))
    assert prompt(estimates, "m", asked) < 1100


def test_whatever_may_be_part_of_the_prompt_counts() -> None:
    estimates = Estimates()
    plain = prompt(estimates, "m", request())
    assert prompt(estimates, "m", request(tools=[{"type": "function", "x": "y" * 500}])) > plain + 500
    assert prompt(estimates, "m", request(system="y" * 500)) > plain + 500
    assert prompt(estimates, "m", request([{"type": "refusal", "refusal": "y" * 500}])) > plain + 500


def test_images_sound_and_files_are_not_measured_as_text() -> None:
    estimates = Estimates()
    data = "data:" + "x" * 99_999
    image = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": data}}]
    assert 1600 < prompt(estimates, "m", request(image)) < 1800
    file = [{"type": "file", "file": {"file_data": data}}]
    assert 6_000 < prompt(estimates, "m", request(file)) < 7_000
    sound = [{"type": "input_audio", "input_audio": {"data": "x"}}, *image]
    assert 3200 < prompt(estimates, "m", request(sound)) < 3500


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 16}, 16),
        ({"max_tokens": 16, "max_completion_tokens": 5}, 16),
        ({"max_tokens": 5, "max_completion_tokens": 16}, 16),
        ({"max_tokens": 16, "max_completion_tokens": None}, 16),
        ({"max_tokens": 16, "n": 3}, 48),
        ({}, 4096),
        ({"n": 2}, 8192),
        ({"max_tokens": -1}, 4096),
        ({"max_tokens": None}, 4096),
        ({"max_tokens": 10**15}, 10**12),
    ],
)
def test_an_answer_is_as_long_as_the_request_allows(fields: dict[str, Any], expected: int) -> None:
    assert completion(Estimates(), "m", request(**fields)) == expected


def test_the_length_of_answers_is_learned() -> None:
    estimates = Estimates()
    estimates.learn("m", request(), Usage(5, 10))
    assert completion(estimates, "m", request()) == 256
    estimates.learn("m", request(n=2), Usage(5, 2000))
    assert completion(estimates, "m", request()) == 1500
    estimates.learn("m", request(), Usage(5, 10))
    assert 1400 < completion(estimates, "m", request()) < 1500


def test_an_answer_is_as_long_as_its_provider_is_told() -> None:
    estimates = Estimates({"told": 16_384, "other": 0}.__getitem__)

    def bound(provider: str, **fields: Any) -> int:
        return estimates.bounds("m", request(**fields), provider)[1]

    assert [bound("told"), bound("other"), bound("told", max_tokens=5)] == [16_384, 4096, 5]
    estimates.learn("m", request(), Usage(5, 10))
    assert [bound("told"), bound("other")] == [16_384, 256]


def test_money_is_rounded_up_to_whole_nanodollars() -> None:
    assert [nanodollars(usd) for usd in (0, 0.000123, 1.0, 1e-10, -1.0)] == [0, 123_000, 10**9, 1, 0]
    assert cost_bound(Price(input=0.15, output=0.6), 10, 100) == 61_500


def test_the_bound_holds_for_the_dearest_kind_of_prompt() -> None:
    assert cost_bound(Price(input=1, cached_input=0.1, cache_write=2, cache_write_1h=3), 10, 0) == 30_000
    long = {"over": 9, "input": 4, "output": 5}
    price = Price.model_validate({"input": 1, "output": 1, "long": long})
    assert [cost_bound(price, tokens, 10) for tokens in (9, 10)] == [19_000, 90_000]
