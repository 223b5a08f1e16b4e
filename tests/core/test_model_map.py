"""The model map: what may stand in it, and what it means."""

from typing import Any

import pytest
from pydantic import ValidationError

from lexora.core.model_map import CacheRule, Deployment, parse_model_map
from lexora.core.usage import Usage
from lexora.providers.table import PROVIDERS

VLLM = {"provider": "vllm", "model": "up"}
OPENAI = {"provider": "openai", "model": "gpt-5"}


def parse(**fields: Any) -> Deployment:
    (found,) = (
        parse_model_map({"models": {"m": {"deployments": [{**VLLM, **fields}]}}}, PROVIDERS).models["m"].deployments
    )
    return found


def problem(data: Any) -> tuple[str, str]:
    """The path of the first mistake, and what is said of it."""
    with pytest.raises(ValidationError) as caught:
        parse_model_map(data, PROVIDERS)
    first = caught.value.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def test_everything_that_a_deployment_may_say() -> None:
    found = parse(
        base_url="https://gpu.example:8443/v1/",
        origin="paid",
        name="gpu-1",
        credential="env:GPU_KEY",
        weight=2.5,
        price={"input": 0.15, "output": 0.6, "cached_input": 0.075},
        timeouts={"connect": 1, "idle": 20, "total": 300},
        headers={"X-Team": "a"},
    )
    assert found.base_url == "https://gpu.example:8443/v1"
    assert (found.origin, found.name, found.label, found.credential) == ("paid", "gpu-1", "gpu-1", "env:GPU_KEY")
    assert (found.timeouts.connect, found.timeouts.idle, found.timeouts.total) == (1, 20, 300)
    assert found.headers == {"X-Team": "a"}


