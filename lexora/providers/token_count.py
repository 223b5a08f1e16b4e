"""How servers are asked for a prompt's tokens (https://platform.claude.com/docs/en/api/messages-count-tokens).

The form is Anthropic's; vLLM and llama.cpp, whose other dialect is OpenAI's, answer it beside their `/messages`.
"""

import re

import msgspec

from lexora.core.chat import ChatRequest
from lexora.core.errors import UpstreamBroken
from lexora.providers.dialect import JSON_HEADER, NOT_JSON, Outgoing

# Those that it takes of a message's fields: it refuses any other.
_FIELDS = (
    *("messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed"),
    *("context_management", "compaction", "user_profile_id", "workspace_id"),
)


class _Count(msgspec.Struct):
    input_tokens: int


_BETAS = re.compile(rb"[\w.:-]+(?: *, *[\w.:-]+)*")

_decode_count = msgspec.json.Decoder(_Count).decode


def count_request(request: ChatRequest, upstream_model: str) -> Outgoing:
    """What to ask for a request that came in Anthropic's form."""
    sent = request.anthropic or {}
    fields = {name: sent[name] for name in _FIELDS if name in sent}
    body = msgspec.json.encode({"model": upstream_model, **fields})
    return Outgoing("/messages/count_tokens", body, JSON_HEADER + betas_header(request))


def counted(body: bytes) -> int:
    """The tokens that were counted. Raises UpstreamBroken."""
    try:
        return _decode_count(body).input_tokens
    except NOT_JSON:
        raise UpstreamBroken("The upstream's answer is no count of tokens.") from None


def betas_header(request: ChatRequest) -> bytes:
    """The line that turns on what the client has asked for of Anthropic's API before it is everybody's."""
    return b"anthropic-beta: %b\r\n" % request.betas if _BETAS.fullmatch(request.betas) else b""
