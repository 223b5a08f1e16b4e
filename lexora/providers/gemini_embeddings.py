"""Embeddings of Gemini's (https://ai.google.dev/api/embeddings), in OpenAI's form."""

import struct
from base64 import b64encode
from typing import Any, Literal

import msgspec

from lexora.core.chat import ChatRequest, invalid_field
from lexora.core.errors import UpstreamBroken
from lexora.core.usage import Usage, estimate_tokens
from lexora.providers.dialect import NOT_JSON, Completion

# A name for whoever bills the client, which Google has no use for.
_IRRELEVANT = {"user"}


class _Asked(msgspec.Struct):
    """Texts, not their tokens, nor images: whose form is Google's, and not OpenAI's."""

    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class _Embedding(msgspec.Struct):
    values: list[float]


class _Counted(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0


class _Answer(msgspec.Struct, rename="camel"):
    embeddings: list[_Embedding]
    usage_metadata: _Counted | None = None


_encode = msgspec.json.encode
_decode_asked = msgspec.json.Decoder(_Asked).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def embed_request(request: ChatRequest, upstream_model: str) -> bytes:
    """One batch of all that is to be embedded. Google's own fields (`taskType`, `title`) go with each.

    Raises InvalidRequest.
    """
    asked = _asked(request)
    own = {"model", *_Asked.__struct_fields__, *_IRRELEVANT}
    more: dict[str, Any] = {name: raw for name, raw in request.fields.items() if name not in own}
    if asked.dimensions is not None:
        more["outputDimensionality"] = asked.dimensions
    model = f"models/{upstream_model.removeprefix('models/')}"
    return _encode(
        {"requests": [{"model": model, "content": {"parts": [{"text": text}]}, **more} for text in request.texts()]}
    )


def embeddings(request: ChatRequest, body: bytes, content_type: bytes) -> Completion:  # noqa: ARG001 - it is JSON
    """A plain answer in OpenAI's form. Raises UpstreamBroken."""
    try:
        answer = _decode_answer(body)
    except NOT_JSON:
        raise UpstreamBroken("The upstream's answer holds no embeddings.") from None
    packed = _asked(request).encoding_format == "base64"
    vectors = [_packed(each.values) if packed else each.values for each in answer.embeddings]
    counted = answer.usage_metadata
    tokens = max(0, counted.prompt_token_count) if counted else sum(map(estimate_tokens, request.texts()))
    out = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "model": request.known.model or "",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Completion(_encode(out), "", "", Usage(tokens) if counted else None)


def _asked(request: ChatRequest) -> _Asked:
    sent = {name: raw for name, raw in request.fields.items() if name in _Asked.__struct_fields__}
    try:
        return _decode_asked(_encode(sent))
    except msgspec.ValidationError as error:
        raise invalid_field(str(error)) from None


def _packed(values: list[float]) -> str:
    """As OpenAI packs them: 32 bits each, the lowest byte first."""
    try:
        return b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    except OverflowError:
        raise UpstreamBroken("The upstream's answer holds a number that is too large.") from None
