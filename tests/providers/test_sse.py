"""Server-sent events, as a network may cut them."""

import random
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from lexora.providers import sse
from lexora.providers.sse import EventDecoder, EventTooLarge, event
from tests.support.recorded import RECORDED

# A stream, and the data of its events by the standard
# (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), with a space where the
# data has the end of a line.
STREAMS = {
    "events": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "cr": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed ends of lines": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\ndata: d\n\n", [b"a", b"b", b"c", b"d"]),
    "no space": (b"data:a\n\n", [b"a"]),
    "two spaces": (b"data:  a\n\n", [b" a"]),
    "two lines": (b"data: a\ndata: b\n\n", [b"a b"]),
    "two lines in crlf": (b"data: a\r\ndata: b\r\n\r\n", [b"a b"]),
    "other fields": (b"event: delta\nid: 7\nretry: 10\ndata: a\n\n", [b"a"]),
    "fields behind the data": (b"data: a\nevent: delta\n\n", [b"a"]),
    "comments": (b": keep-alive\n\n:\n\ndata: a\n: b\ndata: c\n\n", [b"a c"]),
    "events without data": (b"event: ping\n\nid: 1\n\ndata: a\n\n", [b"a"]),
    "empty data": (b"data:\n\ndata: \n\n", [b"", b""]),
    "blank lines": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    "a colon in the data": (b'data: {"a": "data: b"}\n\n', [b'{"a": "data: b"}']),
    "a field that only begins so": (b"database: x\ndata: a\n\n", [b"a"]),
    "many bytes to a character": ("data: 東京🗻\n\ndata: é\n\n".encode(), ["東京🗻".encode(), "é".encode()]),
    "nothing": (b"", []),
    "comments alone": (b": a\n\n: b\n\n", []),
    "bare JSON": (b'data: a\n\n{\r\n  "error": "data: b"\r\n}\r\n\r\n[1]', [b"a", b'{   "error": "data: b" }', b"[1]"]),
}
RECORDINGS = sorted(RECORDED.glob("*/*.sse"))


def decoded(pieces: Iterable[bytes]) -> list[bytes]:
    decoder = EventDecoder()
    return [data for piece in pieces for data in decoder.feed(piece)] + decoder.finish()


def cut(stream: bytes, points: Iterable[int]) -> list[bytes]:
    return [stream[start:end] for start, end in pairwise([0, *sorted(points), len(stream)])]


@pytest.mark.parametrize("name", STREAMS)
def test_events_are_read_by_the_standard(name: str) -> None:
    stream, events = STREAMS[name]
    assert decoded([stream]) == events


@pytest.mark.parametrize("name", STREAMS)
def test_any_cut_in_two_or_three_gives_the_same_events(name: str) -> None:
    stream, events = STREAMS[name]
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert decoded(cut(stream, (first, second))) == events, (first, second)


@pytest.mark.parametrize("name", STREAMS)
def test_a_byte_at_a_time_gives_the_same_events(name: str) -> None:
    stream, events = STREAMS[name]
    assert decoded(bytes([byte]) for byte in stream) == events


def test_any_split_of_any_stream_gives_the_same_events() -> None:
    chooser = random.Random(7)
    for _ in range(3000):
        stream = b"".join(chooser.choices([b"data:", b" ", b"a", b"\n", b"\r", b"\r\n", b":", b"event: b"], k=25))
        points = sorted(chooser.sample(range(len(stream)), 5))
        assert decoded(cut(stream, points)) == decoded([stream]), (stream, points)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_any_split_of_what_servers_sent_gives_the_same_events(path: Path) -> None:
    stream = path.read_bytes()
    events = decoded([stream])
    assert events
    chooser = random.Random(len(stream))
    for count in (1, 2, 10, 100):
        points = [chooser.randrange(len(stream)) for _ in range(count)]
        assert decoded(cut(stream, points)) == events
        assert decoded(cut(stream.replace(b"\n", b"\r\n"), points)) == events


def test_an_event_is_given_as_soon_as_its_end_has_come() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\nda") == [b"a"]
    assert decoder.feed(b"ta: b\r\n\r\n") == [b"b"]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_the_last_event_may_lack_its_blank_line(end: bytes) -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\n\ndata: b" + end) == [b"a"]
    assert decoder.finish() == [b"b"]
    assert decoder.finish() == []


def test_an_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    decoder = EventDecoder()
    for _ in range(3):
        decoder.feed(b"data: " + b"x" * 900)
        decoder.feed(b"\n\n")
    decoder.feed(b"data: " + b"x" * 900)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x" * 100)


def test_what_is_framed_is_read_again() -> None:
    assert decoded([event(b'{"a": 1}'), event("日本".encode())]) == [b'{"a": 1}', "日本".encode()]
