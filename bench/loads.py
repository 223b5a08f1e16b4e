"""One run of a load generator against one server, with the CPU that everybody used meanwhile."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.procs import BenchError, Proc, Procs, machine_cpu_seconds
from bench.servers import HERE, Server, compile_c, find_tool

CALM = 0.2  # cores: a run during which other work took more does not count


@dataclass(frozen=True)
class Cpu:
    """CPU used during a run, in cores (1.0 is one core all the time)."""

    server: float  # the measured server
    load: float  # the load generator, the upstream and the benchmark itself
    foreign: float  # whatever else ran on the two cores

    def text(self) -> str:
        """All three, for a progress line."""
        return f"cores: {self.server:.2f} server {self.load:.2f} load {self.foreign:.2f} other"


@dataclass(frozen=True)
class PlainRun:
    """What wrk counted: requests, seconds, latencies in µs."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    non_2xx: int
    socket_errors: int
    cpu: Cpu

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def problems(self) -> list[str]:
        """What makes the run invalid."""
        found = [f"{self.non_2xx} answers other than 2xx"] if self.non_2xx else []
        found += [f"{self.socket_errors} socket errors"] if self.socket_errors else []
        found += [] if self.requests else ["no request was answered"]
        return found


@dataclass(frozen=True)
class StreamRun:
    """What stream_load counted: streams, events, times in µs (gap: from one token to the next)."""

    streams: int
    good: int
    faults: dict[str, int]
    events: int
    reconnects: int
    unasked_usage: int
    seconds: float
    ttft_us: dict[str, int]
    gap_us: dict[str, int]
    cpu: Cpu

    def problems(self) -> list[str]:
        """What is wrong with the streams."""
        found = [f"{count} streams with the fault {name!r}" for name, count in self.faults.items()]
        if not self.faults and self.good != self.streams:
            found.append(f"only {self.good} of {self.streams} streams are good")
        return found


T = TypeVar("T")
Run = TypeVar("Run", PlainRun, StreamRun)


class CpuMeter:
    """Measures the CPU used from its making to `read`."""

    def __init__(self, procs: Procs, server: Proc) -> None:
        self._procs = procs
        self._server = server
        self._begun = time.monotonic()
        self._start = self._totals()

    def read(self) -> Cpu:
        """The CPU used so far."""
        seconds = time.monotonic() - self._begun
        server, ours, machine = (
            (end - start) / seconds for start, end in zip(self._start, self._totals(), strict=True)
        )
        return Cpu(round(server, 3), round(ours - server, 3), round(max(0, machine - ours), 3))

    def _totals(self) -> tuple[float, float, float]:
        return (
            self._server.cpu_seconds(),
            self._procs.cpu_seconds(),
            machine_cpu_seconds(self._procs.cores),
        )


def run_wrk(
    procs: Procs, server: Server, body: Path, connections: int, seconds: float, url: str | None = None
) -> PlainRun:
    """POST the body for some seconds over keep-alive connections, one thread, on the load core.

    Chat completions are asked for, unless there is a `url`.
    """
    argv: list[str | Path] = [
        find_tool("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s",
        "-s", HERE / "post.lua", url or server.chat_url, "--", body, *([server.key] if server.key else []),
    ]  # fmt: skip
    return PlainRun(**_run(procs, server, argv))


def run_streams(procs: Procs, server: Server, streams: int, tokens: int, ramp_ms: int, seconds: int) -> StreamRun:
    """Hold streams open: each slot asks again until the seconds are over (0: one stream each)."""
    argv: list[str | Path] = [
        compile_c("stream_load"), "-p", str(server.port), "-n", str(streams),
        "-t", str(tokens), "-r", str(ramp_ms), "-d", str(seconds),
    ]  # fmt: skip
    return StreamRun(**_run(procs, server, argv))


def rotated(items: list[T], by: int) -> list[T]:
    """The items in turn beginning with another one, so that no server always goes first."""
    by %= len(items)
    return items[by:] + items[:by]


def repeat(wanted: int, runs: Mapping[str, Sequence[Run]]) -> Iterator[int]:
    """Numbers of the rounds to run: until as many as are wanted were calm, at most twice as many."""
    number = 0
    while number < 2 * wanted and len(_calm(*runs.values())) < wanted:
        number += 1
        yield number


def calm_rounds(*columns: Sequence[Run]) -> tuple[list[tuple[Run, ...]], bool]:
    """The runs of the rounds in which other work left all of them alone; if there is none, all rounds, and False."""
    calm = _calm(*columns)
    return calm or list(zip(*columns, strict=True)), bool(calm)


def _calm(*columns: Sequence[Run]) -> list[tuple[Run, ...]]:
    rounds = zip(*columns, strict=True)
    return [runs for runs in rounds if all(run.cpu.foreign <= CALM for run in runs)]


def _run(procs: Procs, server: Server, argv: list[str | Path]) -> dict[str, Any]:
    """Run a generator whose last line is JSON: that, and the CPU."""
    meter = CpuMeter(procs, server.proc)
    pinned = ["taskset", "-c", str(procs.cores.load), *argv]
    ended = subprocess.run(pinned, capture_output=True, text=True, check=False)
    cpu = meter.read()
    if ended.stderr:
        print(ended.stderr.rstrip())
    if ended.returncode != 0 or not ended.stdout.strip():
        raise BenchError(f"{argv[0]} ended with {ended.returncode}: {ended.stdout[-500:]}")
    return {**json.loads(ended.stdout.splitlines()[-1]), "cpu": cpu}
