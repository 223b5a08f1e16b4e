"""Metrics as log lines (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html)."""

import json
import time
from typing import Any

import pytest

from lexora.adapters.emf import EmfMetrics
from lexora.core.record import Record, RequestIds

WHOLE = ["service", "environment"]
BY_WHAT = ["service", "environment", "model", "provider", "origin", "outcome"]
UNITS = {
    "Requests": "Count",
    "Errors": "Count",
    "UpstreamFailed": "Count",
    "TokensIn": "Count",
    "TokensOut": "Count",
    "CostUsd": "None",
    "Duration": "Milliseconds",
    "Ttft": "Milliseconds",
}
FORWARDED: dict[str, Any] = {
    "model": "chat",
    "upstream_model": "qwen3-32b",
    "deployment": "vllm/qwen3-32b",
    "provider": "vllm",
    "origin": "own",
    "tokens_in": 12,
    "tokens_out": 34,
    "cost_usd": 0.000123,
    "attempts": 1,
    "ttft_ms": 12.5,
    "duration_ms": 99.25,
}
ONE = '[{"deployment":"a","error":"upstream_broken","ms":1.5,"tokens":3}]'
TWO = '[{"deployment":"a","error":"upstream_broken"},{"deployment":"b","error":null}]'
FAILED = {"outcome": "failed", "ttft_ms": None}


def record(**facts: Any) -> Record:
    return Record(RequestIds(1).new(1), 1_795_260_267.5, "chat.completions", **facts)


def written(capsys: pytest.CaptureFixture[str], *records: Record) -> list[dict[str, Any]]:
    """The lines of the records, checked against the format as far as it goes for every line."""
    EmfMetrics("prod").write(list(records))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in found:
        check(line)
    return found


def check(line: dict[str, Any]) -> None:
    """That CloudWatch takes it: the members exist that its metadata names, and are of the types that it wants."""
    about = line["_aws"]
    assert time.time() * 1e3 - 60_000 < about["Timestamp"] < time.time() * 1e3 + 60_000
    (directive,) = about["CloudWatchMetrics"]
    assert directive["Namespace"] == "Lexora"
    for names in directive["Dimensions"]:
        assert len(names) <= 30
        for name in names:
            assert isinstance(line[name], str)
            assert 0 < len(line[name]) <= 1024
            assert line[name].isascii()
            assert line[name].strip()
    for metric in directive["Metrics"]:
        values = line[metric["Name"]]
        assert all(isinstance(value, float) for value in values)


def values(line: dict[str, Any]) -> dict[str, float]:
    return {name: line[name][0] for name in UNITS if name in line}


def dimensions(line: dict[str, Any]) -> dict[str, str]:
    return {name: line[name] for name in BY_WHAT}


