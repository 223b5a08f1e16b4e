"""The first commands of README and docs/deploy.md, on a machine that has nothing of ours yet."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.emulator import running_emulator
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_deploy_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "lexora"
    _clone(clone)
    # The emulator runs functions under its own interpreter, whatever their runtime says.
    here = f"ARGS=-c architecture=x86_64 -c python={sys.version_info.major}.{sys.version_info.minor}"
    with running_emulator(tmp_path / "emulator") as emulator:

        def make(*arguments: str, given: str = "") -> str:
            ended = subprocess.run(
                ["make", *arguments],
                input=given,
                cwd=clone,
                env=emulator.environment({"YES": "1"}),
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            return ended.stdout

        make("bootstrap")
        curl = next(line for line in make("deploy", here).splitlines() if line.strip().startswith("curl "))
        answer = subprocess.run(["sh", "-c", curl], check=True, capture_output=True, text=True).stdout
        assert "東京" in answer
        make("secrets-set", "NAME=OPENAI_API_KEY", given="sk-1\n")
        key = make("keys", "ARGS=create --user ann").strip()
        assert re.fullmatch(r"sk-lexora-[0-9a-f]{12}-[\w-]{43}", key)
        assert "ann" in make("keys", "ARGS=list")
        make("keys", f"ARGS=revoke {key.split('-')[2]}")
        make("config-pull")
        model_map = json.loads((clone / "model_map.json").read_text())
        del model_map["models"]["claude"]
        (clone / "model_map.json").write_text(json.dumps(model_map))
        assert '-    "claude": {' in make("config-push")
        assert '"message":"chat_completion"' in make("logs", "FOLLOW=0")
        make("destroy", here)
        stacks = emulator.client("cloudformation").describe_stacks()["Stacks"]
        assert [stack["StackName"] for stack in stacks if stack["StackStatus"] != "DELETE_COMPLETE"] == ["CDKToolkit"]
