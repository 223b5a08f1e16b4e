"""The scripts that put the gateway on a machine, run for real, and the units they write."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lexora.entry.config import load_settings
from tests.support.gateway import ROOT, clean_environment

SCRIPTS = ROOT / "scripts"
UNITS = ROOT / "deploy" / "systemd"


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(command, env=clean_environment(env), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("script", ["install.sh", "setup_systemd.sh"])
def test_the_scripts_are_bash_and_may_be_run(script: str) -> None:
    run("bash", "-n", SCRIPTS / script)
    assert os.access(SCRIPTS / script, os.X_OK)


def test_the_sample_config_loads() -> None:
    settings = load_settings(ROOT / "deploy" / "config.yaml")
    assert settings.default_model == "qwen3-32b"
    assert settings.data == ROOT / "deploy" / "data"
    assert settings.auth.required


def test_units_are_written_once(tmp_path: Path) -> None:
    env = {"UNIT_DIR": str(tmp_path / "units"), "PREFIX": "/srv/lexora"}
    first = run(SCRIPTS / "setup_systemd.sh", "--vllm", "--no-start", **env)
    assert "spirrow-lexora.service" in first
    written = (tmp_path / "units" / "spirrow-lexora.service").read_text()
    assert "ExecStart=/srv/lexora/venv/bin/python -m lexora.main\n" in written
    assert "/opt/spirrow/lexora" not in written
    assert (tmp_path / "units" / "vllm.service").read_text() == (UNITS / "vllm.service").read_text()
    assert "nothing changed" in run(SCRIPTS / "setup_systemd.sh", "--vllm", "--no-start", **env)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="NOT CHECKED: systemd-analyze is not here")
def test_systemd_takes_the_units_and_finds_the_gateway_well_shut(tmp_path: Path) -> None:
    for unit in UNITS.glob("*.service"):
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    said = run("systemd-analyze", "verify", "--man=no", *sorted(tmp_path.glob("*.service")))
    assert not [line for line in said.splitlines() if str(tmp_path) in line or "spirrow-lexora" in line], said
    rated = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNITS / "spirrow-lexora.service")
    level = re.search(r"exposure level for \S+: ([0-9.]+)", rated)
    assert level, rated
    assert float(level[1]) < 3


@pytest.mark.slow
def test_installing_again_keeps_config_and_data(tmp_path: Path) -> None:
    prefix = tmp_path / "lexora"
    run(SCRIPTS / "install.sh", PREFIX=str(prefix), SERVICE_USER="root")
    page = (ROOT / "docs" / "gpu-host.md").read_text()
    (command,) = re.findall(r"`sudo -u spirrow (\S+/lexora keys create [^`]+)`", page)
    made = run(*command.replace("/opt/spirrow/lexora", str(prefix)).split())
    assert made.startswith("sk-lexora-")
    assert (prefix / "data" / "lexora.db").exists()
    (prefix / "config.yaml").write_text("server: {port: 18001}\n")
    (prefix / "data" / "kept").write_text("kept")
    package = next((prefix / "venv" / "lib").glob("python*/site-packages/lexora"))
    (package / "main.py").write_text("broken")

    run(SCRIPTS / "install.sh", PREFIX=str(prefix), SERVICE_USER="root")

    assert (prefix / "config.yaml").read_text() == "server: {port: 18001}\n"
    assert (prefix / "data" / "kept").read_text() == "kept"
    assert (prefix / "data").stat().st_mode & 0o777 == 0o700
    assert "serve" in run(prefix / "venv" / "bin" / "python", "-m", "lexora.main", "--help")
