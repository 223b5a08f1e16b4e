"""The gateway as scripts/install.sh puts it on a machine."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.gateway import ROOT, clean_environment

SCRIPTS = ROOT / "scripts"
UNITS = ROOT / "deploy" / "systemd"
ROOT_RUNS = os.geteuid() == 0


class Installed(NamedTuple):
    """Where it is, whose it is, and the Python and the source that it was made from."""

    prefix: Path
    user: str
    python: str
    source: Path

    def install(self) -> str:
        env = {"PREFIX": str(self.prefix), "SERVICE_USER": self.user, "PYTHON": self.python}
        return run(self.source / "scripts" / "install.sh", **env)


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(command, env=clean_environment(env), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def build_context(to: Path) -> Path:
    """What .dockerignore lets through to the Dockerfile: nothing but the lines that begin with `!`."""
    everything, *lines = [x for x in (ROOT / ".dockerignore").read_text().splitlines() if not x.startswith("#")]
    assert everything == "*"
    for name in [line[1:] for line in lines if line.startswith("!")]:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, to / name)
    return to


def service_python() -> str:
    """A Python that a service's user can run too: not one below somebody's home."""
    python = "/usr/bin/python3" if sys.base_prefix.startswith(("/root/", "/home/")) else sys.executable
    fit = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    if not shutil.which(python) or subprocess.run([python, "-c", fit], capture_output=True).returncode:
        pytest.skip(f"needs Python 3.11 or later with venv outside home folders: {python} is not one")
    return python


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Installed by root for a user of its own, from what the image is built from; by anybody else for themselves."""
    python = service_python()
    source = build_context(tmp_path_factory.mktemp("source"))
    # Not pytest's own folder, which is shut to others.
    folder = Path(tempfile.mkdtemp(prefix="lexora-"))
    folder.chmod(0o755)
    user = f"lexora-{os.getpid()}" if ROOT_RUNS else Path.home().owner()
    try:
        made = Installed(folder / "lexora", user, python, source)
        made.install()
        yield made
    finally:
        shutil.rmtree(folder)
        if ROOT_RUNS:
            subprocess.run(["userdel", user], check=True, capture_output=True)
