"""Which models can be asked: what a config means, and what is found without one."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lexora.adapters.http_client import HttpClient
from lexora.core.model_map import Deployment
from lexora.core.routing import Routes
from lexora.entry.config import Settings, load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.upstreams import Upstreams, aws_identity, find_upstreams
from lexora.providers.table import PROVIDERS
from tests.support.fake_server import FakeServer, fake_server
from tests.support.gateway import free_port
from tests.support.recorded import RECORDED

SAMPLE = (RECORDED / "lexora_config.yaml").read_text()
KEYS = (
    *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
    *("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"),
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def usual_ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Other ports for the usual ones, which may be taken on the machine that runs the tests."""
    ports = {name: free_port() for name, row in PROVIDERS.items() if row.origin == "own"}
    for name, port in ports.items():
        monkeypatch.setitem(PROVIDERS, name, PROVIDERS[name]._replace(base_url=f"http://127.0.0.1:{port}/v1"))
    return ports


def find(settings: Settings | None = None, *, model_server: Deployment | None = None, own_port: int = 1) -> Upstreams:
    """What is found with a config's settings, or without a config."""

    async def run() -> Upstreams:
        client = HttpClient()
        try:
            return await find_upstreams(
                settings or Settings(),
                client,
                configured=settings is not None,
                model_server=model_server,
                own_port=own_port,
            )
        finally:
            client.close()
            await asyncio.sleep(0.01)

    return asyncio.run(run())


def settings_of(config: dict[str, Any] | str, tmp_path: Path) -> Settings:
    file = tmp_path / "config.yaml"
    file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return load_settings(file)


def where(routes: Routes) -> dict[str, list[str]]:
    return {
        name: [f"{d.provider} {d.base_url} {d.model}" for d in route.deployments]
        for name, route in routes.models.items()
    }


def own(name: str, url: str = "http://127.0.0.1:9/v1") -> Deployment:
    return Deployment.model_validate({"provider": "llamacpp", "base_url": url, "model": name}, context=PROVIDERS)


def deployments(*models: str) -> dict[str, Any]:
    return {"deployments": [{"provider": "vllm", "base_url": "http://127.0.0.1:9", "model": model} for model in models]}


# vLLM names a model by its path, unless `--served-model-name` gave it another name.
BY_PATH = {"id": "/models/qwen3-32b", "object": "model", "owned_by": "vllm", "root": "/models/qwen3-32b"}
BY_NAME = {**BY_PATH, "id": "qwen3-32b"}
BY_ANOTHER_NAME = {**BY_PATH, "id": "qwen"}


@pytest.mark.parametrize(
    ("listed", "called"),
    [(BY_PATH, "/models/qwen3-32b"), (BY_NAME, "qwen3-32b"), (BY_ANOTHER_NAME, "qwen"), (None, "/models/qwen3-32b")],
)
def test_the_sample_leads_to_the_model_by_whatever_name_vllm_has_for_it(
    tmp_path: Path, listed: dict[str, Any] | None, called: str
) -> None:
    with fake_server(*([listed] if listed else ())) as server:
        settings = settings_of(SAMPLE.replace("http://localhost:8000", server.url), tmp_path)
        routes, complete = find(settings)
        assert complete
        assert where(routes) == {"qwen3-32b": [f"vllm {server.url}/v1 {called}"]}
        assert routes.default_model == "qwen3-32b"
        (deployment,) = routes.order(None)
        assert deployment.timeouts.total == 120
        assert deployment.origin == "own"
        assert [path for path, _ in server.asked] == ["/v1/models"]


def test_a_model_without_a_path_goes_by_its_name(tmp_path: Path) -> None:
    """Ollama says nothing of paths, and takes `llama3` for `llama3:latest`."""
    with fake_server("llama3:latest", "qwen3:4b") as server:
        backends = {"ollama": {"url": server.url, "models": [{"name": "llama3"}]}}
        assert where(find(settings_of({"backends": backends}, tmp_path)).routes) == {
            "llama3": [f"ollama {server.url}/v1 llama3"]
        }


