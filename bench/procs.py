"""The processes of a benchmark run: started on one core, watched through /proc, stopped by pid."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """The benchmark itself could not be run: says what to do."""


@dataclass(frozen=True)
class Cores:
    """Which core the measured program gets, and which one load and upstream share."""

    gateway: int
    load: int


class Proc:
    """One started program with its children."""

    def __init__(self, name: str, argv: Sequence[str | Path], core: int, log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                ["taskset", "-c", str(core), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the benchmark only, which then stops it
            )

    @property
    def pid(self) -> int:
        """Of the program itself, as taskset becomes it."""
        return self._popen.pid

    def wait_ready(self, url: str, seconds: float = 30) -> None:
        """Wait until `url` answers 200."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._popen.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                return
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-2000:]
        raise BenchError(f"{self.name} is not ready at {url}; the end of its output:\n{tail}")

    def stop(self) -> float:
        """End the program, gently first. Returns the seconds that it took."""
        begun = time.monotonic()
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._popen.wait()
        return time.monotonic() - begun

    def cpu_seconds(self) -> float:
        """CPU time of the process tree so far."""
        ticks = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                ticks += sum(map(int, _stat_fields(pid)[11:13]))  # utime, stime
        return ticks / TICKS_PER_SECOND

    def memory_mb(self) -> tuple[float, float]:
        """RSS now and at its peak, in MB (10^6 bytes), summed over the process tree."""
        now = peak = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name == "VmRSS":
                        now += int(value.split()[0])
                    elif name == "VmHWM":
                        peak += int(value.split()[0])
        return now * 1024 / 1e6, peak * 1024 / 1e6

    def _tree(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int(_stat_fields(int(entry.name))[1])
                    children.setdefault(parent, []).append(int(entry.name))
        tree = [self.pid]
        for pid in tree:
            tree += children.get(pid, [])
        return tree


class Procs:
    """Starts programs, and stops all of them when the block is left for whatever reason."""

    def __init__(self, cores: Cores, folder: Path) -> None:
        self.cores = cores
        self.folder = folder
        self._running: list[Proc] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._running:
            self._running.pop().stop()

    def start(self, name: str, argv: Sequence[str | Path], core: int, ready_url: str) -> Proc:
        """Start a program on a core; returns when `ready_url` answers 200."""
        log = self.folder / f"{name}-{len(list(self.folder.glob(f'{name}-*.log')))}.log"
        proc = Proc(name, argv, core, log)
        self._running.append(proc)
        proc.wait_ready(ready_url)
        return proc

    def stop(self, proc: Proc) -> float:
        """Stop one before the end of the block. Returns the seconds that it took."""
        self._running.remove(proc)
        return proc.stop()

    def cpu_seconds(self) -> float:
        """CPU time of everything that the benchmark runs, itself and ended commands included."""
        own = sum(
            resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return own + sum(proc.cpu_seconds() for proc in self._running)


def machine_cpu_seconds(cores: Cores) -> float:
    """Time that the two cores have spent on anything at all, stolen time included."""
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in (f"cpu{cores.gateway}", f"cpu{cores.load}"):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / TICKS_PER_SECOND


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: [0] is the state, [1] the parent."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
