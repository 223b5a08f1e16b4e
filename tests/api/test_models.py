"""GET /v1/models and /v1/models/{id}, as the SDK reads them."""

from urllib.parse import quote

import httpx2
import openai
import pytest
from openai.types import Model

from tests.support.client import sdk
from tests.support.gateway import RunningGateway

NAMES = ["chat", "gpt-4o-mini", "日本語", "org/chat"]


def test_every_name_and_alias_is_listed_in_the_order_of_the_config(site: RunningGateway) -> None:
    with sdk(site) as client:
        models = list(client.models.list())
    assert [model.id for model in models] == NAMES
    assert [model.owned_by for model in models] == ["vllm", "vllm", "vllm", "openai"]


def test_the_list_is_of_openais_form(web: httpx2.Client) -> None:
    body = web.get("/v1/models").json()
    assert set(body) == {"object", "data"}
    assert body["object"] == "list"
    for model in body["data"]:
        parsed = Model.model_validate(model, strict=True)
        assert parsed.to_dict() == model
        assert parsed.object == "model"
        assert parsed.created > 1_700_000_000


@pytest.mark.parametrize("name", NAMES)
def test_every_one_of_them_can_be_retrieved(site: RunningGateway, web: httpx2.Client, name: str) -> None:
    listed = {model["id"]: model for model in web.get("/v1/models").json()["data"]}
    assert web.get(f"/v1/models/{quote(name, safe='')}").json() == listed[name]
    assert web.get(f"/v1/models/{quote(name)}").json() == listed[name]
    with sdk(site) as client:
        assert client.models.retrieve(name).id == name


@pytest.mark.parametrize("name", ["nope", "Chat", "chat/", "org", "org/chat/x", "up", "*"])
def test_what_is_not_listed_is_not_found(site: RunningGateway, name: str) -> None:
    with sdk(site) as client, pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_real_model_is_listed_by_its_name_and_alias(gateway: RunningGateway) -> None:
    with sdk(gateway) as client:
        assert [(model.id, model.owned_by) for model in client.models.list()] == [
            ("tiny-chat", "llamacpp"),
            ("tiny", "llamacpp"),
        ]
