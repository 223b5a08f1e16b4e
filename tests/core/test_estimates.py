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


def test_a_prompt_has_no_more_tokens_than_bytes_until_more_is_known() -> None:
    estimates, asked = Estimates(), request("x" * 1000)
    assert 1000 < estimates.prompt("m", asked) < 1100
    estimates.learn("m", asked, Usage(208, 5))
    assert 208 <= estimates.prompt("m", asked) < 300
    assert estimates.prompt("other", asked) > 1000
    for _ in range(3):
        estimates.learn("m", request("x" * 1000), Usage(20, 5))
    assert estimates.prompt("m", asked) > 190  # forgets slowly
    estimates.learn("m", asked, Usage(10**30, 5))
    assert estimates.prompt("m", asked) < 1100


def test_tools_and_images_count() -> None:
    estimates = Estimates()
    plain = estimates.prompt("m", request())
    assert estimates.prompt("m", request(tools=[{"type": "function", "x": "y" * 500}])) > plain + 500
    image = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:" + "x" * 9999}}]
    assert 1600 < estimates.prompt("m", request(image)) < 1700


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 16}, 16),
        ({"max_tokens": 16, "max_completion_tokens": 5}, 5),
        ({"max_tokens": 16, "n": 3}, 48),
        ({}, 4096),
        ({"n": 2}, 8192),
        ({"max_tokens": -1}, 4096),
        ({"max_tokens": "many"}, 4096),
        ({"max_tokens": None}, 4096),
        ({"max_tokens": 10**30}, 10**12),
    ],
)
def test_an_answer_is_as_long_as_the_request_allows(fields: dict[str, Any], expected: int) -> None:
    assert Estimates().completion("m", request(**fields)) == expected


def test_the_length_of_answers_is_learned() -> None:
    estimates = Estimates()
    estimates.learn("m", request(), Usage(5, 10))
    assert estimates.completion("m", request()) == 256
    estimates.learn("m", request(n=2), Usage(5, 2000))
    assert estimates.completion("m", request()) == 1500
    estimates.learn("m", request(), Usage(5, 10))
    assert 1400 < estimates.completion("m", request()) < 1500


def test_money_is_rounded_up_to_whole_nanodollars() -> None:
    assert [nanodollars(usd) for usd in (0, 0.000123, 1.0, 1e-10, -1.0)] == [0, 123_000, 10**9, 1, 0]
    assert cost_bound(Price(input=0.15, output=0.6), 10, 100) == 61_500
