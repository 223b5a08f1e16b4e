"""Ids of spans, and what is taken of a client's `traceparent`."""

import re

import pytest

from lexora.core.record import RequestIds
from lexora.core.trace import outgoing_traceparent, span_ids, upstream_span_id

ID = RequestIds(0xABCDEF).new(1_795_260_267.5)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_request_begins_a_trace_of_its_own() -> None:
    assert span_ids(ID, "") == (ID, ID[-16:], "")


@pytest.mark.parametrize(
    "given", [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", f"01-{TRACE}-{PARENT}-01-more"]
)
def test_or_goes_on_with_the_clients(given: str) -> None:
    assert span_ids(ID, given) == (TRACE, ID[-16:], PARENT)


@pytest.mark.parametrize(
    "given",
    [
        "nonsense",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
    ],
)
def test_what_is_none_is_not_taken(given: str) -> None:
    assert span_ids(ID, given) == (ID, ID[-16:], "")


@pytest.mark.parametrize("request_id", [ID, "0" * 31 + "1", "f" * 16 + "0" * 16, "f" * 16 + "8" + "0" * 15])
def test_no_span_id_is_zero_or_the_other_one(request_id: str) -> None:
    own, upstream = span_ids(request_id, "").span_id, upstream_span_id(request_id)
    assert own != upstream
    for span_id in (own, upstream):
        assert re.fullmatch("[0-9a-f]{16}", span_id)
        assert int(span_id, 16)


def test_upstreams_are_told_the_span_of_their_call() -> None:
    assert outgoing_traceparent(ID, "") == f"00-{ID}-{upstream_span_id(ID)}-01"
    assert outgoing_traceparent(ID, f"00-{TRACE}-{PARENT}-00") == f"00-{TRACE}-{upstream_span_id(ID)}-01"
