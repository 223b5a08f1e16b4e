"""What a benchmark run found: outcomes with verdicts, printed and written as JSON."""

import json
import operator
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.servers import HERE, ROOT

_RELATIONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt, "==": operator.eq}


@dataclass(frozen=True)
class Verdict:
    """One figure against its target."""

    name: str
    value: float
    relation: Literal[">=", "<=", "<", "=="]
    target: float
    unit: str = ""
    calm: bool = True  # False: other work disturbed every round

    @property
    def passed(self) -> bool:
        """Whether the figure meets its target."""
        return bool(_RELATIONS[self.relation](self.value, self.target))

    def line(self, valid: bool) -> str:
        """The line that is printed of it."""
        word = ("pass" if self.passed else "MISS") if valid and self.calm else "INVALID"
        return (
            f"  {word:8}{self.name}: {_number(self.value)}{self.unit} "
            f"(target {self.relation} {_number(self.target)}{self.unit})"
            + ("" if self.calm else " - other work disturbed every round")
        )


@dataclass
class Outcome:
    """One scenario: every run of it, the medians, the verdicts, and what went wrong."""

    scenario: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # any of them makes the outcome invalid

    def show(self) -> None:
        """Print the medians and the verdicts."""
        print(f"\n{self.scenario}: medians")
        for name, value in self.summary.items():
            print(f"  {name:40}{_number(value):>12}")
        for problem in self.problems:
            print(f"  INVALID {problem}")
        for verdict in self.verdicts:
            print(verdict.line(valid=not self.problems))
        print(flush=True)


def machine(peers: Path = HERE / "requirements.in") -> dict[str, object]:
    """What the figures depend on: processor, system, revision, and the peers that a file names."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    revision = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "peer": peers.read_text().strip(),
        "revision": revision.stdout.strip() if revision.returncode == 0 else None,
    }


def write(outcomes: list[Outcome], settings: dict[str, object], about: dict[str, object]) -> Path:
    """Write bench/results/<time>.json; returns its path."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    document = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": about,
        "settings": settings,
        "outcomes": [
            {
                **asdict(outcome),
                "verdicts": [{**asdict(v), "passed": v.passed} for v in outcome.verdicts],
            }
            for outcome in outcomes
        ],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def exit_code(outcomes: list[Outcome]) -> int:
    """0 all targets met, 1 some missed, 2 some runs invalid."""
    verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
    if any(outcome.problems for outcome in outcomes) or not all(verdict.calm for verdict in verdicts):
        return 2
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
