"""Scenarios of plain completions, under wrk: forwarding against a peer, prepared answers."""

import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench import servers
from bench.loads import PlainRun, rotated, run_wrk
from bench.procs import BenchError, Procs
from bench.report import Outcome, Verdict
from bench.servers import Server
from bench.settings import Settings

PROMPT = "What is the capital of France? Answer in one short sentence."
PREPARED_PROMPT = "日本の首都はどこですか？"
CONNECTIONS = 64
WARM_UP_S = 1

Runs = dict[str, list[PlainRun]]  # by what was measured; one a round


def forward(procs: Procs, settings: Settings) -> Outcome:
    """A small plain completion through each server: requests/s, and p50 at one connection."""
    outcome = Outcome("forward")
    upstream = servers.start_plain_upstream(procs)
    gateway = servers.start_gateway(procs, upstream, settings.gateway)
    targets = [
        Server("direct", upstream.port, upstream.proc),
        servers.start_nginx_proxy(procs, upstream),
        servers.start_router(procs, upstream),
        gateway,
    ]
    body = _body_file(procs, "forward", "bench", PROMPT)
    _expect_answer(gateway, body, ["own", "paid"])
    many = Runs({server.name: [] for server in targets})
    single = Runs({server.name: [] for server in targets})
    for server in targets:
        run = run_wrk(procs, server, body, CONNECTIONS, WARM_UP_S)
    sent, in_flight = 1 + run.requests, CONNECTIONS  # the gateway's, which came last
    for number in outcome.repeat(settings.rounds):
        for server in rotated(targets, number):
            for runs, connections, seconds in (
                (many, CONNECTIONS, settings.plain_s),
                (single, 1, settings.single_s),
            ):
                run = run_wrk(procs, server, body, connections, seconds)
                runs[server.name].append(run)
                _note(outcome, number, server.name, connections, run)
                if server is gateway:
                    sent, in_flight = sent + run.requests, in_flight + connections
    for name in many:
        _add_rates(outcome, name, many)
        outcome.summary[f"{name}: p50 at 1, µs"] = median(single[name][i].p50_us for i in outcome.kept())
    added_us = median(single["gateway"][i].p50_us - single["direct"][i].p50_us for i in outcome.kept())
    outcome.verdicts = [
        Verdict("requests/s, gateway : vllm-router", _ratio(outcome, many, "gateway", "vllm-router"), ">=", 1.0),
        Verdict("p50 added at 1 connection", added_us, "<=", 200, " µs"),
    ]
    _stop_and_check_record(procs, gateway, outcome, sent, in_flight)
    return outcome


def prepared(procs: Procs, settings: Settings) -> Outcome:
    """A prepared answer against the gateway's own forwarding, requests/s."""
    outcome = Outcome("prepared")
    upstream = servers.start_plain_upstream(procs)
    gateway = servers.start_gateway(procs, upstream, settings.gateway)
    bodies = {
        "forwarded": _body_file(procs, "forwarded", "bench", PROMPT),
        "prepared": _body_file(procs, "prepared", "any", PREPARED_PROMPT),
    }
    _expect_answer(gateway, bodies["prepared"], ["fixed", "edge"])
    runs = Runs({name: [] for name in bodies})
    sent, in_flight = 1, 0
    for body in bodies.values():
        run = run_wrk(procs, gateway, body, CONNECTIONS, WARM_UP_S)
        sent, in_flight = sent + run.requests, in_flight + CONNECTIONS
    for number in outcome.repeat(settings.rounds):
        for name in rotated(list(bodies), number):
            run = run_wrk(procs, gateway, bodies[name], CONNECTIONS, settings.plain_s)
            runs[name].append(run)
            _note(outcome, number, name, CONNECTIONS, run)
            sent, in_flight = sent + run.requests, in_flight + CONNECTIONS
    for name in runs:
        _add_rates(outcome, name, runs)
    ratio = _ratio(outcome, runs, "prepared", "forwarded")
    outcome.verdicts = [Verdict("requests/s, prepared : forwarded", ratio, ">=", 1.5)]
    _stop_and_check_record(procs, gateway, outcome, sent, in_flight)
    return outcome


def _add_rates(outcome: Outcome, name: str, runs: Runs) -> None:
    kept = [runs[name][i] for i in outcome.kept()]
    outcome.summary[f"{name}: req/s at {CONNECTIONS}"] = median(run.rate for run in kept)
    outcome.summary[f"{name}: req per CPU second"] = median(run.rate_of_cpu for run in kept)


def _ratio(outcome: Outcome, runs: Runs, name: str, to: str) -> float:
    """Median over the rounds of the ratio of two rates."""
    return median(runs[name][i].rate / runs[to][i].rate for i in outcome.kept())


def _note(outcome: Outcome, number: int, name: str, connections: int, run: PlainRun) -> None:
    outcome.runs.append({"round": number, "what": name, "connections": connections, **asdict(run)})
    outcome.problems += [f"{name}, round {number}: {found}" for found in run.problems()]
    print(
        f"  {number}  {name:12}{connections:>4} conn {run.rate:>9,.0f} req/s  "
        f"p50 {run.p50_us:>6,} µs  p99 {run.p99_us:>7,} µs  {run.cpu.text()}",
        flush=True,
    )


def _body_file(procs: Procs, name: str, model: str, prompt: str) -> Path:
    path = procs.folder / f"{name}.json"
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    path.write_text(json.dumps(body, ensure_ascii=False))
    return path


def _expect_answer(gateway: Server, body: Path, origins: Sequence[str]) -> None:
    """One request ahead of the load: is it answered, and from where it should be?"""
    request = urllib.request.Request(gateway.chat_url, body.read_bytes(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            origin, answer = response.headers["x-lexora-origin"], json.load(response)
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")
        raise BenchError(f"the gateway answers {error.code} to {body.name}: {detail}") from error
    if origin not in origins or not answer["choices"][0]["message"]["content"]:
        raise BenchError(f"{body.name} is answered from {origin!r}, not from {origins}: {answer}")


def _stop_and_check_record(procs: Procs, gateway: Server, outcome: Outcome, answered: int, in_flight: int) -> None:
    """Each answered request must be in the record; those cut off at the end of a run may be."""
    outcome.summary["gateway: peak RSS, MB"] = gateway.proc.memory_mb()[1]
    outcome.summary["gateway: seconds to stop"] = procs.stop(gateway.proc)
    assert gateway.data is not None
    with closing(sqlite3.connect(gateway.data / "lexora.db")) as database:
        [rows] = database.execute("SELECT count(*) FROM requests").fetchone()
    print(f"  record: {rows:,} rows for {answered:,} answers and up to {in_flight} cut off")
    outcome.summary["record: rows"] = rows
    outcome.summary["record: answers counted"] = answered
    outcome.verdicts += [
        Verdict("answers that are not in the record", max(0, answered - rows), "==", 0),
        Verdict("rows beyond the answers", max(0, rows - answered), "<=", in_flight),
    ]
