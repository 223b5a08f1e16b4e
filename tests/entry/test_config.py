"""The config file: the sample to the letter, and mistakes that are named by place and mend."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lexora.entry.config import Settings, load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.model_map import load_model_map
from tests.support.recorded import RECORDED

SAMPLE = RECORDED / "lexora_config.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def load(file: Path, text: str) -> Settings:
    file.write_text(text)
    return load_settings(file)


def refusal(file: Path, text: str | bytes) -> str:
    """The one line with which a file is refused, without the folder."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    said = str(caught.value)
    assert "\n" not in said
    assert str(file) in said
    return said.replace(f"{file.parent}/", "")


def test_the_sample_means_what_it_says() -> None:
    settings = load_settings(SAMPLE)
    assert settings.model_dump(exclude_unset=True) == yaml.safe_load(SAMPLE.read_text())
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 8001)
    assert settings.vllm is not None
    assert (settings.vllm.url, settings.vllm.timeout) == ("http://localhost:8000", 120)
    assert settings.default_model == "qwen3-32b"
    vllm, ollama = settings.backends["vllm"], settings.backends["ollama"]
    assert (vllm.enabled, vllm.url, ollama.enabled) == (True, "http://localhost:8000", False)
    (model,) = vllm.models
    assert (model.name, model.path, model.gpu_memory_utilization) == ("qwen3-32b", "/models/qwen3-32b", 0.9)
    assert settings.queue is not None
    assert (settings.queue.max_size, settings.queue.default_timeout) == (100, 60)
    assert settings.queue.priorities.model_dump() == {"high": 1, "normal": 5, "low": 10}
    assert settings.rate_limits is not None
    limits = settings.rate_limits
    assert limits.default.model_dump() == {"requests_per_minute": 30, "tokens_per_minute": 50_000}
    assert limits.users["takahito"].model_dump() == {"requests_per_minute": 60, "tokens_per_minute": 100_000}
    assert settings.retry is not None
    assert settings.retry.model_dump() == {"max_attempts": 3, "delay_seconds": 1, "backoff_multiplier": 2}
    assert (settings.logging.level, settings.logging.format) == ("INFO", "json")
    assert settings.metrics is not None
    assert (settings.metrics.enabled, settings.metrics.port) == (True, 9090)


@pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n", "---\n", "{}"])
def test_an_empty_file_is_all_defaults(file: Path, text: str) -> None:
    settings = load(file, text)
    assert settings == load_settings(None)
    assert (settings.server.host, settings.server.port, settings.server.max_body_mb) == ("127.0.0.1", 8001, 32)
    assert settings.logging.message_text is True
    assert settings.cors.allow_origins == []


def test_paths_are_relative_to_the_file(file: Path) -> None:
    maps = file.parent / "maps"
    maps.mkdir()
    (maps / "model_map.json").write_text('{"models": {}}')
    settings = load(file, "answers: my answers\nmodel_map: maps/model_map.json\ndata: /var/lib/lexora\n")
    assert settings.answers == file.parent / "my answers"
    assert settings.model_map == maps / "model_map.json"
    assert settings.data == Path("/var/lib/lexora")