@pytest.mark.parametrize(
    ("provider", "base_url", "origin", "credential"),
    [
        ("vllm", "http://localhost:8000/v1", "own", None),
        ("ollama", "http://localhost:11434/v1", "own", None),
        ("llamacpp", "http://localhost:8080/v1", "own", None),
        ("openai", "https://api.openai.com/v1", "paid", "env:OPENAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com/v1", "paid", "env:ANTHROPIC_API_KEY"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta", "paid", "env:GEMINI_API_KEY"),
        ("huggingface", "https://router.huggingface.co/v1", "paid", "env:HF_TOKEN"),
        ("openrouter", "https://openrouter.ai/api/v1", "paid", "env:OPENROUTER_API_KEY"),
        ("groq", "https://api.groq.com/openai/v1", "paid", "env:GROQ_API_KEY"),
        ("mistral", "https://api.mistral.ai/v1", "paid", "env:MISTRAL_API_KEY"),
        ("deepseek", "https://api.deepseek.com", "paid", "env:DEEPSEEK_API_KEY"),
        ("together", "https://api.together.ai/v1", "paid", "env:TOGETHER_API_KEY"),
        ("fireworks", "https://api.fireworks.ai/inference/v1", "paid", "env:FIREWORKS_API_KEY"),
        ("xai", "https://api.x.ai/v1", "paid", "env:XAI_API_KEY"),
        ("cerebras", "https://api.cerebras.ai/v1", "paid", "env:CEREBRAS_API_KEY"),
        ("nvidia", "https://integrate.api.nvidia.com/v1", "paid", "env:NVIDIA_API_KEY"),
    ],
)
def test_what_is_left_out_is_the_providers(provider: str, base_url: str, origin: str, credential: str | None) -> None:
    found = parse(provider=provider)
    assert (found.base_url, found.origin, found.credential) == (base_url, origin, credential)
    assert found.label == f"{provider}/up"


@pytest.mark.parametrize(
    ("provider", "credential"), [("azure", "env:AZURE_OPENAI_API_KEY"), ("bedrock", None), ("openai-compatible", None)]
)
def test_a_provider_without_an_address_of_its_own_needs_one(provider: str, credential: str | None) -> None:
    place, said = problem({"models": {"m": {"deployments": [{"provider": provider, "model": "up"}]}}})
    assert place == "models.m.deployments.0.base_url"
    assert "must be an http:// or https:// URL" in said
    found = parse(provider=provider, base_url="https://up.example/v1")
    assert (found.base_url, found.origin, found.credential) == ("https://up.example/v1", "paid", credential)
    assert parse(provider=provider, base_url="https://up.example/v1", origin="own").origin == "own"


def test_every_provider_is_tested() -> None:
    with_address = {"vllm", "ollama", "llamacpp", "openai", "anthropic", "gemini", "huggingface", "openrouter", "groq"}
    with_address |= {"mistral", "deepseek", "together", "fireworks", "xai", "cerebras", "nvidia"}
    assert set(PROVIDERS) == with_address | {"azure", "bedrock", "openai-compatible"}


def test_the_order_is_kept() -> None:
    models = {"m": {"deployments": [{**VLLM, "model": name} for name in "cab"]}}
    assert [found.model for found in parse_model_map({"models": models}, PROVIDERS).models["m"].deployments] == list(
        "cab"
    )


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"provider": "vlm"}, "provider", "unknown provider 'vlm'; did you mean 'vllm'?"),
        (
            {"provider": "zzz"},
            "provider",
            "unknown provider 'zzz'; known are vllm, ollama, llamacpp, openai, anthropic",
        ),
        ({"provider": ["vllm"]}, "provider", "valid string"),
        ({"provider": None}, "provider", "valid string"),
        ({"model": ""}, "model", "at least 1 character"),
        ({"model": None}, "model", "valid string"),
        ({"base_url": "localhost:8000"}, "base_url", "http:// or https:// URL"),
        ({"base_url": "ftp://host"}, "base_url", "http:// or https:// URL"),
        ({"base_url": "http://"}, "base_url", "http:// or https:// URL"),
        ({"base_url": "http://host/v1?key=secret"}, "base_url", "http:// or https:// URL"),
        ({"base_url": "http://host:port"}, "base_url", "Port"),
        ({"base_url": "http://host:99999"}, "base_url", "Port"),
        ({"base_url": "http://[::1"}, "base_url", "IPv6"),
        ({"base_url": "http://user:pass@host"}, "base_url", "user name or password"),
        ({"base_url": "http://例え.jp"}, "base_url", "ASCII"),
        ({"base_url": "http://host\n/v1"}, "base_url", "ASCII"),
        ({"origin": "free"}, "origin", "'own' or 'paid'"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"name": "a\r\nx: y"}, "name", "pattern"),
        ({"credential": "sk-verysecret"}, "credential", "never the key itself"),
        ({"credential": "env:"}, "credential", "never the key itself"),
        ({"credential": "env:A B"}, "credential", "never the key itself"),
        ({"credential": "env:A\n"}, "credential", "never the key itself"),
        ({"weight": 0}, "weight", "greater than 0"),
        ({"weight": "heavy"}, "weight", "valid number"),
        ({"price": 5}, "price", "valid dictionary"),
        ({"price": {"input": -0.1}}, "price.input", "greater than or equal to 0"),
        ({"price": {"inputs": 1}}, "price.inputs", "Extra inputs"),
        ({"price": {"input": float("nan")}}, "price.input", "greater than or equal to 0"),
        ({"timeouts": {"total": 0}}, "timeouts.total", "greater than 0"),
        ({"timeouts": {"idle": "soon"}}, "timeouts.idle", "valid number"),
        ({"headers": {"a b": "c"}}, "headers.a b.[key]", "pattern"),
        ({"headers": {"a": "b\r\nc: d"}}, "headers.a", "pattern"),
        ({"url": "http://host"}, "url", "Extra inputs"),
    ],
)
def test_a_mistake_is_named_by_its_path(fields: dict[str, Any], path: str, said: str) -> None:
    where, what = problem({"models": {"a": {"deployments": [VLLM]}, "m": {"deployments": [VLLM, {**VLLM, **fields}]}}})
    assert where == f"models.m.deployments.1.{path}"
    assert said in what
    assert "verysecret" not in what


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ([], ""),
        ({"model": {}}, "model"),
        ({"models": []}, "models"),
        ({"models": {"": {"deployments": [VLLM]}}}, "models..[key]"),
        ({"models": {"m": None}}, "models.m"),
        ({"models": {"m": {}}}, "models.m.deployments"),
        ({"models": {"m": {"deployments": []}}}, "models.m.deployments"),
        ({"models": {"m": {"deployments": {}}}}, "models.m.deployments"),
        ({"models": {"m": {"deployments": ["vllm"]}}}, "models.m.deployments.0"),
        ({"models": {"m": {"deployments": [{"provider": "vllm"}]}}}, "models.m.deployments.0.model"),
        ({"models": {"m": {"deployments": [{"model": "up"}]}}}, "models.m.deployments.0.provider"),
        ({"models": {"m": {"deployments": [VLLM], "aliases": "a"}}}, "models.m.aliases"),
        ({"models": {"m": {"deployments": [VLLM], "alias": ["a"]}}}, "models.m.alias"),
    ],
)
def test_a_map_of_another_shape_is_named_by_the_path_as_well(data: Any, path: str) -> None:
    assert problem(data)[0] == path


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        ((["x"], ["y", "x"]), "models.b.aliases[1]: 'x' already names model 'a'"),
        ((["b"], []), "models.a.aliases[0]: 'b' already names model 'b'"),
        (([], ["b"]), "models.b.aliases[0]: 'b' already names model 'b'"),
    ],
)
def test_a_name_leads_to_one_model(aliases: tuple[list[str], list[str]], said: str) -> None:
    models = {name: {"aliases": mine, "deployments": [VLLM]} for name, mine in zip("ab", aliases, strict=True)}
    assert said in problem({"models": models})[1]


