"""AWS's event streams, against an encoder of the tests' own and botocore's decoder."""

import json
import struct
import zlib

import pytest
from botocore.eventstream import EventStreamBuffer

from lexora.core.errors import UpstreamBroken
from lexora.providers.eventstream import EventStreamDecoder
from lexora.providers.sse import EventTooLarge
from tests.support.eventstream import failure, message, of

HELLO = of("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello, 東京"}, "p": "abc"})
STOP = of("messageStop", {"stopReason": "end_turn"})
DATA = [
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hello, 東京"}, "p": "abc"}},
    {"messageStop": {"stopReason": "end_turn"}},
]
# A header of every kind of value there is, before the one that counts.
EVERY_KIND = {
    "yes": (0, b""),
    "no": (1, b""),
    "byte": (2, b"\x01"),
    "short": (3, b"\x00\x01"),
    "int": (4, b"\x00\x00\x00\x01"),
    "long": (5, b"\x00" * 8),
    "bytes": (6, b"\x00\x03\xff\x00\xff"),
    "timestamp": (8, b"\x00" * 8),
    "uuid": (9, b"\x00" * 16),
    ":event-type": "messageStop",
}


def fed(*pieces: bytes) -> list[object]:
    decoder = EventStreamDecoder()
    found = [data for piece in pieces for data in decoder.feed(piece)]
    return [json.loads(data) for data in [*found, *decoder.finish()]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 12, 13, 16, 50, 1000])
def test_messages_come_out_however_they_are_cut(size: int) -> None:
    whole = HELLO + STOP + HELLO
    assert fed(*(whole[at : at + size] for at in range(0, len(whole), size))) == [*DATA, DATA[0]]


def test_a_message_is_given_as_soon_as_it_is_complete() -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(HELLO[:-1]) == []
    assert [json.loads(data) for data in decoder.feed(HELLO[-1:] + STOP[:20])] == DATA[:1]
    assert [json.loads(data) for data in decoder.feed(STOP[20:])] == DATA[1:]


def test_botocore_reads_the_same() -> None:
    whole = HELLO + of("throttlingException", {"message": "Slow down."}) + message(b"{}", EVERY_KIND) + STOP
    buffer = EventStreamBuffer()
    buffer.add_data(whole)
    theirs = []
    for found in buffer:
        names = [found.headers.get(f":{role}-type") for role in ("event", "exception")]
        theirs.append({next(filter(None, names)): json.loads(found.payload)})
    assert fed(whole) == theirs


def test_errors() -> None:
    assert fed(of("throttlingException", {"message": "Slow down."})) == [
        {"throttlingException": {"message": "Slow down."}}
    ]
    assert fed(failure("InternalFailure", 'It said "no".')) == [
        {"error": {"code": "InternalFailure", "message": 'It said "no".'}}
    ]


def test_a_payload_may_be_missing_and_so_may_the_kind() -> None:
    assert fed(message(b"", {":event-type": "messageStop"}), message(b"{}", {})) == [{"messageStop": {}}, {"": {}}]


@pytest.mark.parametrize("at", [0, 3, 5, 9, 14, 30, -20, -2])
def test_a_flipped_bit_is_found(at: int) -> None:
    damaged = bytearray(STOP)
    damaged[at] ^= 0x10
    decoder = EventStreamDecoder()
    # What came before is given; then it says so, each time it is asked.
    assert [json.loads(data) for data in decoder.feed(HELLO + bytes(damaged))] == DATA[:1]
    for _ in range(2):
        with pytest.raises(UpstreamBroken, match="damaged"):
            decoder.feed(HELLO)
    with pytest.raises(UpstreamBroken, match="damaged"):
        decoder.finish()


@pytest.mark.parametrize("body", [b"<html><h1>Bad Gateway</h1></html>", b'{"message": "no stream"}'])
def test_what_is_no_event_stream_is_found_out(body: bytes) -> None:
    with pytest.raises(UpstreamBroken, match="damaged"):
        EventStreamDecoder().feed(body)


@pytest.mark.parametrize(
    "headers",
    [
        {"a": (10, b"")},  # there is no such kind
        {"a": (7, b"\x00")},  # half a length
        {"a": (7, b"\x00\x01\xff")},  # not UTF-8
    ],
)
def test_headers_that_cannot_be_read(headers: dict[str, tuple[int, bytes]]) -> None:
    with pytest.raises(UpstreamBroken, match="headers"):
        EventStreamDecoder().feed(message(b"{}", headers))


def test_a_cut_stream_ends_without_its_last_message() -> None:
    assert fed(HELLO, STOP[:-1]) == DATA[:1]


def prelude(length: int, length_of_headers: int) -> bytes:
    lengths = struct.pack("!II", length, length_of_headers)
    return lengths + struct.pack("!I", zlib.crc32(lengths))


def test_a_message_that_is_too_large_is_not_waited_for() -> None:
    with pytest.raises(EventTooLarge):
        EventStreamDecoder().feed(prelude(64 * 1024 * 1024, 100))


@pytest.mark.parametrize("lengths", [(0, 0), (15, 0), (116, 101), (16, 4_000_000_000)])
def test_lengths_that_cannot_be(lengths: tuple[int, int]) -> None:
    with pytest.raises(UpstreamBroken, match="damaged"):
        EventStreamDecoder().feed(prelude(*lengths))