def test_a_model_map_may_stand_in_the_yaml_as_in_json(file: Path) -> None:
    models = {
        "chat": {
            "aliases": ["gpt-4o-mini"],
            "deployments": [
                {"provider": "vllm", "base_url": "http://gpu:8000/v1", "model": "qwen3-32b", "weight": 3},
                {"provider": "openai", "model": "gpt-4o-mini", "price": {"input": 0.15, "output": 0.6}},
            ],
        }
    }
    (file.parent / "model_map.json").write_text(json.dumps({"models": models}))
    in_yaml = load(file, yaml.safe_dump({"models": models})).models
    assert in_yaml == load_model_map(file.parent / "model_map.json").models
    first, second = in_yaml["chat"].deployments
    assert (first.base_url, first.origin, first.weight) == ("http://gpu:8000/v1", "own", 3)
    assert (second.base_url, second.credential) == ("https://api.openai.com/v1", "env:OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sever:\n  port: 80\n", "config.yaml:1: sever: unknown key; did you mean 'server'?"),
        ("\nserver:\n  prot: 80\n", "config.yaml:3: server.prot: unknown key; did you mean 'port'?"),
        ("server:\n  mystery: 1\n", "config.yaml:2: server.mystery: unknown key; remove it"),
        ("rate_limits:\n  users:\n    a: {rpm: 5}\n", "config.yaml:3: rate_limits.users.a.rpm: unknown key; remove it"),
        ("server: 8001\n", "config.yaml:1: server: input should be a valid dictionary (found 8001)"),
        (
            "server:\n  port: 70000\n",
            "config.yaml:2: server.port: input should be less than or equal to 65535 (found 70000)",
        ),
        ("server:\n  port: 0\n", "config.yaml:2: server.port: input should be greater than or equal to 1 (found 0)"),
        ("server:\n  host: 5\n", "config.yaml:2: server.host: input should be a valid string (found 5)"),
        ("server:\n  max_body_mb: 0\n", "config.yaml:2: server.max_body_mb: input should be greater than 0 (found 0)"),
        (
            "logging: {level: loud}\n",
            "config.yaml:1: logging.level: input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR' (found 'loud')",
        ),
        ("logging:\n  format: text\n", "config.yaml:2: logging.format: input should be 'json' (found 'text')"),
        (
            "retry:\n  max_attempts: 0\n",
            "config.yaml:2: retry.max_attempts: input should be greater than or equal to 1 (found 0)",
        ),
        (
            "vllm:\n  url: localhost:8000\n",
            "config.yaml:2: vllm.url: must be an http:// or https:// URL, such as http://localhost:8000",
        ),
        ("vllm:\n  url: http://localhost:80a0\n", "config.yaml:2: vllm.url: port could not be cast"),
        ("vllm:\n  url: http://me:secret@gpu\n", "config.yaml:2: vllm.url: must not hold a user name or password"),
        ("backends:\n  vllm: {}\n", "config.yaml:2: backends.vllm.url: field required"),
        (
            "backends:\n  vlm: {url: 'http://a'}\n",
            "config.yaml:2: backends.vlm: unknown provider 'vlm'; a backend is one of vllm, ollama, llamacpp",
        ),
        (
            "backends:\n  vllm: {url: 'http://a'}\n  openai: {url: 'http://a'}\n",
            "config.yaml:3: backends.openai: unknown provider 'openai'; a backend is one of",
        ),
        (
            "cors:\n  allow_origins:\n    - https://a.example\n    - https://b.example/\n",
            "config.yaml:4: cors.allow_origins[1]: must be an origin as browsers send it",
        ),
        (
            "cors:\n  allow_origins: [https://例え.jp]\n",
            "config.yaml:2: cors.allow_origins[0]: must be an origin as browsers send it",
        ),
        (
            "cors:\n  allow_origins: https://a.example\n",
            "config.yaml:2: cors.allow_origins: input should be a valid list",
        ),
        ("models:\n  a:\n", "config.yaml:2: models.a: input should be a valid dictionary"),
        ("models:\n  a: {}\n", "config.yaml:2: models.a.deployments: field required"),
        (
            "models:\n  a:\n    deployments: []\n",
            "config.yaml:3: models.a.deployments: list should have at least 1 item",
        ),
        (
            "models:\n  a:\n    deployments:\n      - model: x\n",
            "config.yaml:4: models.a.deployments[0].provider: field required",
        ),
        (
            "models:\n  a:\n    deployments:\n    - {provider: vllm, model: x}\n    - {provider: opanai, model: x}\n",
            "config.yaml:5: models.a.deployments[1].provider: unknown provider 'opanai'; did you mean 'openai'?",
        ),
        (
            "models:\n  a:\n    deployments:\n      - {provider: [vllm], model: x}\n",
            "config.yaml:4: models.a.deployments[0].provider: input should be a valid string",
        ),
        (
            "models:\n  a:\n    deployments:\n      - provider: vllm\n        model: x\n        price: {input: -1}\n",
            "config.yaml:6: models.a.deployments[0].price.input: input should be greater than or equal to 0",
        ),
        (
            "models: {a: &a {deployments: [{provider: vllm, model: x}]}, b: {<<: *a, aliases: [a]}}\n",
            "config.yaml: models.b.aliases[0]: 'a' already names model 'a'",
        ),
        ("models:\n  1: {deployments: []}\n", "config.yaml:2: models[1]: input should be a valid string (found 1)"),
        ("1: 2\n", "config.yaml:1: [1]: keys should be strings"),
        ("- server\n", "config.yaml: expected keys such as 'server:' and 'models:' at the top"),
        ("server\n", "config.yaml: expected keys such as 'server:' and 'models:' at the top"),
        ("server:\n  port: [1\nvllm: 2\n", "config.yaml:3: not valid YAML: expected ',' or ']'"),
        ("server:\n\tport: 1\n", "config.yaml:2: not valid YAML: found character '\\t'"),
        ("server: {host: a}}\n", "config.yaml:1: not valid YAML:"),
        ("server: &a {host: *b}\n", "config.yaml:1: not valid YAML: found undefined alias"),
        ("server: !!python/object:os.system {}\n", "config.yaml:1: not valid YAML: could not determine a constructor"),
        ("server:\n  host: 2026-13-45\n", "config.yaml: not valid YAML: month must be in 1..12"),
        ("server:\0\n", "config.yaml: not valid YAML: unacceptable character #x0000"),
        ("a: " + "[" * 5000, "config.yaml: not valid YAML: maximum recursion depth exceeded"),
        (b"server:\n  host: \xff\n", "config.yaml: is not a text file in UTF-8"),
    ],
)
def test_a_mistake_is_named_by_its_place(file: Path, text: str | bytes, said: str) -> None:
    assert refusal(file, text).startswith(said)


