"""Traces, as a collector gets them over OTLP/HTTP."""

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lexora.adapters.tracing import Tracer
from lexora.core.record import Record, RequestIds
from lexora.core.trace import upstream_span_id
from tests.support.collector import Collector, attributes, running_collector
from tests.support.gateway import free_port

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "my secret"
FORWARDED: dict[str, Any] = {
    "model": "chat",
    "upstream_model": "qwen3-32b",
    "response_id": "chatcmpl-1",
    "deployment": "vllm/a",
    "provider": "vllm",
    "origin": "own",
    "tokens_in": 12,
    "tokens_out": 34,
    "cost_usd": 0.25,
    "attempts": 2,
    "queue_ms": 100.0,
    "upstream_ms": 500.0,
    "duration_ms": 1000.0,
    "failed_attempts": '[{"deployment":"vllm/b","error":"upstream_broken","ms":200,"tokens":0}]',
    "latest_user_message": SECRET,
    "context_tail": SECRET,
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


def record(**facts: Any) -> Record:
    return Record(RequestIds(0xABCDEF).new(1_795_260_267.5), 1_795_260_267.5, "chat.completions", **facts)


def traced(collector: Collector, *records: Record) -> list[Span]:
    with closing(Tracer(f"{collector.url}/", "1.2.3", {"vllm/a": "gpu.example"}.get)) as tracer:
        tracer.write(list(records))
    return collector.spans()


def test_a_forwarded_request_is_two_spans(collector: Collector) -> None:
    sent = record(**FORWARDED)
    server, client = traced(collector, sent)
    assert (server.name, server.kind, client.name, client.kind) == (
        "chat chat", Span.SPAN_KIND_SERVER, "chat qwen3-32b", Span.SPAN_KIND_CLIENT,
    )  # fmt: skip
    assert {server.trace_id.hex(), client.trace_id.hex()} == {sent.request_id}
    assert (server.span_id.hex(), server.parent_span_id) == (sent.request_id[-16:], b"")
    assert (client.span_id.hex(), client.parent_span_id) == (upstream_span_id(sent.request_id), server.span_id)
    start = 1_795_260_267_500_000_000
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (start, start + 1_000_000_000)
    assert (client.start_time_unix_nano, client.end_time_unix_nano) == (start + 100_000_000, start + 600_000_000)
    facts = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "chat",
        "gen_ai.response.model": "qwen3-32b",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 34,
        "lexora.origin": "own",
        "lexora.deployment": "vllm/a",
        "lexora.cost_usd": 0.25,
        "lexora.queue_ms": 100,
    }
    for span in (server, client):
        assert facts.items() <= attributes(span).items()
        assert span.status.code == 0
        assert "error.type" not in attributes(span)
    assert attributes(client)["server.address"] == "gpu.example"
    (event,) = client.events
    assert event.time_unix_nano == start + 300_000_000
    assert attributes(event) == {"lexora.deployment": "vllm/b", "error.type": "upstream_broken"}


def test_a_prepared_answer_is_one_span(collector: Collector) -> None:
    sent = record(model="chat", origin="fixed", deployment="fixed/q1/0", upstream_model="prepared")
    (span,) = traced(collector, sent)
    assert attributes(span)["gen_ai.provider.name"] == "lexora"
    assert attributes(span)["gen_ai.response.id"] == f"chatcmpl-{sent.request_id}"


def test_a_trace_that_a_client_began_goes_on(collector: Collector) -> None:
    server, client = traced(collector, record(**FORWARDED, trace_parent=f"00-{TRACE}-{PARENT}-01"))
    assert {server.trace_id.hex(), client.trace_id.hex()} == {TRACE}
    assert server.parent_span_id.hex() == PARENT


def test_a_failure_is_an_error(collector: Collector) -> None:
    failed = {**FORWARDED, "outcome": "failed", "status": 502, "error_code": "upstream_broken", "error_message": SECRET}
    for span in traced(collector, record(**failed)):
        assert span.status.code == 2
        assert attributes(span)["error.type"] == "upstream_broken"
        assert "gen_ai.response.model" not in attributes(span)


def test_no_text_is_in_a_span_and_what_was_refused_is_none(collector: Collector) -> None:
    traced(collector, record(**FORWARDED), record(model="nope", outcome="failed", status=404))
    assert len(collector.spans()) == 2
    assert SECRET.encode() not in b"".join(body for _, body in collector.bodies)


def test_an_impossible_count_keeps_no_span_back(collector: Collector) -> None:
    impossible, *_, possible = traced(collector, record(**{**FORWARDED, "tokens_in": 10**30}), record(**FORWARDED))
    assert attributes(impossible)["gen_ai.usage.input_tokens"] == 2**63 - 1
    assert attributes(possible)["gen_ai.usage.input_tokens"] == 12


def test_a_collector_that_is_not_there_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracer = Tracer(f"http://127.0.0.1:{free_port()}", "1")
    with caplog.at_level(logging.DEBUG):
        tracer.write([record(**FORWARDED)] * 2000)
        tracer.close()
    (line,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "traces do not reach http://127.0.0.1" in line.getMessage()


def test_a_collector_that_refuses_is_said_once_and_that_it_takes_them_again_too(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Tracer(collector.url, "1")) as tracer, caplog.at_level(logging.INFO, "lexora"):
        for collector.status in (400, 400, 400, 200, 200):
            tracer.write([record(**FORWARDED)])
            tracer._processor.force_flush()
    assert [each.levelname for each in caplog.records if each.name == "lexora"] == ["ERROR", "INFO"]
