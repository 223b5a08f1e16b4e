"""Runs the benchmarks: `python -m bench.run [--quick] [--only NAME] [--rounds N]`.

The measured server has one core to itself; load generator and upstream share another.
Exit code 0: all targets met; 1: some missed; 2: some runs invalid; 3: could not be run.
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import plain, report, servers, streaming
from bench.procs import BenchError, Cores, Procs
from bench.report import Outcome
from bench.settings import Settings

SCENARIOS: dict[str, Callable[[Procs, Settings], Outcome]] = {
    "forward": plain.forward,
    "stream": streaming.stream,
    "held": streaming.held,
    "prepared": plain.prepared,
    "team": plain.team,
    "translated": plain.translated,
}


def main() -> int:
    """Measure what the command line says. Returns the exit code."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    settings = Settings(gateway=arguments.gateway.absolute())
    if arguments.quick:
        settings = replace(settings, rounds=2, plain_s=2, single_s=1, stream_rounds=1, stream_s=4, held_tokens=4)
    if arguments.rounds:
        settings = replace(settings, rounds=arguments.rounds, stream_rounds=arguments.rounds)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, arguments.nice)  # and so of all that is started
        outcomes = _run_all(arguments.only or list(SCENARIOS), settings, arguments.keep)
    except (BenchError, PermissionError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return report.exit_code(outcomes)


def _run_all(names: list[str], settings: Settings, keep: bool) -> list[Outcome]:
    about = report.machine()
    cores = _two_cores()
    if not settings.gateway.exists():
        raise BenchError(f"there is no gateway at {settings.gateway}: name it with --gateway")
    servers.install_peers()
    os.sched_setaffinity(0, {cores.load})
    outcomes = []
    cores_of = f"gateway and peers on core {cores.gateway}, load and upstream on core {cores.load}"
    print(f"{cores_of}; Python {about['python']}\n")
    folder = Path(tempfile.mkdtemp(prefix="lexora-bench-"))
    try:
        for name in names:
            print(name, flush=True)
            outcomes.append(_run_one(name, settings, cores, folder / name))
            outcomes[-1].show()
    finally:
        if keep:
            print(f"configs, logs and data are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    chosen = {**vars(settings), "gateway": str(settings.gateway)}
    print(f"written to {os.path.relpath(report.write(outcomes, chosen, about))}")
    return outcomes


def _run_one(name: str, settings: Settings, cores: Cores, folder: Path) -> Outcome:
    folder.mkdir()
    try:
        with Procs(cores, folder) as procs:
            return SCENARIOS[name](procs, settings)
    except BenchError as error:
        return Outcome(name, problems=[str(error)])


def _two_cores() -> Cores:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed: one for the gateway, one for the load")
    return Cores(gateway=cores[0], load=cores[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Benchmarks of the gateway against peers.")
    parser.add_argument("--quick", action="store_true", help="short runs: shows what breaks")
    parser.add_argument("--rounds", type=int, help="rounds of every scenario (5 plain, 3 stream)")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="one scenario; may be repeated")
    parser.add_argument(
        "--nice", type=int, default=0, help="priority of all that is started: as root, -10 keeps other work out"
    )
    parser.add_argument("--keep", action="store_true", help="keep the servers' logs and data")
    parser.add_argument(
        "--gateway",
        type=Path,
        default=servers.ROOT / ".venv" / "bin" / "lexora",
        help="the `lexora` command to measure (default: that of .venv)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
