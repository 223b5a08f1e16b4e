"""The emulator leaves nothing running, whatever becomes of the tests."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.gateway import ROOT


def test_it_ends_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from tests.support.emulator import running_emulator\n"
        f"with running_emulator(pathlib.Path({str(tmp_path / 'emulator')!r})) as emulator:\n"
        "    print(emulator.process.pid, flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        emulator = psutil.Process(int(run.stdout.readline()))
        run.kill()
    _, alive = psutil.wait_procs([emulator], timeout=10)
    for left in alive:
        left.kill()
    assert alive == []
