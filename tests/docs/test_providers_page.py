"""docs/providers.md: what it says is so, and what it shows is what runs here."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from lexora.core.chat import parse_chat_request
from lexora.core.errors import InvalidRequest
from lexora.core.model_map import parse_model_map
from lexora.providers import table
from lexora.providers.sigv4 import region_of
from lexora.providers.table import PROVIDERS
from tests.support.client import HELLO, UPSTREAM_KEY, events, post, text_of
from tests.support.gateway import ROOT, running_gateway
from tests.support.in_process import InProcess
from tests.support.recorded import (
    DONE,
    STREAM_END,
    STREAM_HEAD,
    RecordedUpstream,
    completion,
    finish,
    json_response,
    piece,
    stream,
    token,
    usage,
)

PAGE = (ROOT / "docs" / "providers.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```\n", PAGE.split("<!-- the tests run what follows -->")[1], re.DOTALL)
ROW_CONFIG, ROW, DIALECT, DIALECT_ROW, ANSWER, STREAM = (text for _, text in BLOCKS)


def parse(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def run(code: str, name: str) -> types.ModuleType:
    """Runs the page's code as a module of its own, in which the table's names are known."""
    module = types.ModuleType(name)
    vars(module).update(vars(table))
    vars(module)["__name__"] = name
    sys.modules[name] = module
    exec(compile(code, f"docs/providers.md ({name})", "exec"), vars(module))
    return module


def test_a_service_by_the_config_alone(upstream: RecordedUpstream, tmp_path: Path) -> None:
    config = parse(ROW_CONFIG)
    config["models"]["parrot"]["deployments"][0]["base_url"] = upstream.base_url
    upstream.play([json_response(completion("Hello"))], stream(token("Hello"), finish(), usage(1, 1), DONE))
    with running_gateway(tmp_path, config, env={"PARROT_API_KEY": UPSTREAM_KEY}) as gateway:
        assert post(gateway, model="parrot").json() == completion("Hello")
        assert text_of(events(post(gateway, model="parrot", stream=True))) == "Hello"
    assert {received.headers["authorization"] for received in upstream.received} == {f"Bearer {UPSTREAM_KEY}"}
    assert upstream.received[0].json()["model"] == "parrot-large"


def test_a_new_row(upstream: RecordedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "PROVIDERS", dict(PROVIDERS))
    row = run(ROW, "parrot_row").PROVIDERS["parrot"]
    monkeypatch.setitem(PROVIDERS, "parrot", row)
    upstream.play([json_response(completion("Hello"))])
    with InProcess(
        upstream, provider="parrot", credential="env:PARROT_API_KEY", credentials=lambda name, fresh=False: UPSTREAM_KEY
    ) as gateway:
        assert post(gateway, max_completion_tokens=5).json() == completion("Hello")
    (received,) = upstream.received
    assert received.headers["x-parrot-key"] == UPSTREAM_KEY
    assert received.json() == {"model": "up", "messages": [HELLO], "max_tokens": 5}


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.setattr(table, "PROVIDERS", dict(PROVIDERS))
    module = run(DIALECT + DIALECT_ROW, "echo")
    monkeypatch.setitem(PROVIDERS, "echo", module.PROVIDERS["echo"])
    return module


def behind_echo(upstream: RecordedUpstream) -> InProcess:
    return InProcess(
        upstream, provider="echo", credential="env:ECHO_API_KEY", credentials=lambda name, fresh=False: UPSTREAM_KEY
    )


def test_a_new_dialect(upstream: RecordedUpstream, echo: types.ModuleType) -> None:
    streamed = [STREAM_HEAD, *(piece(e.encode() + b"\n\n") for e in STREAM.split("\n\n") if e), STREAM_END]
    upstream.play([json_response(ANSWER.encode())], streamed)
    with behind_echo(upstream) as gateway:
        plain = post(gateway, max_tokens=9).json()
        *chunks, done = events(post(gateway, stream=True, stream_options={"include_usage": True}))
    assert plain["choices"][0]["message"]["content"] == text_of(chunks) == "Hello yourself"
    assert plain["usage"] == chunks[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    assert done == "[DONE]"
    first, second = upstream.received
    assert (first.path, first.headers["x-echo-key"]) == ("/v1/echo", UPSTREAM_KEY)
    line = {"who": "user", "says": "Hello"}
    assert first.json() == {"voice": "up", "stream": False, "lines": [line], "most": 9}
    assert second.json() == {"voice": "up", "stream": True, "lines": [line]}
    assert [(record.outcome, record.tokens_in, record.tokens_out) for record in gateway.records] == [
        ("completed", 4, 2)
    ] * 2


def test_what_a_new_dialect_owes(upstream: RecordedUpstream, echo: types.ModuleType) -> None:
    begun = [STREAM_HEAD, piece(STREAM.split("\n\n")[0].encode() + b"\n\n")]
    upstream.play(
        [*begun, STREAM_END],
        [*begun, piece(b'data: {"error": "No breath left."}\n\n'), STREAM_END],
        [json_response({"error": "No such voice."})],
        [json_response(b"<html>")],
        [json_response({"error": "No such voice."}, "404 Not Found")],
    )
    with behind_echo(upstream) as gateway:
        for told in ("stopped before its answer was finished", "No breath left."):
            *chunks, last = events(post(gateway, stream=True))
            assert text_of(chunks) == "Hello "
            assert told in last["error"]["message"]
        for status, told in ((502, "No such voice."), (502, "not one of the Echo API"), (404, "No such voice.")):
            response = post(gateway)
            assert response.status_code == status
            assert told in response.json()["error"]["message"]
        for fields, param in (({"n": 2}, "n"), ({"seed": 1}, "seed")):
            response = post(gateway, **fields)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        embeddings = httpx2.post(f"{gateway.url}/v1/embeddings", json={"input": "a", "model": "m"}, timeout=30)
        assert embeddings.json()["error"]["code"] == "not_offered"
    assert len(upstream.received) == 5


def test_every_provider_and_its_key_is_on_the_page() -> None:
    rows = {}
    for line in PAGE.split("## Azure")[0].splitlines():
        cells = line.split("|")
        for name in re.findall(r"`([a-z-]+)`", cells[1]) if len(cells) == 5 else ():
            rows[name] = re.findall(r"`([A-Z_]+)`", cells[2])
    assert rows == {
        name: [key for key in (row.credential_env, row.credential_env_too) if key] for name, row in PROVIDERS.items()
    }


def test_azures_config_is_one() -> None:
    found = parse_model_map(parse(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]), PROVIDERS)
    assert found.models["gpt-classic"].deployments[0].query == {"api-version": "2024-10-21"}


def test_bedrocks_config_is_one() -> None:
    found = parse_model_map(parse(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]), PROVIDERS)
    claude, nova = (found.models[name].deployments[0] for name in ("claude", "nova"))
    assert (claude.credential, nova.credential) == (None, "env:AWS_BEARER_TOKEN_BEDROCK")
    assert region_of(urlsplit(claude.base_url).netloc) == "eu-central-1"


def test_the_example_of_a_price_is_one() -> None:
    price = parse(re.findall(r"```yaml\n(price:.*?)```", PAGE, re.DOTALL)[0])
    row = {"provider": "openai", "model": "m", **price}
    found = parse_model_map({"models": {"m": {"deployments": [row]}}}, PROVIDERS).models["m"].deployments[0].price
    assert found is not None
    assert found.model_dump(exclude_unset=True) == price["price"]


TOOL = {"type": "function", "function": {"name": "f"}}


def content(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


ASKED: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL], "tool_choice": "required"},
    "parallel_tool_calls: false": {"tools": [TOOL], "parallel_tool_calls": False},
    "images, by": content({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
    "images, as": content({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}),
    "PDFs": content({"type": "file", "file": {"file_data": "JVBERi0xLjcK"}}),
    "input_audio": content({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}),
    "response_format with": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    },
    "response_format: json_object": {"response_format": {"type": "json_object"}},
    "reasoning_effort": {"reasoning_effort": "low"},
    "n": {"n": 2},
    "logprobs": {"logprobs": True},
    "seed": {"seed": 1},
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "service_tier: flex": {"service_tier": "flex"},
    "logit_bias": {"logit_bias": {"1": 1}},
    "prediction": {"prediction": {"type": "content", "content": "x"}},
    "verbosity": {"verbosity": "low"},
    "web_search_options": {"web_search_options": {}},
}


def cells_of(what: str) -> list[str]:
    lines = PAGE.split("## What each can do")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines if line.startswith("|")]
    (row,) = [row for row in rows if f"`{what}`" in row[0] or row[0].replace("`", "").startswith(f"{what} ")]
    return row[1:]


def refuses(provider: str, fields: dict[str, Any]) -> bool:
    body = json.dumps({"messages": [HELLO], **fields}).encode()
    try:
        PROVIDERS[provider].dialect.chat_request(parse_chat_request(body), "gemini-3.8-flash")
    except InvalidRequest:
        return True
    return False


@pytest.mark.parametrize("what", ASKED)
def test_what_the_page_says_they_can_do_they_do(what: str) -> None:
    said = [cell.startswith("refused") for cell in cells_of(what)]
    assert said == [refuses(provider, ASKED[what]) for provider in ("anthropic", "gemini", "bedrock")]


def test_who_can_go_on_with_an_answer() -> None:
    (line,) = re.findall(r"An answer that breaks off can be gone on with by (.*?), and by no other", PAGE)
    assert set(re.findall(r"`(\w+)`", line)) == {name for name, row in PROVIDERS.items() if row.continues is not None}
