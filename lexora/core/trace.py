"""Where a request stands in a trace (https://www.w3.org/TR/trace-context/)."""

import re
from typing import NamedTuple

_TRACE_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class SpanIds(NamedTuple):
    """In lower-case hex digits, 32 for a trace and 16 for a span; `parent_id` is empty where the trace begins here."""

    trace_id: str
    span_id: str
    parent_id: str


def span_ids(request_id: str, trace_parent: str) -> SpanIds:
    """The ids of a request's span: in the trace of the `traceparent` that came with it, or in one of its own."""
    span_id = _span_id(request_id, 0)
    found = _TRACE_PARENT.fullmatch(trace_parent)
    if found:
        version, trace_id, parent_id, _, more = found.groups()
        if int(trace_id, 16) and int(parent_id, 16) and not (version == "00" and more):
            return SpanIds(trace_id, span_id, parent_id)
    return SpanIds(request_id, span_id, "")


def upstream_span_id(request_id: str) -> str:
    """The id of the span of a request's upstream calls."""
    return _span_id(request_id, 1 << 63)


def outgoing_traceparent(request_id: str, trace_parent: str) -> str:
    """The `traceparent` for the upstreams of a request: they are below its upstream span. Sampled, as all of ours."""
    return f"00-{span_ids(request_id, trace_parent).trace_id}-{upstream_span_id(request_id)}-01"


def _span_id(request_id: str, flip: int) -> str:
    """From the end of the request's id, which is another for each: half of its process's number, and its count."""
    return f"{int(request_id[-16:], 16) ^ flip or 1:016x}"
