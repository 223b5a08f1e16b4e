"""Log lines as they are read back from CloudWatch Logs."""

import json
from typing import Any

import pytest

from tests.support.deployment import Environment

pytestmark = pytest.mark.timeout(600)
DOORS = pytest.mark.parametrize("door", ["chat", "stream"])
LONG = "長い前置きです。" * 40
MESSAGES: Any = [
    {"role": "system", "content": LONG},
    {"role": "user", "content": "最初の質問"},
    {"role": "assistant", "content": "最初の答え"},
    {"role": "user", "content": "最後の質問 🙂"},
]


def ask(environment: Environment, door: str, model: str) -> str:
    """Asks `model`. Returns the request's id."""
    with environment.client(door) as client:
        response = client.post("/v1/chat/completions", json={"model": model, "messages": MESSAGES, "max_tokens": 4})
    return response.headers["x-request-id"]


@DOORS
def test_a_chat_is_one_line_with_the_fields_that_operators_know(dev: Environment, door: str) -> None:
    request_id = ask(dev, door, "tiny")
    line = dev.log_line_of(request_id, door)
    assert line["message"] == "chat_completion"
    assert (line["level"], line["service"]) == ("INFO", "lexora")
    assert line["latestUserMessage"] == "最後の質問 🙂"
    assert line["latestUserMessageLength"] == 7
    assert len(line["contextTailPreview"]) == 200
    assert line["contextTailPreview"].endswith("最後の質問 🙂")
    assert LONG[-20:] in line["contextTailPreview"]
    assert line["tokensIn"] > 100
    assert line["tokensOut"] == 4
    assert line["costUsd"] == 0
    record = dev.record(request_id)
    assert (record["tokens_in"], record["tokens_out"]) == (str(line["tokensIn"]), str(line["tokensOut"]))


@DOORS
def test_a_failure_is_an_llm_error(dev: Environment, door: str) -> None:
    line = dev.log_line_of(ask(dev, door, "dead"), door)
    assert (line["message"], line["level"], line["outcome"]) == ("llm_error", "ERROR", "failed")
    assert (line["status"], line["errorCode"]) == (502, "upstream_unreachable")
    assert line["latestUserMessage"] == "最後の質問 🙂"


@DOORS
def test_each_chat_is_counted_in_metrics(dev: Environment, door: str) -> None:
    before = len(metrics(dev, door, "Requests"))
    ask(dev, door, "tiny")
    ask(dev, door, "dead")
    answered, failed = metrics(dev, door, "Requests")[before:]
    assert (answered["model"], answered["origin"], answered["outcome"]) == ("tiny", "own", "completed")
    assert (answered["Requests"], answered["Errors"], answered["TokensOut"]) == ([1], [0], [4])
    assert (failed["outcome"], failed["Errors"], failed["UpstreamFailed"]) == ("failed", [1], [1])
    assert {answered["environment"], failed["environment"]} == {"dev"}
    assert ["service", "environment"] in answered["_aws"]["CloudWatchMetrics"][0]["Dimensions"]


def metrics(environment: Environment, door: str, name: str) -> list[dict[str, Any]]:
    """The lines that CloudWatch would make the metric `name` of."""
    return [
        line
        for line in environment.log_lines(door)
        if "_aws" in line and name in {metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    ]


def test_what_the_functions_say_is_json_and_tells_no_secret(dev: Environment) -> None:
    groups = dev.emulator.client("logs")
    for output in ("ChatLogGroupName", "StreamLogGroupName"):
        pages = groups.get_paginator("filter_log_events").paginate(logGroupName=dev.outputs[output])
        messages = [event["message"] for page in pages for event in page["events"]]
        assert len(messages) > 10
        for message in messages:
            assert "the-gpu-host's-key" not in message
            assert "Traceback" not in message
            if not message.startswith(("START ", "END ", "REPORT ")):
                json.loads(message)