@pytest.mark.parametrize("secret", ["sk-verysecret", "env: sk-verysecret", "$OPENAI_API_KEY:verysecret"])
def test_a_key_that_stands_in_the_file_is_not_repeated(file: Path, secret: str) -> None:
    """The line goes to terminals, journals and bug reports."""
    deployment = {"provider": "openai", "model": "x", "credential": secret}
    said = refusal(file, yaml.safe_dump({"models": {"a": {"deployments": [deployment]}}}))
    assert "models.a.deployments[0].credential: must name an environment variable" in said
    assert "verysecret" not in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "nope.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"{path}: cannot be read: {reason}"):
            load_settings(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"modles": {}}, "modles: unknown key; did you mean 'models'?"),
        ({"models": {"a": {"deployments": [{"provider": "vllm"}]}}}, "models.a.deployments[0].model: field required"),
        (
            {"models": {"a": {"deployments": [{"provider": "vllm", "model": "x", "timeouts": {"idle": "5s"}}]}}},
            "models.a.deployments[0].timeouts.idle: input should be a valid number",
        ),
        (
            {"models": {"a": {"deployments": [{"provider": "vllm", "model": "x", "wieght": 1}]}}},
            "models.a.deployments[0].wieght: unknown key; did you mean 'weight'?",
        ),
        (
            {
                "models": {
                    name: {"aliases": ["x"], "deployments": [{"provider": "vllm", "model": "x"}]} for name in "ab"
                }
            },
            "models.b.aliases[0]: 'x' already names model 'a'",
        ),
        ([], "input should be a valid dictionary"),
    ],
)
def test_a_mistake_in_a_model_map_is_named_by_its_path(tmp_path: Path, data: Any, said: str) -> None:
    path = tmp_path / "model_map.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as caught:
        load_model_map(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "{'models': {}}", '{"models": {},}', "models: {}", "[" * 100_000, "\ufeff{}"]
)
def test_a_model_map_that_is_no_json_says_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model_map.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_model_map(path)
    assert str(caught.value).startswith(f"{path}: not valid JSON: ")
    assert "\n" not in str(caught.value)
