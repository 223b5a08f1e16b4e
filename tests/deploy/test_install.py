"""The scripts that put the gateway on a machine, run for real, and the units they write."""

import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx2
import psutil
import pytest
import yaml

from lexora.entry.config import load_settings
from tests.deploy.conftest import ROOT_RUNS, SCRIPTS, UNITS, Installed, run
from tests.support.gateway import ROOT, clean_environment, free_port

QUESTION = {"messages": [{"role": "user", "content": "日本の首都はどこですか？"}]}


def settings_of(unit: Path) -> dict[str, list[str]]:
    """What a unit's lines set, with all values of what is set more than once."""
    text = unit.read_text().replace("\\\n", "")
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def command_of(unit: Path) -> list[str]:
    return shlex.split(settings_of(unit)["ExecStart"][0])


@pytest.mark.parametrize("script", ["install.sh", "setup_systemd.sh"])
def test_the_scripts_are_bash_and_may_be_run(script: str) -> None:
    run("bash", "-n", SCRIPTS / script)
    assert os.access(SCRIPTS / script, os.X_OK)


def test_the_sample_config_loads() -> None:
    settings = load_settings(ROOT / "deploy" / "config.yaml")
    assert settings.default_model == "qwen3-32b"
    assert settings.data == ROOT / "deploy" / "data"
    assert settings.auth.required


def test_a_python_in_a_home_folder_is_refused(tmp_path: Path) -> None:
    """The unit shuts them: the gateway would be installed, and not start."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$2" in *base_prefix*) echo /home/ann/python;; esac\n')
    python.chmod(0o755)
    env = clean_environment({"PYTHON": str(python), "PREFIX": str(tmp_path / "lexora")})
    refused = subprocess.run([SCRIPTS / "install.sh"], env=env, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 1
    assert "PYTHON=/usr/bin/python3" in refused.stderr
    assert not (tmp_path / "lexora").exists()


def test_units_are_written_once(tmp_path: Path) -> None:
    env = {"UNIT_DIR": str(tmp_path / "units"), "PREFIX": "/srv/lexora"}
    first = run(SCRIPTS / "setup_systemd.sh", "--vllm", "--no-start", **env)
    assert "spirrow-lexora.service" in first
    written = (tmp_path / "units" / "spirrow-lexora.service").read_text()
    assert "ExecStart=/srv/lexora/venv/bin/python -m lexora.main\n" in written
    assert "/opt/spirrow/lexora" not in written
    assert (tmp_path / "units" / "vllm.service").read_text() == (UNITS / "vllm.service").read_text()
    assert "nothing changed" in run(SCRIPTS / "setup_systemd.sh", "--vllm", "--no-start", **env)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS.glob("*.service"):
        # What is not installed here is no mistake in the unit.
        (tmp_path / unit.name).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text()))
    said = run("systemd-analyze", "verify", "--man=no", *sorted(tmp_path.glob("*.service")))
    assert not [line for line in said.splitlines() if str(tmp_path) in line or "spirrow-lexora" in line], said


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize(("unit", "most"), [("spirrow-lexora.service", 2.0), ("vllm.service", 4.0)])
def test_systemd_finds_the_units_well_shut(unit: str, most: float) -> None:
    """Exposure from 0 to 10. vLLM is left what CUDA needs."""
    threshold = f"--threshold={most * 10:.0f}"
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, UNITS / unit)
    assert "Overall exposure level" in said


def test_vllm_is_started_as_the_gateway_asks_it() -> None:
    settings = load_settings(ROOT / "deploy" / "config.yaml")
    _, _, module, *flags = command_of(UNITS / "vllm.service")
    assert module == "vllm.entrypoints.openai.api_server"
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    backend = settings.backends["vllm"]
    assert [model.path for model in backend.models] == [options["--model"]]
    assert options["--host"] == "127.0.0.1"
    assert str(backend.url).rstrip("/") == f"http://localhost:{options['--port']}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_installing_again_keeps_config_and_data(installed: Installed) -> None:
    prefix = installed.prefix
    page = (ROOT / "docs" / "gpu-host.md").read_text()
    (command,) = re.findall(r"`sudo -u spirrow (\S+/lexora keys create [^`]+)`", page)
    as_user = ["runuser", "-u", installed.user, "--"] if ROOT_RUNS else []
    made = run(*as_user, *command.replace("/opt/spirrow/lexora", str(prefix)).split())
    assert made.startswith("sk-lexora-")
    assert (prefix / "data" / "lexora.db").exists()
    (prefix / "config.yaml").write_text("server: {port: 18001}\n")
    (prefix / "data" / "kept").write_text("kept")
    package = next((prefix / "venv" / "lib").glob("python*/site-packages/lexora"))
    (package / "main.py").write_text("broken")
    before = (prefix / "data").stat()

    installed.install()

    assert (prefix / "config.yaml").read_text() == "server: {port: 18001}\n"
    assert (prefix / "data" / "kept").read_text() == "kept"
    assert "serve" in run(prefix / "venv" / "bin" / "lexora", "--help")
    after = (prefix / "data").stat()
    assert (after.st_mode & 0o777, after.st_uid) == (0o700, before.st_uid)
    assert (prefix / "data").owner() == installed.user
    config = (prefix / "config.yaml").stat()
    assert config.st_mode & 0o777 == 0o640
    if ROOT_RUNS:
        assert (config.st_uid, (prefix / "config.yaml").group()) == (0, installed.user)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_unit_says_starts_the_gateway(installed: Installed, tmp_path: Path) -> None:
    """Its command, as its user, in its folder, with its environment alone; and SIGTERM ends it in time."""
    env = {"UNIT_DIR": str(tmp_path), "PREFIX": str(installed.prefix), "SERVICE_USER": installed.user}
    run(SCRIPTS / "setup_systemd.sh", "--no-start", **env)
    unit = settings_of(tmp_path / "spirrow-lexora.service")
    config = yaml.safe_load((ROOT / "deploy" / "config.yaml").read_text())
    config["server"]["port"], config["metrics"]["port"] = port, _ = free_port(), free_port()
    (installed.prefix / "config.yaml").write_text(yaml.safe_dump(config))

    process = subprocess.Popen(
        command_of(tmp_path / "spirrow-lexora.service"),
        cwd=unit["WorkingDirectory"][0],
        env=dict(pair.split("=", 1) for line in unit["Environment"] for pair in shlex.split(line)),
        user=unit["User"][0] if ROOT_RUNS else None,
        group=pwd.getpwnam(unit["User"][0]).pw_gid if ROOT_RUNS else None,
        extra_groups=[] if ROOT_RUNS else None,
        umask=int(unit["UMask"][0], 8),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            until = time.monotonic() + 30
            while True:
                assert process.poll() is None, "the gateway ended"
                try:
                    answer = client.post("/v1/chat/completions", json=QUESTION)
                    break
                except httpx2.TransportError:
                    assert time.monotonic() < until, "the gateway does not answer"
                    time.sleep(0.05)
            assert answer.headers["x-lexora-origin"] == "fixed"
            other = {"messages": [{"role": "user", "content": "Hello"}]}
            assert client.post("/v1/chat/completions", json=other).status_code == 401
        assert psutil.Process(process.pid).username() == installed.user
        database = installed.prefix / "data" / "lexora.db"
        assert (database.owner(), database.stat().st_mode & 0o077) == (installed.user, 0)
        process.send_signal(getattr(signal, unit["KillSignal"][0]))
        assert process.wait(int(unit["TimeoutStopSec"][0])) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
