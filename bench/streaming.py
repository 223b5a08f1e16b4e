"""Scenarios of streamed completions: many busy streams, and more idle ones."""

from dataclasses import asdict
from statistics import median

from bench import servers
from bench.loads import StreamRun, calm_rounds, repeat, rotated, run_streams
from bench.procs import Procs
from bench.report import Outcome, Verdict
from bench.servers import Server
from bench.settings import Settings

STREAMS, TOKENS, INTERVAL_MS = 500, 64, 20
HELD_STREAMS, HELD_INTERVAL_MS = 2000, 2000
RSS_MB = 150
SATURATED = 0.9  # of the load core: above it, load generator and upstream set the figures


def stream(procs: Procs, settings: Settings) -> Outcome:
    """500 streams of 50 tokens/s: TTFT added, events lost, memory."""
    outcome = Outcome("stream")
    upstream = servers.start_stream_upstream(procs, INTERVAL_MS)
    gateway = servers.start_gateway(procs, upstream, settings.gateway)
    targets = [upstream, servers.start_router(procs, upstream), gateway]
    runs: dict[str, list[StreamRun]] = {server.name: [] for server in targets}
    for server in targets:
        run_streams(procs, server, 20, 5, 100, 0)  # warm-up
    for number in repeat(settings.stream_rounds, runs):
        for server in rotated(targets, number):
            ramp_ms = TOKENS * INTERVAL_MS  # one stream's length: the phases stay spread
            run = run_streams(procs, server, STREAMS, TOKENS, ramp_ms, settings.stream_s)
            runs[server.name].append(run)
            _note(outcome, number, server, run)
    for server in targets:
        kept = [run for (run,) in calm_rounds(runs[server.name])[0]]
        outcome.summary[f"{server.name}: TTFT p50, ms"] = median(run.ttft_us["p50"] / 1000 for run in kept)
        outcome.summary[f"{server.name}: TTFT p99, ms"] = median(run.ttft_us["p99"] / 1000 for run in kept)
        outcome.summary[f"{server.name}: cores used"] = median(run.cpu.server for run in kept)
    pairs, calm = calm_rounds(runs["gateway"], runs["direct"])
    added_us = median(ours.ttft_us["p99"] - direct.ttft_us["p99"] for ours, direct in pairs)
    outcome.summary["vllm-router: peak RSS, MB"] = targets[1].proc.memory_mb()[1]
    outcome.verdicts = [
        Verdict("p99 TTFT added", added_us / 1000, "<=", 50, " ms", calm),
        _none_lost(runs["gateway"]),
        Verdict("peak RSS of the gateway", gateway.proc.memory_mb()[1], "<=", RSS_MB, " MB"),
    ]
    return outcome


def held(procs: Procs, settings: Settings) -> Outcome:
    """2,000 streams that say little: all complete, memory."""
    outcome = Outcome("held")
    upstream = servers.start_stream_upstream(procs, HELD_INTERVAL_MS)
    gateway = servers.start_gateway(procs, upstream, settings.gateway)
    outcome.summary["gateway: RSS at rest, MB"] = gateway.proc.memory_mb()[0]
    runs: dict[str, list[StreamRun]] = {"gateway": []}
    for number in repeat(1, runs):
        run = run_streams(procs, gateway, HELD_STREAMS, settings.held_tokens, HELD_INTERVAL_MS, 0)
        runs["gateway"].append(run)
        _note(outcome, number, gateway, run)
    kept, _ = calm_rounds(runs["gateway"])
    outcome.summary["gateway: TTFT p99, ms"] = median(run.ttft_us["p99"] / 1000 for (run,) in kept)
    outcome.summary["gateway: peak RSS, MB"] = gateway.proc.memory_mb()[1]
    outcome.verdicts = [_none_lost(runs["gateway"])]
    return outcome


def _none_lost(runs: list[StreamRun]) -> Verdict:
    lost = sum(run.streams - run.good for run in runs)
    return Verdict(f"faulty streams of {sum(run.streams for run in runs):,}", lost, "==", 0)


def _note(outcome: Outcome, number: int, server: Server, run: StreamRun) -> None:
    rss_mb = server.proc.memory_mb()[0]
    outcome.runs.append({"round": number, "what": server.name, "rss_mb": rss_mb, **asdict(run)})
    direct = server.name == "direct"
    where = f"{server.name}, round {number}"
    for problem in run.problems():
        if direct:
            outcome.problems.append(f"{where}: {problem}")
        else:
            print(f"  {where}: {problem}")  # the gateway's count in a verdict
    busy = run.cpu.load + (run.cpu.server if direct else 0)
    if busy > SATURATED:
        outcome.problems.append(f"{where}: the load core is saturated ({busy:.2f})")
    print(
        f"  {number}  {server.name:12}{run.good:>6}/{run.streams} streams good  "
        f"{run.events / run.seconds:>7,.0f} events/s  TTFT p50 {run.ttft_us['p50'] / 1000:.2f} "
        f"p99 {run.ttft_us['p99'] / 1000:.2f} ms  gap p99 {run.gap_us['p99'] / 1000:.1f} "
        f"max {run.gap_us['max'] / 1000:.0f} ms  RSS {rss_mb:.0f} MB  {run.cpu.text()}",
        flush=True,
    )
