"""From a model's name to the deployments that may answer."""

from collections import Counter
from typing import Any

import pytest

from lexora.core.errors import InvalidRequest, ModelNotFound, NoModelConnected
from lexora.core.model_map import Deployment, Price, parse_model_map
from lexora.core.routing import Routes, Wildcard
from lexora.providers.table import PROVIDERS


def deployment(model: str, **fields: Any) -> dict[str, Any]:
    return {"provider": "vllm", "model": model, **fields}


def routes(models: dict[str, Any], **options: Any) -> Routes:
    return Routes(parse_model_map({"models": models}, PROVIDERS).models, **options)


def models_of(deployments: list[Deployment]) -> list[str]:
    return [found.model for found in deployments]


TWO = {
    "chat": {"aliases": ["gpt-4o-mini", "default"], "deployments": [deployment("a"), deployment("b")]},
    "code": {"deployments": [deployment("c")]},
}


@pytest.mark.parametrize("name", ["chat", "gpt-4o-mini", "default"])
def test_a_name_and_its_aliases_lead_to_the_deployments_in_order(name: str) -> None:
    assert models_of(routes(TWO).order(name)) == ["a", "b"]


def test_names_are_listed_in_the_order_of_the_map() -> None:
    assert routes(TWO).names == ["chat", "gpt-4o-mini", "default", "code"]


@pytest.mark.parametrize(("default", "found"), [(None, ["a", "b"]), ("code", ["c"]), ("default", ["a", "b"])])
@pytest.mark.parametrize("asked", [None, ""])
def test_without_a_model_the_default_answers(asked: str | None, default: str | None, found: list[str]) -> None:
    assert models_of(routes(TWO, default_model=default).order(asked)) == found


def test_an_unknown_model_is_not_found_and_the_known_are_named() -> None:
    with pytest.raises(ModelNotFound) as caught:
        routes(TWO).order("Chat")
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")
    assert "'Chat'" in caught.value.message
    assert "chat, gpt-4o-mini, default, code" in caught.value.message


def test_with_nothing_connected_the_error_says_how_to_connect() -> None:
    with pytest.raises(NoModelConnected) as caught:
        routes({}).order("chat")
    assert caught.value.status == 503
    for way in ("8000", "11434", "8080", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MODEL=", "CONFIG="):
        assert way in caught.value.message


def test_a_wildcard_stands_behind_the_listed_names() -> None:
    openai = Deployment.model_validate({"provider": "openai", "model": "*"}, context=PROVIDERS)
    anthropic = Deployment.model_validate({"provider": "anthropic", "model": "*"}, context=PROVIDERS)
    wildcards = (Wildcard("gpt-[0-9]*", openai), Wildcard("claude-*", anthropic))
    found = routes(TWO, wildcards=wildcards)
    assert models_of(found.order("gpt-4o-mini")) == ["a", "b"]  # an alias of ours
    (deployment,) = found.order("gpt-5")
    assert (deployment.provider, deployment.model, deployment.origin) == ("openai", "gpt-5", "paid")
    assert found.order("claude-x")[0].provider == "anthropic"
    with pytest.raises(ModelNotFound):
        found.order("gpt-image")


def test_what_a_wildcards_models_cost_depends_on_their_names() -> None:
    openai = Deployment.model_validate({"provider": "openai", "model": "*"}, context=PROVIDERS)
    prices = {"gpt-1": Price(input=1)}
    found = routes({}, wildcards=(Wildcard("gpt-*", openai, prices.get),))
    assert [found.order(name)[0].price for name in ("gpt-1", "gpt-2")] == [Price(input=1), None]


def test_with_wildcards_alone_there_is_no_default() -> None:
    openai = Deployment.model_validate({"provider": "openai", "model": "*"}, context=PROVIDERS)
    with pytest.raises(InvalidRequest) as caught:
        routes({}, wildcards=(Wildcard("gpt-*", openai),)).order(None)
    assert (caught.value.status, caught.value.param) == (400, "model")


def test_weights_share_the_first_place() -> None:
    """Every thousandth of the chooser's range once, so the shares are exact."""
    weighted = [deployment("a", weight=3), deployment("b", weight=1), deployment("c"), deployment("d", weight=0.5)]
    split = routes({"m": {"deployments": weighted}})
    orders = Counter(tuple(models_of(split.order("m", lambda point=i / 900: point))) for i in range(900))
    assert orders == {("a", "b", "c", "d"): 600, ("b", "a", "c", "d"): 200, ("d", "a", "b", "c"): 100}


def test_a_chooser_at_its_very_end_still_gives_an_order() -> None:
    weighted = [deployment("a", weight=0.1), deployment("b", weight=0.2)]
    split = routes({"m": {"deployments": weighted}})
    assert sorted(models_of(split.order("m", lambda: 1.0))) == ["a", "b"]


def test_without_weights_the_order_is_that_of_the_map() -> None:
    assert {tuple(models_of(routes(TWO).order("chat"))) for _ in range(50)} == {("a", "b")}
