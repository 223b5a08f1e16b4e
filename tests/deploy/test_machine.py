"""The units under a real systemd, which has a machine of its own: this one's /usr, and nothing else of it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.conftest import SCRIPTS, Installed, run
from tests.support.gateway import ROOT, clean_environment

HERE = Path(__file__).parent
CHECK = """\
[Unit]
DefaultDependencies=no
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
TimeoutStartSec=90
ExecStart=/bin/bash /run/check/machine.sh
StandardOutput=append:/run/check/said
StandardError=inherit
"""


def boot(*binds: str) -> None:
    """Boots a machine with these bind mounts and no network but its loopback, until check.service has ended."""
    etc = ("passwd", "group", "hosts", "ld.so.cache")
    bound = [*binds, *(f"--bind-ro=/etc/{name}" for name in etc if Path("/etc", name).exists())]
    # Without a systemd here nobody could make a unit for the machine.
    register = ["--register=no", *([] if Path("/run/systemd/system").exists() else ["--keep-unit"])]
    name = f"--machine=lexora-{os.getpid()}"
    kernel = ["systemd.unit=check.service", "systemd.firstboot=off"]
    command = ["systemd-nspawn", "--quiet", name, "--directory=/", "--volatile=yes", "--private-network", *register]
    booted = subprocess.run(
        [*command, *bound, "--boot", *kernel],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(),
        timeout=110,
    )
    assert booted.returncode == 0, booted.stdout.decode(errors="replace") + booted.stderr.decode(errors="replace")


def may_boot() -> bool:
    unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "true"]
    return bool(shutil.which("systemd-nspawn")) and subprocess.run(unshare, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not may_boot(), reason="needs systemd-nspawn (systemd-container) and the right to use it: root's")
def test_systemd_runs_the_units(installed: Installed, tmp_path: Path) -> None:
    units, check, vllm = (tmp_path / name for name in ("units", "check", "vllm"))
    run(SCRIPTS / "setup_systemd.sh", "--vllm", "--no-start", UNIT_DIR=str(units), SERVICE_USER=installed.user)
    (units / "check.service").write_text(CHECK)
    check.mkdir()
    shutil.copy(HERE / "machine.sh", check)
    (vllm / "venv" / "bin").mkdir(parents=True)
    (vllm / "venv" / "bin" / "python").symlink_to(Path(installed.python).resolve())
    (vllm / "vllm" / "entrypoints" / "openai").mkdir(parents=True)
    shutil.copy(HERE / "vllm_stand_in.py", vllm / "vllm" / "entrypoints" / "openai" / "api_server.py")
    (installed.prefix / "config.yaml").write_text((ROOT / "deploy" / "config.yaml").read_text())

    boot(
        f"--bind={installed.prefix}:/opt/spirrow/lexora",
        f"--bind-ro={vllm}:/opt/spirrow/vllm",
        f"--bind-ro={units}:/etc/systemd/system",
        f"--bind={check}:/run/check",
    )

    text = (check / "said").read_text()
    said = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    assert said["health"], text
    health = json.loads(said["health"])
    assert (health["status"], health["vllm_status"]) == ("healthy", "connected"), text
    assert "東京" in said["answer"], text
    assert int(said["metrics"]) > 0, text
    assert said["started"] == "active", text
    assert said["user"] == installed.user, text
    assert said["reloaded"] == "active", text
    assert "reloaded: 1 models, 10 prompts" in text
    # As the unit's comment says.
    assert said["after a crash of vLLM"] == "active", text
    assert said["after a stop of vLLM"] == "inactive", text
    assert (said["result"], said["status"], said["restarts"]) == ("success", "0", "0"), text