def test_a_request_counts_for_the_environment_and_for_what_answered_how(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = written(capsys, record(**FORWARDED))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [WHOLE, BY_WHAT]
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == UNITS
    assert dimensions(line) == {
        "service": "lexora",
        "environment": "prod",
        "model": "chat",
        "provider": "vllm",
        "origin": "own",
        "outcome": "completed",
    }
    assert values(line) == {
        "Requests": 1,
        "Errors": 0,
        "UpstreamFailed": 0,
        "TokensIn": 12,
        "TokensOut": 34,
        "CostUsd": 0.000123,
        "Duration": 99.25,
        "Ttft": 12.5,
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_record_of_a_batch_has_its_line(capsys: pytest.CaptureFixture[str], count: int) -> None:
    lines = written(capsys, *[record(**{**FORWARDED, "tokens_in": number}) for number in range(count)])
    assert [values(line)["TokensIn"] for line in lines] == list(range(count))


@pytest.mark.parametrize("origin", ["edge", "fixed", "cache", "own", "paid"])
@pytest.mark.parametrize("outcome", ["completed", "failed", "client_left"])
def test_every_origin_and_outcome_can_be_told_apart(
    capsys: pytest.CaptureFixture[str], origin: str, outcome: str
) -> None:
    (line,) = written(capsys, record(**{**FORWARDED, "origin": origin, "outcome": outcome}))
    assert (line["origin"], line["outcome"]) == (origin, outcome)


def test_an_impossible_count_of_an_upstream_keeps_no_other_record_out(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(capsys, record(tokens_in=10**30), record(tokens_in=1))
    assert [values(line)["TokensIn"] for line in lines] == [1e30, 1]


def test_what_did_not_happen_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = written(capsys, record(ttft_ms=None, cost_usd=None))
    assert "Ttft" not in line
    assert "Ttft" not in str(line["_aws"])
    assert line["CostUsd"] == [0]


@pytest.mark.parametrize(
    ("facts", "errors", "upstream_failed"),
    [
        ({}, 0, 0),
        ({"outcome": "client_left", "status": 499}, 0, 0),
        ({"attempts": 3}, 0, 0),
        ({"attempts": 3, "failed_attempts": TWO}, 0, 2),
        ({"attempts": 0, "provider": ""}, 0, 0),
        ({**FAILED, "status": 502}, 1, 1),
        ({**FAILED, "status": 502, "attempts": 2, "failed_attempts": ONE}, 1, 2),
        ({**FAILED, "status": 502, "attempts": 2, "failed_attempts": TWO}, 1, 2),
        ({**FAILED, "status": 400, "attempts": 2, "failed_attempts": ONE}, 1, 1),
        ({**FAILED, "status": 503}, 1, 1),
        ({**FAILED, "status": 504}, 1, 1),
        ({**FAILED, "status": 429}, 1, 0),
        ({**FAILED, "status": 400}, 1, 0),
        ({**FAILED, "status": 404, "attempts": 0, "provider": "", "deployment": "", "origin": None}, 1, 0),
        ({**FAILED, "status": 503, "attempts": 0, "provider": "", "deployment": "", "origin": None}, 1, 0),
    ],
)
def test_failures_are_counted(
    capsys: pytest.CaptureFixture[str], facts: dict[str, Any], errors: int, upstream_failed: int
) -> None:
    """An upstream has failed if it was asked and another had to be, or the client could not have prevented it."""
    (line,) = written(capsys, record(**{**FORWARDED, **facts}))
    assert (values(line)["Requests"], values(line)["Errors"]) == (1, errors)
    assert values(line)["UpstreamFailed"] == upstream_failed


MADE_UP = "made up by a client"


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"model": MADE_UP, **FAILED, "status": 404}, id="unknown model"),
        pytest.param({"model": MADE_UP, "origin": "fixed", "deployment": "fixed/q1/0"}, id="prepared answer"),
        pytest.param({"model": "", "origin": "edge", "deployment": "edge/q1/0"}, id="file"),
        pytest.param({"model": ""}, id="no model"),
    ],
)
def test_no_dimension_is_what_a_client_made_up(capsys: pytest.CaptureFixture[str], facts: dict[str, Any]) -> None:
    """Each combination costs money."""
    (line,) = written(capsys, record(user_id=MADE_UP, latest_user_message=MADE_UP, **facts))
    assert (line["model"], line["provider"]) == ("none", "none")
    assert MADE_UP not in json.dumps(line)


@pytest.mark.parametrize(
    ("model", "called"), [("org/chat-1.5:free", "org/chat-1.5:free"), ("日本語", "%E6%97%A5%E6%9C%AC%E8%AA%9E")]
)
def test_a_models_name_is_given_in_ascii(capsys: pytest.CaptureFixture[str], model: str, called: str) -> None:
    """CloudWatch takes no other."""
    (line,) = written(capsys, record(**{**FORWARDED, "model": model}))
    assert line["model"] == called


def test_the_texts_of_a_request_are_not_among_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = written(capsys, record(**FORWARDED, latest_user_message="my secret", context_tail="my secret"))
    assert set(line) == {"_aws", *BY_WHAT, *UNITS}


def test_something_else_can_be_counted_for_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    EmfMetrics("prod").count("ModelMapRefused")
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    check(line)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [WHOLE]
    assert directive["Metrics"] == [{"Name": "ModelMapRefused", "Unit": "Count"}]
    assert (line["service"], line["environment"], line["ModelMapRefused"]) == ("lexora", "prod", [1])


def test_one_line_does_not_change_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = EmfMetrics("prod")
    metrics.write([record(**FORWARDED)])
    metrics.count("ModelMapRefused")
    metrics.write([record(**FORWARDED)])
    first, _, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert {**first, "_aws": first["_aws"]["CloudWatchMetrics"]} == {**last, "_aws": last["_aws"]["CloudWatchMetrics"]}
