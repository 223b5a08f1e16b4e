"""The rows of the table, each through the door of a real gateway, and what models cost by their providers' lists."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lexora.core.model_map import Deployment, listed_price
from lexora.core.usage import Usage
from lexora.providers.anthropic_response import completion as anthropic_completion
from lexora.providers.table import PROVIDERS
from tests.support.client import UPSTREAM_KEY, events, post, text_of
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.recorded import DONE, RecordedUpstream, completion, finish, json_response, stream, token, usage

PRICES = json.loads((Path(__file__).parents[2] / "lexora" / "providers" / "prices.json").read_text())
ALIKE = [name for name, row in PROVIDERS.items() if type(row.dialect).__name__ == "OpenAIDialect"]


@pytest.fixture(scope="module")
def gateway(_upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Each provider that is OpenAI's like, as a model of its own name."""
    common = {"base_url": _upstream.base_url, "model": "up", "credential": "env:UPSTREAM_KEY"}
    config = models_config(**{name: {"provider": name, **common} for name in ALIKE})
    resource = _upstream.base_url.removesuffix("/v1")
    classic = {
        "provider": "azure",
        "base_url": f"{resource}/openai/deployments/my-gpt",
        "query": {"api-version": "2024-10-21"},
    }
    config["models"] |= models_config(classic={**common, **classic})["models"]
    mine = {"provider": "openai-compatible", "base_url": _upstream.base_url, "model": "up", "origin": "own"}
    config["models"] |= models_config(mine=mine)["models"]
    with running_gateway(tmp_path_factory.mktemp("table"), config, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as running:
        yield running


@pytest.mark.parametrize("provider", ALIKE)
def test_an_openai_like_provider(provider: str, upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    answer = completion("Hi")
    upstream.play([json_response(answer)], stream(token("Hi"), finish(), usage(7, 3), DONE))
    assert post(gateway, model=provider).json() == answer
    response = post(gateway, model=provider, stream=True)
    *chunks, done = events(response)
    assert (text_of(chunks), done) == ("Hi", "[DONE]")
    record = gateway.record_of(response.headers["x-request-id"])
    assert (record["provider"], record["tokens_in"], record["tokens_out"]) == (provider, 7, 3)
    assert record["origin"] == PROVIDERS[provider].origin
    for received in upstream.received:
        assert received.path == "/v1/chat/completions"
        header, secret = (
            ("api-key", UPSTREAM_KEY) if provider == "azure" else ("authorization", f"Bearer {UPSTREAM_KEY}")
        )
        assert received.headers[header] == secret
    assert len({"api-key", "authorization"} & upstream.received[0].headers.keys()) == 1


def test_azures_classic_api(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(completion("Hi"))])
    assert post(gateway, model="classic").status_code == 200
    assert upstream.received[0].path == "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    assert upstream.received[0].headers["api-key"] == UPSTREAM_KEY


def test_a_server_of_ones_own_by_a_row_of_the_config(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play([json_response(completion("Hi"))])
    response = post(gateway, model="mine")
    assert response.headers["x-lexora-origin"] == "own"
    assert gateway.record_of(response.headers["x-request-id"])["cost_usd"] == 0
    assert "authorization" not in upstream.received[0].headers


def test_mistral_takes_no_names_but_its_own(upstream: RecordedUpstream, gateway: RunningGateway) -> None:
    upstream.play(stream(token("Hi"), finish(), usage(7, 3), DONE))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = post(gateway, model="mistral", max_completion_tokens=5, seed=1, **options)
    assert events(response)[-2]["usage"]["total_tokens"] == 10
    sent = upstream.received[0].json()
    assert sent.keys() == {"model", "messages", "stream", "max_tokens", "random_seed"}
    assert (sent["max_tokens"], sent["random_seed"]) == (5, 1)


# --- prices ---


def price(provider: str, model: str) -> Any:
    data = {"provider": provider, "model": model}
    return Deployment.model_validate(data, context=PROVIDERS)


# Anthropic's examples are on https://platform.claude.com/docs/en/about-claude/pricing (a coding session with Opus, with
# and without a cache, less its hour of $0.08), OpenAI's usage on https://platform.openai.com/docs/guides/prompt-caching,
# its rule for long prompts on https://developers.openai.com/api/docs/models/gpt-6-sol.
PUBLISHED = [
    ("anthropic", "claude-opus-4-6", Usage(50_000, 15_000), 0.705 - 0.08),
    ("anthropic", "claude-opus-4-6", Usage(50_000, 15_000, cached_tokens=40_000), 0.525 - 0.08),
    ("anthropic", "claude-fable-5-2", Usage(100_000, 1000, cached_tokens=90_000), 0.08 + 0.018 + 0.04),
    ("openai", "gpt-4o-2024-08-06", Usage(2006, 300, cached_tokens=1920), (86 * 2.5 + 1920 * 1.25 + 300 * 10) / 1e6),
    ("openai", "gpt-6-sol", Usage(272_000, 1000), 0.544 + 0.01),
    ("openai", "gpt-6-sol", Usage(272_001, 1000), 2 * 0.544002 + 1.5 * 0.01),
    ("gemini", "gemini-2.5-pro", Usage(200_000, 1000), 0.25 + 0.01),
    ("gemini", "gemini-2.5-pro", Usage(200_001, 1000), 0.5000025 + 0.015),
]


@pytest.mark.parametrize(("provider", "model", "tokens", "dollars"), PUBLISHED)
def test_costs_equal_the_providers_examples(provider: str, model: str, tokens: Usage, dollars: float) -> None:
    assert price(provider, model).cost(tokens) == pytest.approx(dollars, abs=1e-9)


def test_a_cache_write_costs_what_anthropic_says() -> None:
    """1,000 fresh tokens, 2,000 read from the cache, 3,000 written to it, 1,000 of them for an hour; Sonnet 5.5."""
    counts = {
        "input_tokens": 1000,
        "cache_read_input_tokens": 2000,
        "cache_creation_input_tokens": 3000,
        "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
        "output_tokens": 500,
    }
    message = {"id": "msg_1", "model": "claude-sonnet-5-5", "content": [], "usage": counts}
    found = anthropic_completion(json.dumps(message).encode(), 0).usage
    assert found is not None
    dollars = (1000 * 2 + 2000 * 0.1 + 2000 * 2.5 + 1000 * 4 + 500 * 10) / 1e6
    assert price("anthropic", "claude-sonnet-5-5").cost(found) == pytest.approx(dollars, abs=1e-12)


def test_the_list_says_when_and_where_it_was_read() -> None:
    assert PRICES["read"] == "2026-11-25"
    assert (
        PRICES["sources"].keys() == PRICES["prices"].keys() == {name for name, row in PROVIDERS.items() if row.prices}
    )
    for provider, listed in PRICES["prices"].items():
        assert all("https://" in source or source.startswith("gemini-") for source in PRICES["sources"][provider])
        for model, found in listed.items():
            assert PROVIDERS[provider].prices[model].model_dump(exclude_unset=True) == found
            assert found["input"] > found.get("cached_input", 0)
            assert model.startswith("text-embedding-") or found["output"] > found["input"]


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gpt-4o-mini", True),
        ("gpt-4o-mini-2024-07-18", True),
        ("gpt-4o-mini-audio", False),
        ("gpt-4o-mini-2024", False),
        ("GPT-4o-mini", False),
    ],
)
def test_a_snapshot_costs_what_its_model_costs(model: str, known: bool) -> None:
    prices = PROVIDERS["openai"].prices
    assert (listed_price(prices, model) is prices["gpt-4o-mini"]) is known
    assert (listed_price(prices, model) is None) is not known


def test_a_snapshot_with_a_price_of_its_own_has_that() -> None:
    assert price("openai", "gpt-4o-2024-05-13").price.input == 5


def test_the_model_map_comes_before_the_list() -> None:
    def parse(**fields: Any) -> Deployment:
        return Deployment.model_validate({"provider": "openai", "model": "gpt-4o", **fields}, context=PROVIDERS)

    tokens = Usage(1_000_000, 0)
    assert parse().cost(tokens) == 2.5
    assert parse(price={"input": 9}).cost(tokens) == 9
    assert parse(price=None).cost(tokens) == 2.5
    assert parse(origin="own").cost(tokens) == 0
    assert parse(origin="own").is_free
    assert not parse().is_free
    assert parse(model="gpt-of-tomorrow").cost(tokens) is None
