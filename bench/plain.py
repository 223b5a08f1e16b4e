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
from bench.loads import PlainRun, calm_rounds, repeat, rotated, run_wrk
from bench.procs import BenchError, Procs
from bench.report import Outcome, Verdict
from bench.servers import Server
from bench.settings import Settings

PROMPT = "What is the capital of France? Answer in one short sentence."
PREPARED_PROMPT = "日本の首都はどこですか？"
CONNECTIONS = 64
WARM_UP_S = 1

Runs = dict[str, list[PlainRun]]  # by what was measured, one per round


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
    runs: Runs = {f"{server.name} at {n}": [] for server in targets for n in (CONNECTIONS, 1)}
    for server in targets:
        run = run_wrk(procs, server, body, CONNECTIONS, WARM_UP_S)
    sent, in_flight = 1 + run.requests, CONNECTIONS  # the gateway's, which came last
    for number in repeat(settings.rounds, runs):
        for server in rotated(targets, number):
            for connections, seconds in ((CONNECTIONS, settings.plain_s), (1, settings.single_s)):
                what = f"{server.name} at {connections}"
                run = run_wrk(procs, server, body, connections, seconds)
                runs[what].append(run)
                _note(outcome, number, what, run)
                if server is gateway:
                    sent, in_flight = sent + run.requests, in_flight + connections
    _add_medians(outcome, runs)
    pairs, calm = calm_rounds(runs[f"gateway at {CONNECTIONS}"], runs[f"vllm-router at {CONNECTIONS}"])
    ratio = median(ours.rate / router.rate for ours, router in pairs)
    outcome.verdicts.append(Verdict("requests/s, gateway : vllm-router", ratio, ">=", 1.0, calm=calm))
    pairs, calm = calm_rounds(runs["gateway at 1"], runs["direct at 1"])
    added_us = median(ours.p50_us - direct.p50_us for ours, direct in pairs)
    outcome.verdicts.append(Verdict("p50 added at 1 connection", added_us, "<=", 200, " µs", calm))
    _stop_and_check_record(procs, gateway, outcome, sent, in_flight)
    return outcome


def team(procs: Procs, settings: Settings) -> Outcome:
    """Forwarding with keys, limits, queue and ledger on, against the same peer; and with many keys against one."""
    outcome = Outcome("team")
    upstream = servers.start_plain_upstream(procs)
    router = servers.start_router(procs, upstream)
    one, many = (servers.start_gateway(procs, upstream, settings.gateway, keys=keys) for keys in (1, 10_000))
    body = _body_file(procs, "team", "bench", PROMPT)
    targets = [router, one, many]
    runs: Runs = {server.name: [] for server in targets}
    sent = {server.name: run_wrk(procs, server, body, CONNECTIONS, WARM_UP_S).requests for server in targets}
    for number in repeat(settings.rounds, runs):
        for server in rotated(targets, number):
            run = run_wrk(procs, server, body, CONNECTIONS, settings.plain_s)
            runs[server.name].append(run)
            _note(outcome, number, server.name, run)
            sent[server.name] += run.requests
    _add_medians(outcome, runs)
    pairs, calm = calm_rounds(runs[many.name], runs[router.name])
    ratio = median(ours.rate / theirs.rate for ours, theirs in pairs)
    outcome.verdicts.append(Verdict("requests/s, gateway with keys : vllm-router", ratio, ">=", 0.85, calm=calm))
    pairs, calm = calm_rounds(runs[many.name], runs[one.name])
    ratio = median(with_many.rate / with_one.rate for with_many, with_one in pairs)
    outcome.verdicts.append(Verdict("requests/s, 10,000 keys : one key", ratio, ">=", 0.95, calm=calm))
    in_flight = CONNECTIONS * (1 + len(runs[many.name]))
    _stop_and_check_record(procs, many, outcome, sent[many.name], in_flight)
    return outcome


