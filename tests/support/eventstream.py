"""Event streams as AWS frames them: the sending side, written apart from the gateway's decoder."""

import json
import struct
import zlib
from typing import Any


def header(name: str, value: Any) -> bytes:
    """One header; the kind of its value is told by its type. A tuple is (kind, bytes as they are)."""
    head = bytes([len(name)]) + name.encode()
    if isinstance(value, tuple):
        return head + bytes([value[0]]) + value[1]
    data = value.encode()
    return head + b"\x07" + len(data).to_bytes(2, "big") + data


def message(payload: bytes, headers: dict[str, Any]) -> bytes:
    """One message of application/vnd.amazon.eventstream."""
    packed = b"".join(header(name, value) for name, value in headers.items())
    lengths = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    unsealed = lengths + struct.pack("!I", zlib.crc32(lengths)) + packed + payload
    return unsealed + struct.pack("!I", zlib.crc32(unsealed))


def of(kind: str, payload: Any) -> bytes:
    """An event, or an exception if its name says so, with the headers that Bedrock sends."""
    role = "exception" if kind.endswith("Exception") else "event"
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    headers = {f":{role}-type": kind, ":content-type": "application/json", ":message-type": role}
    return message(body, headers)


def failure(code: str, text: str) -> bytes:
    """An error of the stream itself, which has no payload."""
    return message(b"", {":message-type": "error", ":error-code": code, ":error-message": text})
