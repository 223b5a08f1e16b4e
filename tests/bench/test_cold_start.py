"""The benchmark of the Lambda: what it measures passes or misses, and it runs."""

import subprocess
from typing import Any

import pytest

from bench.cold_start import judged
from bench.report import Outcome, Verdict, exit_code
from tests.support.gateway import ROOT

FIGURES = {"ours": 0.22, "imports": 0.2, "uncollected": 0.19, "peer": 0.4}
VERDICTS = (
    "first answer / bare imports and a client",
    "the same, both without garbage collection",
    "first answer / FastAPI's",
    "p50 of a warm answer's CPU",
)


def a_round(warm: float = 0.002, **cold: float) -> dict[str, dict[str, Any]]:
    return {kind: {"cold": seconds, "warm": warm} for kind, seconds in (FIGURES | cold).items()}


def missed(outcome: Outcome) -> list[str]:
    return [verdict.name for verdict in outcome.verdicts if not verdict.passed]


def test_good_figures_pass() -> None:
    outcome = judged([a_round(), a_round(), a_round()])
    assert [verdict.name for verdict in outcome.verdicts] == list(VERDICTS)
    assert (missed(outcome), exit_code([outcome])) == ([], 0)


@pytest.mark.parametrize(
    ("bad", "verdict"),
    [
        ({"imports": 0.18}, VERDICTS[0]),
        ({"uncollected": 0.18}, VERDICTS[1]),
        ({"peer": 0.22}, VERDICTS[2]),
        ({"warm": 0.0051}, VERDICTS[3]),
    ],
)
def test_each_target_can_be_missed(bad: dict[str, float], verdict: str) -> None:
    outcome = judged([a_round(**bad)])
    assert (missed(outcome), exit_code([outcome])) == ([verdict], 1)


def test_one_disturbed_round_decides_nothing() -> None:
    assert not missed(judged([a_round(), a_round(ours=9), a_round()]))


def test_a_zip_that_is_too_large_is_a_miss() -> None:
    outcome = Outcome("zip", verdicts=[Verdict("all of it, unpacked", 20.1, "<=", 20, " MB")])
    assert exit_code([outcome]) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_quick_run_measures_everything() -> None:
    ended = subprocess.run(
        ["make", "-s", "bench-lambda", "ARGS=--quick"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode in (0, 2), ended.stdout + ended.stderr  # make's code for any failure is 2
    lines = ended.stdout.splitlines()
    for name in (*VERDICTS, "all of it, unpacked"):
        assert any(name in line and line.startswith(("  pass", "  MISS")) for line in lines), ended.stdout