def translated(procs: Procs, settings: Settings) -> Outcome:
    """OpenAI's clients at Anthropic's API and the reverse, against the gateway's own forwarding, requests/s."""
    outcome = Outcome("translated")
    upstream = servers.start_plain_upstream(procs)
    gateway = servers.start_gateway(procs, upstream, settings.gateway)
    cases = {
        "forwarded": (_body_file(procs, "forwarded", "bench", PROMPT), gateway.chat_url),
        "OpenAI to Anthropic": (_body_file(procs, "to-anthropic", "claude", PROMPT), gateway.chat_url),
        "Anthropic to OpenAI": (
            _body_file(procs, "from-anthropic", "bench", PROMPT, max_tokens=99),
            gateway.messages_url,
        ),
    }
    runs: Runs = {name: [] for name in cases}
    sent, in_flight = 0, 0
    for body, url in cases.values():
        run = run_wrk(procs, gateway, body, CONNECTIONS, WARM_UP_S, url)
        sent, in_flight = sent + run.requests, in_flight + CONNECTIONS
    for number in repeat(settings.rounds, runs):
        for name in rotated(list(cases), number):
            run = run_wrk(procs, gateway, cases[name][0], CONNECTIONS, settings.plain_s, cases[name][1])
            runs[name].append(run)
            _note(outcome, number, name, run)
            sent, in_flight = sent + run.requests, in_flight + CONNECTIONS
    _add_medians(outcome, runs)
    for name in list(cases)[1:]:
        pairs, calm = calm_rounds(runs[name], runs["forwarded"])
        ratio = median(translated.rate / usual.rate for translated, usual in pairs)
        outcome.verdicts.append(Verdict(f"requests/s, {name} : forwarded", ratio, ">=", 0.5, calm=calm))
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
    runs: Runs = {name: [] for name in bodies}
    sent, in_flight = 1, 0
    for body in bodies.values():
        run = run_wrk(procs, gateway, body, CONNECTIONS, WARM_UP_S)
        sent, in_flight = sent + run.requests, in_flight + CONNECTIONS
    for number in repeat(settings.rounds, runs):
        for name in rotated(list(bodies), number):
            run = run_wrk(procs, gateway, bodies[name], CONNECTIONS, settings.plain_s)
            runs[name].append(run)
            _note(outcome, number, name, run)
            sent, in_flight = sent + run.requests, in_flight + CONNECTIONS
    _add_medians(outcome, runs)
    pairs, calm = calm_rounds(runs["prepared"], runs["forwarded"])
    ratio = median(quick.rate / usual.rate for quick, usual in pairs)
    outcome.verdicts.append(Verdict("requests/s, prepared : forwarded", ratio, ">=", 1.5, calm=calm))
    _stop_and_check_record(procs, gateway, outcome, sent, in_flight)
    return outcome


def _add_medians(outcome: Outcome, runs: Runs) -> None:
    for what, all_runs in runs.items():
        kept = [run for (run,) in calm_rounds(all_runs)[0]]
        outcome.summary[f"{what}: req/s"] = median(run.rate for run in kept)
        outcome.summary[f"{what}: p50, µs"] = median(run.p50_us for run in kept)
        outcome.summary[f"{what}: p99, µs"] = median(run.p99_us for run in kept)


def _note(outcome: Outcome, number: int, what: str, run: PlainRun) -> None:
    outcome.runs.append({"round": number, "what": what, **asdict(run)})
    outcome.problems += [f"{what}, round {number}: {found}" for found in run.problems()]
    print(
        f"  {number}  {what:18}{run.rate:>9,.0f} req/s  "
        f"p50 {run.p50_us:>6,} µs  p99 {run.p99_us:>7,} µs  {run.cpu.text()}",
        flush=True,
    )


def _body_file(procs: Procs, name: str, model: str, prompt: str, **more: int) -> Path:
    path = procs.folder / f"{name}.json"
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
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
