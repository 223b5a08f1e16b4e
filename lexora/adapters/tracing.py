"""Traces of requests over OTLP/HTTP, with OpenTelemetry's conventions for generative AI.

Imported only where tracing is configured: OpenTelemetry takes its time, and its memory.
"""

import logging
from collections.abc import Callable

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from lexora.core.record import Record
from lexora.core.trace import SpanIds, span_ids, upstream_span_id

EXPORT_SECONDS = 5.0  # a collector that takes longer is not there
BATCH_SECONDS = 2.0
MOST_WAITING = 20_000
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

# What they call the providers whose names differ from ours.
_PROVIDERS = {
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}

log = logging.getLogger("lexora")

_Attributes = dict[str, str | bool | int | float]


class _Attempt(msgspec.Struct):
    deployment: str = ""
    error: str | None = None
    ms: float = 0.0


_attempts_of = msgspec.json.Decoder(list[_Attempt]).decode


class _Exporter(SpanExporter):
    """Says once that spans do not arrive, and once that they do again."""

    def __init__(self, endpoint: str) -> None:
        for name in ("opentelemetry", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they tell of every try
        self._endpoint = endpoint
        self._otlp = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._failing = False

    def export(self, spans: "tuple[ReadableSpan, ...] | list[ReadableSpan]") -> SpanExportResult:  # type: ignore[override]  # any sequence
        result = self._otlp.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.error("traces do not reach %s; what is not taken is dropped", self._endpoint)
        elif self._failing and not failed:
            log.info("traces reach %s again", self._endpoint)
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]  # it has no types


class Tracer:
    """A sink for the ledger: a span a request that was answered or forwarded, and one for its calls of upstreams.

    Never blocks and never fails: spans wait in memory for a thread that sends them, and the oldest are dropped when
    they are too many. `address_of` gives the host name of a deployment's server. No text of a message is in a span.
    """

    def __init__(self, endpoint: str, version: str, address_of: Callable[[str], str | None] = lambda _: None) -> None:
        self._address_of = address_of
        self._resource = Resource({"service.name": "lexora", "service.version": version})
        self._scope = InstrumentationScope("lexora", version)
        self._processor = BatchSpanProcessor(
            _Exporter(endpoint), max_queue_size=MOST_WAITING, schedule_delay_millis=BATCH_SECONDS * 1e3
        )

    def write(self, records: list[Record]) -> None:
        for record in records:
            if record.origin is not None:
                for span in self._spans(record):
                    self._processor.on_end(span)

    def close(self) -> None:
        """Sends what is left, for as long as one call of the collector may take."""
        self._processor._batch_processor.shutdown(timeout_millis=int(EXPORT_SECONDS * 1e3))  # noqa: SLF001 - its own shutdown waits for 30 s

    def _spans(self, record: Record) -> list[ReadableSpan]:
        ids = span_ids(record.request_id, record.trace_parent)
        start = int(record.created_at * 1e9)
        end = start + int(record.duration_ms * 1e6)
        parent = _context(ids.trace_id, ids.parent_id, remote=True) if ids.parent_id else None
        own = _context(ids.trace_id, ids.span_id)
        spans = [self._span(record, SpanKind.SERVER, own, parent, start, end, _about(record))]
        if record.attempts:
            spans.append(self._upstream_span(record, ids, own, start, end))
        return spans

    def _upstream_span(self, record: Record, ids: SpanIds, parent: SpanContext, start: int, end: int) -> ReadableSpan:
        """The calls of upstreams of one request, from its first to its last: failed ones are events."""
        context = _context(ids.trace_id, upstream_span_id(record.request_id))
        start = min(end, start + int((record.queue_ms or 0) * 1e6))
        if record.upstream_ms is not None:
            end = min(end, start + int(record.upstream_ms * 1e6))
        about = _about(record)
        if address := self._address_of(record.deployment):
            about["server.address"] = address
        events = []
        at = start
        for attempt in _attempts(record):
            at = min(end, at + int(attempt.ms * 1e6))
            facts = {"lexora.deployment": attempt.deployment, "error.type": attempt.error or "_OTHER"}
            events.append(Event("lexora.attempt_failed", facts, at))
        return self._span(record, SpanKind.CLIENT, context, parent, start, end, about, events)

    def _span(
        self,
        record: Record,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        start: int,
        end: int,
        about: _Attributes,
        events: list[Event] | None = None,
    ) -> ReadableSpan:
        failed = record.outcome == "failed" and (kind is SpanKind.CLIENT or record.status >= 500)
        name = record.upstream_model if kind is SpanKind.CLIENT else record.model
        return ReadableSpan(
            name=f"chat {name}".rstrip(),
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=about,
            events=events or [],
            kind=kind,
            status=Status(StatusCode.ERROR) if failed else Status(),
            start_time=start,
            end_time=end,
            instrumentation_scope=self._scope,
        )


def _context(trace_id: str, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=_SAMPLED)


def _about(record: Record) -> _Attributes:
    """What is known of a request; what is not known is left out."""
    failed = record.outcome == "failed"
    prepared_id = f"chatcmpl-{record.request_id}" if record.origin == "fixed" else None
    facts: dict[str, str | bool | int | float | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(record.provider, record.provider) or "lexora",
        "gen_ai.request.model": record.model or None,
        "gen_ai.request.stream": record.stream,
        "gen_ai.response.model": None if failed else record.upstream_model or None,
        "gen_ai.response.id": record.response_id or prepared_id,
        "gen_ai.usage.input_tokens": record.tokens_in,
        "gen_ai.usage.output_tokens": record.tokens_out,
        "http.response.status_code": record.status,
        "error.type": (record.error_code or str(record.status)) if failed else None,
        "lexora.request_id": record.request_id,
        "lexora.origin": record.origin,
        "lexora.deployment": record.deployment or None,
        "lexora.cost_usd": record.cost_usd,
        "lexora.queue_ms": record.queue_ms,
        "lexora.ttft_ms": record.ttft_ms,
        "lexora.attempts": record.attempts,
        "lexora.outcome": record.outcome,
    }
    # OTLP has 64 bits for a number, and an upstream may have counted more.
    return {
        name: min(value, 2**63 - 1) if isinstance(value, int) else value
        for name, value in facts.items()
        if value is not None
    }


def _attempts(record: Record) -> list[_Attempt]:
    try:
        return _attempts_of(record.failed_attempts) if record.failed_attempts else []
    except msgspec.DecodeError:
        return []
