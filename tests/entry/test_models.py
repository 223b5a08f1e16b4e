"""`lexora models` as operators type it, on a running gateway in front of an Ollama."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.test_admin_models import admins_key, own
from tests.support.command import LEXORA, Ended, run
from tests.support.gateway import free_port, models_config, running_gateway
from tests.support.model_servers import Ollama, running


class Operator:
    """Who has a gateway's address, and an admin's key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    def do(self, *arguments: str, key: str | None = None) -> Ended:
        env = {"LEXORA_API_KEY": self.key if key is None else key}
        return run(LEXORA, "models", *arguments, "--url", self.url, env=env)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("models")
    with running(Ollama()) as server:
        config = models_config(**{"team/q": own("ollama", server.base_url, "qwen3:4b")})
        with running_gateway(folder, config) as gateway:
            yield Operator(gateway.url, admins_key(folder))


def test_a_model_is_loaded_and_unloaded(operator: Operator) -> None:
    status, out, err = operator.do("list")
    titles, row = (line.split() for line in out.splitlines())
    assert (status, err, titles) == (0, "", ["MODEL", "STATE", "DEPLOYMENT", "SERVER", "PARENT"])
    assert (row[:2], row[-1]) == (["team/q", "unloaded"], "-")
    assert operator.do("load", "team/q").out.splitlines()[1].split()[:2] == ["team/q", "loaded"]
    (listed,) = json.loads(operator.do("list", "--json").out)
    assert (listed["model"], listed["state"]) == ("team/q", "loaded")
    (done,) = json.loads(operator.do("unload", "team/q", "--json").out)
    assert (done["model"], done["state"]) == ("team/q", "unloaded")


@pytest.mark.parametrize(
    ("arguments", "key", "what"),
    [
        (("load", "nobodys"), None, "'nobodys' does not exist"),
        (("sleep", "team/q", "--level", "2"), None, "Ollama"),
        (("load", "team/q", "--path", "/a"), None, "Only vLLM takes a LoRA adapter"),
        (("list",), "", "Make one with `lexora keys create --user NAME --admin`"),
        (("list",), "sk-lexora-000000000000-wrong", "LEXORA_API_KEY"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    operator: Operator, arguments: tuple[str, ...], key: str | None, what: str
) -> None:
    status, out, err = operator.do(*arguments, key=key)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert what in err


def test_the_config_says_where_the_gateway_is(operator: Operator, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    port = operator.url.rpartition(":")[2]
    config.write_text(f"server: {{host: 0.0.0.0, port: {port}}}\n")
    asked = (LEXORA, "models", "list", "--config", config)
    assert "team/q" in run(*asked, env={"LEXORA_API_KEY": operator.key}).out
    config.write_text(f"server: {{port: {free_port()}}}\n")
    status, _, err = run(*asked)
    assert (status, err.count("\n")) == (2, 1)
    assert "no gateway answers at http://127.0.0.1" in err
    assert "is no web address" in run(LEXORA, "models", "list", "--url", "file:///etc/passwd").err
