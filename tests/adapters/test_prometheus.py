"""Metrics, as Prometheus reads them."""

import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lexora.adapters.prometheus import BUCKETS, Gauge, PrometheusMetrics
from lexora.core.record import Record, RequestIds

OWN: dict[str, Any] = {"model": "chat", "origin": "own", "provider": "vllm", "deployment": "vllm/a"}
BY = {"model": "chat", "origin": "own"}
MADE_UP = "made up by a client"


def record(**facts: Any) -> Record:
    return Record(RequestIds(1).new(1), 1.0, "chat.completions", **facts)


def samples(*records: Record) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    metrics = PrometheusMetrics("1.2.3", 12.5)
    metrics.write(list(records))
    return parsed(metrics)


def parsed(metrics: PrometheusMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = list(text_string_to_metric_families(metrics.text().decode()))
    assert all(family.documentation and family.type != "unknown" for family in families)
    found = [sample for family in families for sample in family.samples]
    made = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(made) == len(found)
    return made


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def test_requests_tokens_and_costs_are_counted() -> None:
    found = samples(
        record(**OWN, tokens_in=3, tokens_out=4, cost_usd=0.25),
        record(**OWN, tokens_in=30, tokens_out=40, cost_usd=None),
        record(**OWN, outcome="failed", status=502, error_code="upstream_broken"),
    )
    by = {**BY, "deployment": "vllm/a"}
    assert value(found, "lexora_requests_total", **by, outcome="completed", status="200") == 2
    assert value(found, "lexora_requests_total", **by, outcome="failed", status="502") == 1
    assert value(found, "lexora_tokens_total", **BY, direction="input") == 33
    assert value(found, "lexora_tokens_total", **BY, direction="output") == 44
    assert value(found, "lexora_cost_usd_total", **BY) == 0.25
    assert value(found, "lexora_errors_total", code="upstream_broken") == 1
    assert value(found, "lexora_build_info", version="1.2.3") == 1
    assert value(found, "lexora_start_time_seconds") == 12.5


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("lexora_request_duration_seconds", "duration_ms"),
        ("lexora_ttft_seconds", "ttft_ms"),
        ("lexora_queue_wait_seconds", "queue_ms"),
        ("lexora_upstream_seconds", "upstream_ms"),
    ],
)
def test_times_fall_into_buckets(name: str, field: str) -> None:
    times = [0, 5, 5.1, 700, 601_000]
    found = samples(*[record(**OWN, **{field: each}) for each in times])
    for bound in BUCKETS:
        below = sum(each / 1e3 <= bound for each in times)
        assert value(found, f"{name}_bucket", **BY, le=str(float(bound))) == below
    assert value(found, f"{name}_bucket", **BY, le="+Inf") == value(found, f"{name}_count", **BY) == 5
    assert value(found, f"{name}_sum", **BY) == pytest.approx(sum(times) / 1e3)


def test_what_did_not_happen_is_not_measured() -> None:
    found = samples(record(**OWN))
    assert value(found, "lexora_ttft_seconds_count", **BY) is None
    assert value(found, "lexora_request_duration_seconds_count", **BY) == 1


@pytest.mark.parametrize("attempts", ["", "nonsense", "{}", "[]"])
def test_attempts_that_nobody_understands_are_left_out(attempts: str) -> None:
    assert not [key for key in samples(record(failed_attempts=attempts)) if key[0] == "lexora_failed_attempts_total"]


def test_failed_attempts_are_counted_by_deployment_and_error() -> None:
    text = '[{"deployment":"a","error":"upstream_broken","ms":1,"tokens":0},{"deployment":"b","error":null}]'
    found = samples(record(**OWN, failed_attempts=text), record(**OWN, failed_attempts=text))
    assert value(found, "lexora_failed_attempts_total", deployment="a", error="upstream_broken") == 2
    assert value(found, "lexora_failed_attempts_total", deployment="b", error="") == 2


@pytest.mark.parametrize(
    "facts",
    [
        {"outcome": "failed", "status": 404, "error_code": "model_not_found"},
        {"origin": "fixed", "deployment": "fixed/q1/0"},
    ],
    ids=["unknown model", "prepared answer"],
)
def test_no_label_is_what_a_client_made_up(facts: dict[str, Any]) -> None:
    assert MADE_UP not in str(samples(record(model=MADE_UP, user_id=MADE_UP, **facts)))
    assert "q1" not in str(samples(record(model=MADE_UP, **facts)))


def test_codes_that_an_upstream_makes_up_are_bounded() -> None:
    found = samples(*[record(outcome="failed", error_code=f"code {number}") for number in range(1000)])
    assert len([name for name, _ in found if name == "lexora_errors_total"]) == 101
    assert value(found, "lexora_errors_total", code="other") == 900


def test_what_is_so_at_the_moment_is_asked_for_each_time() -> None:
    depth = [1]

    def live() -> list[Gauge]:
        return [
            Gauge("lexora_queue_depth", "Waiting.", {"deployment": 'a "b"\n\\', "priority": priority}, depth[0])
            for priority in ("high", "low")
        ]

    metrics = PrometheusMetrics("1", 0, live)
    for depth[0] in (1, 5):
        found = parsed(metrics)
        assert value(found, "lexora_queue_depth", deployment='a "b"\n\\', priority="low") == depth[0]


def test_it_is_read_while_it_is_written() -> None:
    metrics = PrometheusMetrics("1", 0)
    batch = [[record(**{**OWN, "model": f"{number}"})] for number in range(300)]
    thread = threading.Thread(target=lambda: [metrics.write(each) for each in batch])
    thread.start()
    while thread.is_alive():
        parsed(metrics)
    thread.join()
    assert len([name for name, _ in parsed(metrics) if name == "lexora_requests_total"]) == 300
