"""The log's lines: their fields to the letter."""

import json
import logging
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lexora.adapters.json_log import JsonFormatter, JsonLog
from lexora.core.record import Record

# What operators have dashboards for.
NAMED_BY_OPERATORS = {
    *("latestUserMessage", "latestUserMessageLength", "contextTailPreview", "tokensIn", "tokensOut", "costUsd"),
}
PROMPT = "日本の首都はどこですか？"


def record(**facts: Any) -> Record:
    known: dict[str, Any] = {"latest_user_message": PROMPT, "context_tail": f"前の話\n{PROMPT}", **facts}
    return Record("0" * 31 + "1", 1_768_555_800.1234, known.pop("endpoint", "chat.completions"), **known)


def lines(tmp_path: Path, *records: Record, **options: Any) -> list[dict[str, Any]]:
    path = tmp_path / "log"
    with path.open("wb") as file:
        JsonLog(partial(os.write, file.fileno()), **options).write(list(records))
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_completion_has_these_fields_and_no_others(tmp_path: Path) -> None:
    facts = {
        "user_id": "takahito",
        "origin": "own",
        "model": "chat",
        "upstream_model": "qwen3-32b",
        "deployment": "vllm/qwen3-32b",
        "stream": True,
        "attempts": 1,
        "tokens_in": 12,
        "tokens_out": 34,
        "cost_usd": 0.00125,
        "ttft_ms": 12.34567,
        "duration_ms": 99.98765,
    }
    (line,) = lines(tmp_path, record(**facts))
    assert line == {
        "timestamp": "2026-01-16T09:30:00.123Z",
        "level": "INFO",
        "service": "lexora",
        "message": "chat_completion",
        "requestId": "0" * 31 + "1",
        "userId": "takahito",
        "origin": "own",
        "model": "chat",
        "upstreamModel": "qwen3-32b",
        "deployment": "vllm/qwen3-32b",
        "stream": True,
        "attempts": 1,
        "tokensIn": 12,
        "tokensOut": 34,
        "costUsd": 0.00125,
        "ttftMs": 12.346,
        "durationMs": 99.988,
        "outcome": "completed",
        "status": 200,
        "latestUserMessageLength": 12,
        "latestUserMessage": PROMPT,
        "contextTailPreview": f"前の話\n{PROMPT}",
    }
    assert set(line) > NAMED_BY_OPERATORS


@pytest.mark.parametrize(
    ("status", "level"), [(400, "WARNING"), (429, "WARNING"), (499, "WARNING"), (500, "ERROR"), (502, "ERROR")]
)
def test_a_failure_is_an_llm_error(tmp_path: Path, status: int, level: str) -> None:
    failed = record(outcome="failed", status=status, error_code="upstream_broken", error_message="Cut.")
    (line,) = lines(tmp_path, failed)
    assert (line["message"], line["level"], line["outcome"], line["status"]) == ("llm_error", level, "failed", status)
    assert (line["errorCode"], line["errorMessage"]) == ("upstream_broken", "Cut.")
    assert set(line) > NAMED_BY_OPERATORS


def test_a_client_that_left_is_no_failure_of_ours(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, record(outcome="client_left", status=499))
    assert (line["message"], line["level"], line["outcome"]) == ("chat_completion", "INFO", "client_left")


def test_a_prepared_answer_from_its_path_is_called_so(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, record(endpoint="responses", origin="edge"))
    assert line["message"] == "prepared_answer"


def test_an_unknown_cost_is_null_and_no_cost_is_nought(tmp_path: Path) -> None:
    unknown, free = lines(tmp_path, record(cost_usd=None), record(cost_usd=0.0))
    assert (unknown["costUsd"], free["costUsd"]) == (None, 0)


def test_malformed_events_are_mentioned_if_there_were_any(tmp_path: Path) -> None:
    none, some = lines(tmp_path, record(), record(malformed_events=2))
    assert "malformedEvents" not in none
    assert some["malformedEvents"] == 2


