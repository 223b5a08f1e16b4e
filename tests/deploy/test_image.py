"""The Dockerfile: what it names is there, and what it starts asks for keys. No engine is needed."""

import json
import re
import tomllib
from pathlib import Path

import httpx2
import pytest

from lexora.entry.config import Server
from lexora.main import _parser
from tests.deploy.conftest import Installed, build_context, run
from tests.support.gateway import ROOT, free_port, serving

TEXT = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def stages() -> list[dict[str, str]]:
    """Each stage's instructions; every one stands there once."""
    found: list[dict[str, str]] = []
    for name, value in re.findall(r"^([A-Z]+) (.+)$", TEXT, re.MULTILINE):
        if name == "FROM":
            found.append({})
        assert name not in found[-1]
        found[-1][name] = value
    return found


BUILD, FINAL = stages()
START = [*json.loads(FINAL["ENTRYPOINT"]), *json.loads(FINAL["CMD"])]


def test_both_stages_have_one_python_of_one_version() -> None:
    assert BUILD["FROM"] == f"{FINAL['FROM']} AS build"
    version = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-[a-z]+", FINAL["FROM"])
    assert version
    least = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, version[1].split("."))) >= tuple(map(int, least.split(".")))


def test_the_build_runs_what_it_is_given(tmp_path: Path) -> None:
    context = build_context(tmp_path)
    assert BUILD["COPY"] == ". ."
    script = re.findall(r"\S+/install\.sh", BUILD["RUN"])
    assert script == ["scripts/install.sh"]
    used = re.findall(r"\$source_dir/([\w./]+)", (context / script[0]).read_text())
    assert {"requirements.txt", "static_responses", "clients", "deploy/config.yaml"} <= set(used)
    for name in {*used, PROJECT["readme"]} - {"scripts/setup_systemd.sh"}:  # that it only names
        assert (context / name).exists(), name
    assert "--require-hashes" in (context / script[0]).read_text()


def test_what_is_run_is_what_was_built() -> None:
    prefix = re.findall(r"PREFIX=(\S+)", BUILD["RUN"])[0]
    assert FINAL["COPY"] == f"--from=build {prefix}/venv {prefix}/venv"
    assert FINAL["ENV"] == f"PATH={prefix}/venv/bin:$PATH"
    assert "uninstall" in BUILD["RUN"]
    assert not re.search(r"apt|pip", FINAL["RUN"])


def test_it_is_nobody_in_particular_who_owns_the_data() -> None:
    user, group = FINAL["USER"].split(":")
    assert int(user) > 0
    assert f"--owner={user} --group={group} --mode=0700 /data" in FINAL["RUN"]


def test_what_it_starts_exists() -> None:
    assert START[0] in PROJECT["scripts"]
    options = _parser().parse_args(START[1:])
    assert (options.command, options.host) == ("serve", "0.0.0.0")
    assert FINAL["EXPOSE"] == str(options.port or Server().port)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_it_starts_asks_for_keys(installed: Installed, tmp_path: Path) -> None:
    """Installed from the build's context, and told nothing but a free port."""
    lexora = installed.prefix / "venv" / "bin" / START[0]
    port = free_port()
    command = [str(lexora), *START[1:], "--port", str(port)]
    with serving(command, port, tmp_path, working_folder=tmp_path) as gateway:
        ask = {"model": "m", "messages": [{"role": "user", "content": "日本の首都はどこですか？"}]}
        with httpx2.Client(base_url=gateway.url) as client:
            assert client.post("/v1/chat/completions", json=ask).headers["x-lexora-origin"] == "fixed"
            ask["messages"][0]["content"] = "Hello"
            assert client.post("/v1/chat/completions", json=ask).status_code == 401
            key = run(lexora, "keys", "create", "--user", "ann", "--data", str(tmp_path / "data")).split()[0]
            headers = {"authorization": f"Bearer {key}"}
            assert client.post("/v1/chat/completions", json=ask, headers=headers).status_code in (404, 503)
        assert gateway.stop() == 0
