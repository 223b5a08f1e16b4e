"""A model for embeddings, made of the tiny one for chat: its file says besides how they are made of the tokens'."""

import struct
from pathlib import Path

from tests.support.gateway import TINY_CHAT

_UINT32 = 4
_MEAN = 1


def write_embedding_model(path: Path) -> Path:
    """Writes the GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and returns its path."""
    model = TINY_CHAT.read_bytes()
    magic, version, tensors, pairs = struct.unpack_from("<4sIQQ", model)
    # Two pairs of 64 bytes in all: what follows must stay aligned to 32.
    more = _pair(b"llama.pooling_type", _MEAN) + _pair(b"test.alignment", 0)
    assert len(more) == 64
    path.write_bytes(struct.pack("<4sIQQ", magic, version, tensors, pairs + 2) + more + model[24:])
    return path


def _pair(key: bytes, value: int) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<II", _UINT32, value)
