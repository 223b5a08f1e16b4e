"""Server-sent events, the receiving side (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventTooLarge(Exception):
    """An event without an end: more than MAX_EVENT_BYTES came without a blank line."""


class EventDecoder:
    """Cuts a byte stream into events and gives the data of each; other fields and comments are dropped.

    Event names are not kept: the dialects repeat them inside the data. A block that is bare JSON is data too: so Google
    reports an error in a stream.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that `piece` completes."""
        if self._rest:
            piece = self._rest + piece
        if b"\r" in piece:
            # A CR at the very end may be half of a CRLF: it waits for what follows.
            held = piece[-1:] == b"\r"
            piece = piece.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + b"\r" * held
        *blocks, self._rest = piece.split(b"\n\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLarge
        return [data for block in blocks if (data := _data(block)) is not None]

    def finish(self) -> list[bytes]:
        """The data of a last event that the stream ended without its blank line."""
        data, self._rest = _data(self._rest.strip(b"\r\n")), b""
        return [] if data is None else [data]


def _data(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    if block.startswith((b"{", b"[")):
        lines = block.split(b"\n")
    else:
        lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    # The data is JSON in all dialects, so a line's end in it says no more than a space, and one line can be sent on.
    return b" ".join(lines) if lines else None


def event(data: bytes) -> bytes:
    """One event, framed for the client."""
    return b"data: " + data + b"\n\n"


def named_event(name: bytes, data: bytes) -> bytes:
    """One event with a name, framed for the client."""
    return b"event: " + name + b"\ndata: " + data + b"\n\n"
