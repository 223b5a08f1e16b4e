"""The README's first command, on a machine that has nothing of ours yet."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.gateway import ROOT, free_port


def _clone(to: Path) -> None:
    """What git knows of the working tree, and nothing else."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def _start_and_try(clone: Path, port: int, screen_file: Path) -> str:
    """Runs `make run`, pastes the curl line it prints into a shell, stops it, and gives what curl printed."""
    with screen_file.open("wb") as screen:
        make = subprocess.Popen(
            ["make", "run", f"PORT={port}", "DATA=data"],
            cwd=clone,
            stdout=subprocess.DEVNULL,
            stderr=screen,
            env={"PATH": os.environ["PATH"], "HOME": str(clone)} | {k: v for k, v in os.environ.items() if "PIP" in k},
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 300
        while "try it" not in (text := screen_file.read_text()):
            assert make.poll() is None, text
            assert time.monotonic() < until, text
            time.sleep(0.1)
        time.sleep(0.2)
        curl = next(line for line in screen_file.read_text().splitlines() if line.strip().startswith("curl "))
        return subprocess.run(["sh", "-c", curl], check=True, capture_output=True, text=True).stdout
    finally:
        os.killpg(make.pid, signal.SIGTERM)
        make.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_make_run_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "lexora"
    _clone(clone)
    for start in range(2):
        screen = tmp_path / f"screen{start}"
        answer = _start_and_try(clone, free_port(), screen)
        assert "東京" in answer
        assert ("(once)" in screen.read_text()) is (start == 0), "the second start installs nothing"
    assert (clone / "data" / "lexora.db").exists()
