"""The `lexora` command and `make`, run to their ends as a person runs them."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.gateway import ROOT, clean_environment

LEXORA = Path(sys.prefix) / "bin" / "lexora"


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


def make_command(*arguments: str) -> list[str]:
    """`make` in the project, with the environment that runs the tests taken for up to date."""
    as_it_is = ("-o", f"{sys.prefix}/service", f"VENV={sys.prefix}")
    return ["make", "-C", str(ROOT), "--no-print-directory", *as_it_is, *arguments]


def run(*command: str | Path, env: Mapping[str, str] | None = None, folder: Path | None = None) -> Ended:
    """Runs a command that is to end by itself."""
    ended = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=30, env=clean_environment(env), cwd=folder
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def refusal(*arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """The one line with which `lexora serve` refuses to start."""
    status, out, err = run(LEXORA, "serve", *arguments, env=env)
    assert (status, out) == (2, ""), err
    line = re.fullmatch(r"lexora: (.+)\n", err)
    assert line, err
    return line[1]
