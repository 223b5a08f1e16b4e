"""How what model servers say of their models reads, whatever that is."""

import json
from typing import Any

import pytest

from lexora.core.errors import InvalidRequest
from lexora.providers.operations import GOALS, SERVERS, Action, Facts, State, outgoing, plan
from lexora.providers.table import PROVIDERS


def read(provider: str, *bodies: Any, model: str = "m") -> Facts:
    return SERVERS[provider].read([None if body is None else json.dumps(body).encode() for body in bodies], model)


def vllm(*ids: str, parent: str | None = None) -> dict[str, Any]:
    return {"data": [{"id": each, "parent": parent} for each in ids]}


def llamacpp(value: str | None, **more: Any) -> dict[str, Any]:
    card = {"id": "m", "aliases": ["other"], **more}
    return {"data": [card if value is None else {**card, "status": {"value": value}}]}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (read("vllm", vllm("m"), None), Facts("loaded")),
        (read("vllm", vllm("m", parent="base"), {"is_sleeping": False}), Facts("loaded", "base")),
        (read("vllm", vllm("m"), {"is_sleeping": True}), Facts("sleeping")),
        (read("vllm", vllm("base"), {"is_sleeping": "no"}), Facts("unloaded")),
        (read("vllm", {"data": 1}, {"is_sleeping": True}), Facts()),
        (read("ollama", {"models": [{"model": "m:latest"}]}), Facts("loaded")),
        (read("ollama", {"models": [{"model": "m:4b"}]}), Facts("unloaded")),
        (read("ollama", {"models": [{"model": "hf.co:443/m:latest"}]}, model="hf.co:443/m"), Facts("loaded")),
        (read("ollama", []), Facts()),
        (read("llamacpp", llamacpp(None)), Facts("loaded")),
        (read("llamacpp", {"data": []}), Facts()),
        (read("llamacpp", llamacpp("loaded")), Facts("loaded")),
        (read("llamacpp", llamacpp("loaded"), model="other"), Facts("loaded")),
        (read("llamacpp", llamacpp("loaded"), model="nobody"), Facts("unloaded")),
        (read("llamacpp", llamacpp("loading")), Facts("loading")),
        (read("llamacpp", llamacpp("downloading")), Facts("unloaded")),
        (read("llamacpp", llamacpp("sleeping")), Facts("sleeping")),
        (read("llamacpp", {"error": "x"}), Facts()),
    ],
)
def test_what_a_server_says(facts: Facts, expected: Facts) -> None:
    assert facts == expected


@pytest.mark.parametrize("provider", SERVERS)
def test_what_is_no_json_says_nothing(provider: str) -> None:
    server = SERVERS[provider]
    assert server.read([b"\xff<html>" for _ in server.looks], "m") == Facts()


def test_every_row_is_of_an_own_server() -> None:
    assert set(SERVERS) == {name for name, row in PROVIDERS.items() if row.origin == "own"}


@pytest.mark.parametrize("action", GOALS)
@pytest.mark.parametrize("provider", SERVERS)
def test_what_is_done_already_is_not_done_again(provider: str, action: Action) -> None:
    if action in SERVERS[provider].ways:
        assert (
            plan(provider, action, Facts(GOALS[action]), path="p" if provider == "vllm" else None, has_weights=True)
            is None
        )


@pytest.mark.parametrize(
    ("provider", "action", "state", "code"),
    [
        ("vllm", "load", "sleeping", "model_asleep"),
        ("vllm", "unload", "loaded", "operation_not_supported"),
        ("ollama", "sleep", "loaded", "operation_not_supported"),
        ("llamacpp", "wake", "sleeping", "operation_not_supported"),
        ("openai-compatible", "load", "unknown", "operation_not_supported"),
    ],
)
def test_what_cannot_be_done(provider: str, action: Action, state: State, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(provider, action, Facts(state), path="p", has_weights=True)
    assert caught.value.code == code


def test_names_with_braces_stay_as_they_are() -> None:
    (call,) = SERVERS["vllm"].ways["load"].calls
    path, body = outgoing(call, model="{path}", path="/a/{model}", level=1)
    assert (path, json.loads(body)) == ("/v1/load_lora_adapter", {"lora_name": "{path}", "lora_path": "/a/{model}"})