def test_who_asked_and_what_it_waited_for_is_mentioned_where_it_is_known(tmp_path: Path) -> None:
    facts = {"key_id": "0a1b", "priority": "low", "queue_ms": 0.12345, "upstream_ms": 5.67891}
    attempts = '[{"deployment":"a","error":"upstream_broken","ms":1.5,"tokens":2}]'
    none, some = lines(tmp_path, record(), record(**facts, failed_attempts=attempts))
    added = {name: value for name, value in some.items() if name not in none}
    assert added == {
        "keyId": "0a1b",
        "priority": "low",
        "queueWaitMs": 0.123,
        "upstreamMs": 5.679,
        "failedAttempts": [{"deployment": "a", "error": "upstream_broken", "ms": 1.5, "tokens": 2}],
    }


def test_what_a_prepared_answer_could_have_answered_is_marked(tmp_path: Path) -> None:
    other, lone = lines(tmp_path, record(), record(prompt="光とは"))
    assert "lonePrompt" not in other
    assert lone["lonePrompt"] is True
    assert "prompt" not in lone


@pytest.mark.parametrize("outcome", ["completed", "failed", "client_left"])
def test_the_switch_leaves_the_users_words_out_and_their_length_in(tmp_path: Path, outcome: str) -> None:
    (line,) = lines(tmp_path, record(outcome=outcome), message_text=False)
    assert PROMPT not in json.dumps(line, ensure_ascii=False)
    assert "latestUserMessage" not in line
    assert "contextTailPreview" not in line
    assert line["latestUserMessageLength"] == 12


def test_the_switch_may_be_turned_while_the_log_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = JsonLog(partial(os.write, file.fileno()))
        log.write([record()])
        log.message_text = False
        log.write([record()])
    assert [PROMPT in line for line in path.read_text().splitlines()] == [True, False]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.DEBUG, ["INFO", "WARNING", "ERROR"]),
        (logging.INFO, ["INFO", "WARNING", "ERROR"]),
        (logging.WARNING, ["WARNING", "ERROR"]),
        (logging.ERROR, ["ERROR"]),
    ],
)
def test_lines_below_the_level_are_left_out(tmp_path: Path, level: int, expected: list[str]) -> None:
    batch = [record(), record(outcome="failed", status=400), record(outcome="failed", status=503)]
    assert [line["level"] for line in lines(tmp_path, *batch, level=level)] == expected


def test_a_line_is_one_line_whatever_was_said(tmp_path: Path) -> None:
    said = 'a\nb\r\nc\u2028d\x00e\x1b[31m"quoted"'
    (line,) = lines(tmp_path, record(latest_user_message=said))
    assert line["latestUserMessage"] == said


def test_a_reader_that_is_slow_gets_every_line_whole() -> None:
    """A pipe takes 64 KiB at a time."""
    reading, writing = os.pipe()
    batch = [record(latest_user_message="x" * 5000) for _ in range(200)]
    thread = threading.Thread(target=JsonLog(partial(os.write, writing)).write, args=(batch,))
    thread.start()
    data = b""
    while data.count(b"\n") < len(batch):
        data += os.read(reading, 1000)
    thread.join()
    os.close(reading)
    os.close(writing)
    assert [json.loads(line)["latestUserMessageLength"] for line in data.splitlines()] == [5000] * 200


def test_what_is_not_about_a_request_has_the_same_form() -> None:
    said = logging.LogRecord("lexora", logging.WARNING, __file__, 1, "reloaded: %d models\n%s", (3, "日本"), None)
    said.created = 1_768_555_800.1234
    assert json.loads(JsonFormatter().format(said)) == {
        "timestamp": "2026-01-16T09:30:00.123Z",
        "level": "WARNING",
        "service": "lexora",
        "message": "reloaded: 3 models\n日本",
    }


def test_an_exception_is_named_and_placed_without_its_values() -> None:
    try:
        raise KeyError("sk-verysecret")
    except KeyError:
        said = logging.LogRecord("lexora", logging.ERROR, __file__, 1, "unexpected", None, sys.exc_info())
    line = JsonFormatter().format(said)
    assert json.loads(line)["exception"] == "KeyError"
    assert "test_json_log.py:" in json.loads(line)["location"]
    assert "verysecret" not in line
    assert "\n" not in line