@pytest.mark.parametrize(
    ("price", "usage", "dollars"),
    [
        ({"input": 0.15, "output": 0.6}, Usage(1_000_000, 1_000_000), 0.75),
        ({"input": 2, "output": 8}, Usage(1000, 500), 0.006),
        ({"input": 2, "output": 8}, Usage(1000, 500, cached_tokens=400), 0.006),
        ({"input": 2, "output": 8, "cached_input": 0.5}, Usage(1000, 500, cached_tokens=400), 0.0054),
        ({"input": 2, "output": 8, "cached_input": 0}, Usage(1000, 0, cached_tokens=1000), 0),
        ({"input": 2}, Usage(0, 500), 0),
        ({"input": 4, "cache_write": 5}, Usage(1000, 0, cache_write_tokens=400), 0.0044),
        ({"input": 4, "cache_write": 5, "cache_write_1h": 8}, Usage(1000, 0, 0, 0, 400, 100), 0.0047),
        ({"input": 4}, Usage(1000, 0, 0, 0, 400, 100), 0.004),
        ({"input": 1, "long": {"over": 100, "input": 2, "output": 3}}, Usage(100, 10), 0.0001),
        ({"input": 1, "long": {"over": 100, "input": 2, "output": 3}}, Usage(101, 10), 0.000232),
        ({"input": 1, "cached_input": 0.5}, Usage(100, 0, cached_tokens=200), 0.0001),  # more than there were
    ],
)
def test_a_price_is_for_a_million_tokens(price: dict[str, float], usage: Usage, dollars: float) -> None:
    assert parse(price=price).cost(usage) == pytest.approx(dollars, abs=1e-12)


def test_what_is_ours_is_free_and_what_is_paid_is_unknown_without_a_price() -> None:
    usage = Usage(1000, 1000)
    assert parse().cost(usage) == 0
    assert parse(provider="openai").cost(usage) is None
    assert [parse().is_free, parse(provider="openai").is_free] == [True, False]
    assert [parse(price={"input": 1}).is_free, parse(provider="openai", price={}).is_free] == [False, True]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (True, CacheRule()),
        ({}, CacheRule()),
        ({"ttl_seconds": 0.5, "per_user": False}, CacheRule(ttl_seconds=0.5, per_user=False)),
        (False, None),
        (None, None),
    ],
)
def test_a_model_says_how_its_answers_are_cached(said: Any, found: CacheRule | None) -> None:
    assert (
        parse_model_map({"models": {"m": {"cache": said, "deployments": [VLLM]}}}, PROVIDERS).models["m"].cache == found
    )


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"ttl": 1}, "models.m.cache.ttl"),
        ({"ttl_seconds": 0}, "models.m.cache.ttl_seconds"),
        ({"ttl_seconds": 2_592_001}, "models.m.cache.ttl_seconds"),
        (60, "models.m.cache"),
    ],
)
def test_and_what_says_nothing_of_the_kind_is_refused(said: Any, place: str) -> None:
    assert problem({"models": {"m": {"cache": said, "deployments": [VLLM]}}})[0] == place