def test_the_sample_stands_while_its_vllm_is_down(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    routes, complete = find(settings_of(SAMPLE.replace("http://localhost:8000", url), tmp_path))
    assert not complete
    assert where(routes) == {"qwen3-32b": [f"vllm {url}/v1 /models/qwen3-32b"]}


def test_a_backend_that_is_not_enabled_is_not_asked(tmp_path: Path) -> None:
    with fake_server("a") as vllm, fake_server("b") as ollama:
        backends = {"vllm": {"url": vllm.url}, "ollama": {"url": ollama.url, "enabled": False}}
        routes, complete = find(settings_of({"backends": backends}, tmp_path))
        assert complete
        assert where(routes) == {"a": [f"vllm {vllm.url}/v1 a"]}
        assert ollama.asked == []


def test_a_backend_without_models_serves_what_it_lists(tmp_path: Path) -> None:
    with fake_server("llama3.2:3b", "qwen3:4b") as server:
        for url in (server.url, f"{server.url}/", f"{server.url}/v1", f"{server.url}/v1/"):
            routes, _ = find(settings_of({"backends": {"ollama": {"url": url}}}, tmp_path))
            assert where(routes) == {
                "llama3.2:3b": [f"ollama {server.url}/v1 llama3.2:3b"],
                "qwen3:4b": [f"ollama {server.url}/v1 qwen3:4b"],
            }
            (deployment,) = routes.order(None)
            assert deployment.timeouts.total == 600


@pytest.mark.parametrize("listed", [[], ["other"], ["qwen3-32b", "other"]])
def test_vllm_and_a_default_model_are_enough(tmp_path: Path, listed: list[str]) -> None:
    with fake_server(*listed) as server:
        config = {"vllm": {"url": server.url, "timeout": 30}, "default_model": "qwen3-32b"}
        routes, _ = find(settings_of(config, tmp_path))
        (deployment,) = routes.order(None)
        assert (deployment.base_url, deployment.model) == (f"{server.url}/v1", "qwen3-32b")
        assert deployment.timeouts.total == 30
        assert set(routes.names) == {"qwen3-32b", *listed}


def test_what_the_config_names_goes_before_what_a_backend_lists(tmp_path: Path) -> None:
    """Else a gateway might not start, depending on what its upstream has loaded."""
    with fake_server("chat", "gpt-4o-mini", "other") as server:
        models = {"chat": {"aliases": ["gpt-4o-mini"], **deployments("mine")}}
        routes, _ = find(settings_of({"models": models, "backends": {"vllm": {"url": server.url}}}, tmp_path))
        assert {name: [d.model for d in routes.order(name)] for name in routes.names} == {
            "chat": ["mine"],
            "gpt-4o-mini": ["mine"],
            "other": ["other"],
        }


def test_a_model_map_file_goes_before_the_same_names_in_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "model_map.json").write_text(
        '{"models": {"a": {"deployments": [{"provider": "ollama", "model": "x"}]}}}'
    )
    config = {"model_map": "model_map.json", "models": {"a": deployments("y"), "b": deployments("z")}}
    routes, complete = find(settings_of(config, tmp_path))
    assert complete
    assert [routes.order(name)[0].model for name in ("a", "b")] == ["x", "z"]


def test_a_name_in_both_that_means_two_models_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_map.json").write_text(
        '{"models": {"a": {"aliases": ["b"], "deployments": [{"provider": "ollama", "model": "x"}]}}}'
    )
    with pytest.raises(ConfigError, match=r"models\.a\.aliases\[0\]: 'b' already names model 'b'"):
        find(settings_of({"model_map": "model_map.json", "models": {"b": deployments("y")}}, tmp_path))


