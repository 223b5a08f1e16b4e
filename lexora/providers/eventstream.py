"""AWS's event streams, the receiving side (https://smithy.io/2.0/aws/amazon-eventstream.html).

A body of the type application/vnd.amazon.eventstream is made of binary messages: a prelude (the lengths of the whole
and of its headers, and a CRC of both), headers, a payload, and a CRC of all.
"""

import struct
from binascii import crc32

import msgspec

from lexora.core.errors import UpstreamBroken
from lexora.providers.sse import MAX_EVENT_BYTES, EventTooLarge

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_LEAST_BYTES = _PRELUDE.size + _CRC.size

# Kinds of headers' values: those that tell their length, and how long the others are.
_BYTES, _STRING = 6, 7
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class EventStreamDecoder:
    """Cuts a byte stream into messages and gives each as JSON: an object whose one name says what kind it is.

    That is the name of the event or the exception, and the value is the payload: `{"messageStop":{"stopReason":…}}`. An
    error that has a code but no payload is `{"error":{"code":…,"message":…}}`.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The messages that `piece` completes. Raises EventTooLarge, and UpstreamBroken for damaged bytes.

        What comes before the damage is given first: the error is raised by the next call.
        """
        self._rest += piece
        events: list[bytes] = []
        try:
            while (length := _length(self._rest)) is not None:
                events.append(_event(self._rest[:length]))
                self._rest = self._rest[length:]
        except (UpstreamBroken, EventTooLarge):
            if not events:
                raise
        return events

    def finish(self) -> list[bytes]:
        """What the stream's end completes: nothing. Raises as `feed` does."""
        return self.feed(b"")


def _length(data: bytes) -> int | None:
    """How long the message is that `data` begins with; None if it is not all there."""
    if len(data) < _PRELUDE.size:
        return None
    length, length_of_headers, crc = _PRELUDE.unpack_from(data)
    if crc32(data[: _PRELUDE.size - _CRC.size]) != crc or length < _LEAST_BYTES + length_of_headers:
        raise UpstreamBroken("The upstream's event stream is damaged.")
    if length > MAX_EVENT_BYTES:
        raise EventTooLarge
    return length if len(data) >= length else None


def _event(message: bytes) -> bytes:
    _, length_of_headers, _ = _PRELUDE.unpack_from(message)
    if crc32(message[: -_CRC.size]) != _CRC.unpack(message[-_CRC.size :])[0]:
        raise UpstreamBroken("The upstream's event stream is damaged.")
    end = _PRELUDE.size + length_of_headers
    try:
        headers = _headers(message[_PRELUDE.size : end])
    except (struct.error, IndexError, KeyError, UnicodeDecodeError):
        raise UpstreamBroken("The upstream's event stream has headers that cannot be read.") from None
    payload = message[end : -_CRC.size]
    kind = headers.get(":event-type") or headers.get(":exception-type") or ""
    if headers.get(":message-type") == "error":
        kind = "error"
        payload = _encode({"code": headers.get(":error-code", ""), "message": headers.get(":error-message", "")})
    return b"{%b:%b}" % (_encode(kind), payload or b"{}")


def _headers(data: bytes) -> dict[str, str]:
    """The headers whose values are strings, as all are that say something here."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name_ends = at + 1 + data[at]
        name, kind = data[at + 1 : name_ends].decode(), data[name_ends]
        at = name_ends + 1
        if kind in (_BYTES, _STRING):
            size = _LENGTH.unpack_from(data, at)[0]
            at += _LENGTH.size
        else:
            size = _SIZES[kind]
        value = data[at : at + size]
        at += size
        if kind == _STRING:
            found[name] = value.decode()
    return found


_encode = msgspec.json.encode