def test_a_config_that_names_no_model_looks_for_none(tmp_path: Path, usual_ports: dict[str, int]) -> None:
    with fake_server("a", port=usual_ports["vllm"]) as server:
        routes, complete = find(settings_of({"server": {"port": 8001}}, tmp_path))
        assert complete
        assert routes.names == []
        assert server.asked == []


@pytest.mark.parametrize("configured", [True, False])
def test_the_model_of_the_command_line_comes_first(
    tmp_path: Path, usual_ports: dict[str, int], configured: bool
) -> None:
    with fake_server("tiny", "other", port=usual_ports["vllm"]):
        config = {"models": {"other": deployments("other"), "tiny": deployments("tiny")}}
        settings = settings_of(config, tmp_path) if configured else None
        routes, complete = find(settings, model_server=own("tiny"))
    assert complete
    assert routes.names == ["tiny", "other"]
    assert routes.order(None) == routes.order("tiny") == [own("tiny")]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "the environment variable GPU_KEY is not set; set it to the upstream's key"),
        ("", "the environment variable GPU_KEY is not set; set it to the upstream's key"),
        ("sk-1\n", "the environment variable GPU_KEY holds a line break or another character that no key has"),
        ("キー", "the environment variable GPU_KEY holds a line break or another character that no key has"),
    ],
)
def test_a_credential_that_cannot_be_sent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, said: str
) -> None:
    monkeypatch.delenv("GPU_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("GPU_KEY", value)
    first = {"provider": "vllm", "model": "x"}
    config = {"models": {"a": {"deployments": [first, {**first, "credential": "env:GPU_KEY"}]}}}
    with pytest.raises(ConfigError) as caught:
        find(settings_of(config, tmp_path))
    assert str(caught.value).startswith(f"models.a.deployments[1].credential: {said}")
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "sk-1\n"], ids=["not set", "no key"])
def test_a_header_that_cannot_be_sent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.setenv("GPU_KEY", "sk-2")
    monkeypatch.delenv("TUNNEL_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("TUNNEL_SECRET", value)
    headers = {"x-plain": "as it is", "x-tunnel-secret": "env:TUNNEL_SECRET"}
    first = {"provider": "vllm", "model": "x", "credential": "env:GPU_KEY", "headers": headers}
    with pytest.raises(ConfigError) as caught:
        find(settings_of({"models": {"a": {"deployments": [first]}}}, tmp_path))
    said = "is not set" if value is None else "holds a line break"
    place = "models.a.deployments[0].headers: the environment variable TUNNEL_SECRET "
    assert str(caught.value).startswith(place + said)
    assert "sk-" not in str(caught.value)


AWS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, ": AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set; set them, or name an API key of Bedrock: "),
        ({"AWS_ACCESS_KEY_ID": "a"}, ": AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"),
        (AWS, ".base_url: it names no region of AWS; set AWS_REGION"),
        ({**AWS, "AWS_SECRET_ACCESS_KEY": "b\n"}, ": AWS's variables hold a line break or another character"),
        ({**AWS, "AWS_DEFAULT_REGION": "eu-west-1"}, None),
        ({**AWS, "AWS_REGION": "eu-west-1", "AWS_SESSION_TOKEN": "t"}, None),
    ],
)
def test_who_signs_requests_to_aws_is_known_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str | None
) -> None:
    for name in (*AWS, "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    one = {"provider": "bedrock", "base_url": "https://proxy.example.com", "model": "x"}
    settings = settings_of({"models": {"a": {"deployments": [one]}}}, tmp_path)
    if said is None:
        assert find(settings)[1]
        assert (aws_identity().region, aws_identity().token) == ("eu-west-1", environment.get("AWS_SESSION_TOKEN", ""))
        return
    with pytest.raises(ConfigError) as caught:
        find(settings)
    assert str(caught.value).startswith(f"models.a.deployments[0]{said}")


def test_an_address_of_awss_names_the_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    one = {"provider": "bedrock", "base_url": "https://bedrock-runtime.us-east-1.amazonaws.com", "model": "x"}
    assert find(settings_of({"models": {"a": {"deployments": [one]}}}, tmp_path))[1]


def test_without_a_config_own_servers_are_found(usual_ports: dict[str, int]) -> None:
    with (
        fake_server({"id": "/models/qwen", "owned_by": "vllm"}, "shared", port=usual_ports["vllm"]) as vllm,
        fake_server({"id": "llama3.2", "owned_by": "library"}, "shared", port=usual_ports["ollama"]) as ollama,
        fake_server({"id": "tiny", "owned_by": "llamacpp"}, port=usual_ports["llamacpp"]) as llamacpp,
    ):
        routes, complete = find()
        assert complete
        assert where(routes) == {
            "/models/qwen": [f"vllm {vllm.url}/v1 /models/qwen"],
            "shared": [f"vllm {vllm.url}/v1 shared"],
            "llama3.2": [f"ollama {ollama.url}/v1 llama3.2"],
            "tiny": [f"llamacpp {llamacpp.url}/v1 tiny"],
        }
        assert routes.default_model == "/models/qwen"
        assert {d.origin for name in routes.names for d in routes.order(name)} == {"own"}
        for server in (vllm, ollama, llamacpp):
            (asked,) = server.asked
            assert asked[0] == "/v1/models"
            assert "authorization" not in asked[1]


def test_a_server_on_anothers_port_is_called_by_its_own_name(usual_ports: dict[str, int]) -> None:
    with fake_server({"id": "tiny", "owned_by": "llamacpp"}, port=usual_ports["vllm"]) as server:
        assert where(find().routes) == {"tiny": [f"llamacpp {server.url}/v1 tiny"]}


def test_with_nothing_found_it_is_worth_looking_again(usual_ports: dict[str, int]) -> None:
    routes, complete = find()
    assert (routes.names, complete) == ([], False)


def test_a_gateway_does_not_find_itself(usual_ports: dict[str, int]) -> None:
    with fake_server("a", port=usual_ports["llamacpp"]) as server:
        assert find(own_port=usual_ports["llamacpp"]).routes.names == []
        assert server.asked == []


@pytest.fixture
def openai(usual_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """What OPENAI_BASE_URL and OPENAI_API_KEY lead to."""
    listed = ["gpt-5", "gpt-4o-mini", "gpt-image-1", "o3", "chatgpt-4o-latest", "text-embedding-3-small", "whisper-1"]
    with fake_server(*listed) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        yield server


def test_a_key_in_the_environment_leads_to_its_providers_chat_models(openai: FakeServer) -> None:
    routes, complete = find()
    assert complete
    assert routes.names == ["gpt-5", "gpt-4o-mini", "o3", "chatgpt-4o-latest"]
    (deployment,) = routes.order("gpt-4o-mini")
    assert (deployment.provider, deployment.origin, deployment.credential) == ("openai", "paid", "env:OPENAI_API_KEY")
    assert deployment.base_url == f"{openai.url}/v1"
    ((_, headers),) = openai.asked
    assert headers["authorization"] == "Bearer sk-openai"
    # One that came out since is known by its name, and so are those that do something else.
    for model in ("gpt-6-turbo", "text-embedding-3-small", "gpt-image-2", "whisper-1"):
        assert routes.order(model)[0].model == model


@pytest.mark.parametrize("url", ["{}", "{}/", "{}/v1", "{}/v1/"])
def test_anthropics_key_leads_to_its_models(
    usual_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Anthropic's SDK wants the URL without a version."""
    with fake_server("claude-sonnet-5-5", "claude-haiku-5") as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url.format(server.url))
        routes, _ = find()
        assert routes.names == ["claude-sonnet-5-5", "claude-haiku-5"]
        (deployment,) = routes.order("claude-haiku-5")
        assert (deployment.provider, deployment.base_url) == ("anthropic", f"{server.url}/v1")
        ((path, headers),) = server.asked
        assert (path, headers["x-api-key"]) == ("/v1/models", "sk-ant")
        assert "anthropic-version" in headers


@pytest.mark.parametrize("url", ["{}", "{}/", "{}/v1beta"])
def test_geminis_key_leads_to_models_by_their_names(
    usual_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Google's SDK wants the URL without a version."""
    with fake_server() as server:
        monkeypatch.setenv("GOOGLE_API_KEY", "of-google")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", url.format(server.url))
        (deployment,) = find().routes.order("gemini-3.8-flash")
    assert (deployment.provider, deployment.base_url) == ("gemini", f"{server.url}/v1beta")
    ((path, headers),) = server.asked
    assert (path, headers["x-goog-api-key"]) == ("/v1beta/models", "of-google")


def test_models_that_are_found_cost_what_their_provider_lists(openai: FakeServer) -> None:
    routes, _ = find()
    prices = PROVIDERS["openai"].prices
    for model in ("gpt-5", "gpt-4o-mini", "gpt-4.1"):  # the last is in no list of the server's
        assert routes.order(model)[0].price == prices[model]
    assert routes.order("gpt-99")[0].price is None


def test_a_token_that_many_have_for_other_ends_is_nobodys_wish(
    usual_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_1")
    with fake_server("gpt-4o") as server:
        monkeypatch.setitem(PROVIDERS, "huggingface", PROVIDERS["huggingface"]._replace(base_url=f"{server.url}/v1"))
        routes, complete = find()
    assert (routes.names, routes.wildcards, complete) == ([], (), False)
    assert server.asked == []


def test_own_models_go_before_paid_ones(openai: FakeServer, usual_ports: dict[str, int]) -> None:
    with fake_server("gpt-4o-mini", "llama", port=usual_ports["ollama"]):
        routes, _ = find()
    assert routes.default_model == "gpt-4o-mini"
    assert routes.order("gpt-4o-mini")[0].provider == "ollama"
    assert routes.order("gpt-5")[0].provider == "openai"


@pytest.mark.parametrize("status", [401, 500])
def test_a_provider_that_does_not_list_its_models_is_still_asked_by_their_names(
    usual_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with fake_server(body=b'{"error": "no"}', status=status) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        routes, complete = find()
    assert complete
    assert routes.names == []
    assert routes.order("gpt-5")[0].base_url == f"{server.url}/v1"


def test_an_empty_key_is_none(usual_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    routes, complete = find()
    assert (routes.names, routes.wildcards, complete) == ([], (), False)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "OPENAI_BASE_URL",
            "localhost:9000",
            "the environment variable OPENAI_BASE_URL: must be an http:// or https://",
        ),
        ("OPENAI_BASE_URL", "http://host:port", "the environment variable OPENAI_BASE_URL: Port"),
        ("OPENAI_API_KEY", "sk-1\r", "the environment variable OPENAI_API_KEY holds a line break"),
        ("OPENAI_API_KEY", "キー", "the environment variable OPENAI_API_KEY holds a line break"),
    ],
)
def test_an_environment_that_cannot_be_used_is_named(
    openai: FakeServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        find()
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>It works!</html>",
        b"{}",
        b"[]",
        b"null",
        b'{"data": null}',
        b'{"data": {}}',
        b'{"data": ["a"]}',
        b'{"data": [{}]}',
        b'{"data": [{"id": 5}]}',
        b'{"data": [{"id": ""}]}',
        b'{"data": [{"id": null}]}',
        b'{"data": ' + b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_stranger_on_a_usual_port_is_left_alone(usual_ports: dict[str, int], body: bytes) -> None:
    with fake_server(body=body, port=usual_ports["llamacpp"]):
        routes, complete = find()
    assert (routes.names, complete) == ([], False)


def test_a_server_that_does_not_answer_holds_the_start_up_for_a_second(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        routes, complete = find(settings_of({"backends": {"vllm": {"url": url}}}, tmp_path))
        took = time.monotonic() - started
    assert (routes.names, complete) == ([], False)
    assert 0.8 < took < 3
