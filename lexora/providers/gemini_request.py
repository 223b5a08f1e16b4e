"""OpenAI's chat request as Gemini's (https://ai.google.dev/api/generate-content).

Every field of OpenAI's API is mapped, known not to change the answer, or refused with what to do instead. Any other
field (`safetySettings`, `cachedContent`, …) is taken for Gemini's own and goes out as the client's bytes; what
`generationConfig` holds is joined with what the request says in OpenAI's way.
"""

from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.core.errors import InvalidRequest
from lexora.providers import chat_fields as openai
from lexora.providers.chat_fields import Refused, unsupported
from lexora.providers.gemini_messages import conversation


class _Mapped(msgspec.Struct):
    """The fields of OpenAI's request that have a counterpart, and `generationConfig`, where most of them go."""

    messages: list[openai.Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: openai.Effort | None = None
    response_format: openai.Format | None = None
    tools: list[openai.Tool] | None = None
    tool_choice: openai.ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    service_tier: str | None = None
    generationConfig: dict[str, Raw] | None = None  # noqa: N815 - Gemini's name


# Names of the same thing in OpenAI's request and in `generationConfig`.
_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}

_REFUSED = {
    "logit_bias": Refused(({},), "Leave it out, or choose a model of another provider."),
    "modalities": Refused((["text"],), 'Leave it out, or send ["text"].'),
    "audio": Refused((), "Leave it out: answers are text."),
    "prediction": Refused((), "Leave it out: answers take no prediction."),
    "moderation": Refused((), "Leave it out, or moderate in a request of its own."),
    "verbosity": Refused(("medium",), "Leave it out, or say in the prompt how long the answer is to be."),
    "web_search_options": Refused((), "Leave it out, or offer a search tool of your own in `tools`."),
    "functions": Refused(([],), "Send `tools`."),
    "function_call": Refused((), "Send `tool_choice`."),
}

# Who asks, of which Gemini is told nothing, and the bookkeeping of OpenAI's own.
_IRRELEVANT = openai.IRRELEVANT | {"user"}

_CONSUMED = {"model", "stream", *_Mapped.__struct_fields__, *_REFUSED, *_IRRELEVANT}

_SERVICE_TIER = {"auto": None, "default": "standard", "flex": "flex", "priority": "priority"}

# Models that are told in tokens how much to think, as Google's own door for OpenAI's clients translates it; later ones
# take a level (https://ai.google.dev/gemini-api/docs/openai#thinking).
_BEFORE_LEVELS = ("gemini-1.*", "gemini-2.*")
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}

_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}

_encode = msgspec.json.encode
_decode_mapped = msgspec.json.Decoder(_Mapped).decode


def generate_content_request(request: ChatRequest, upstream_model: str) -> bytes:
    """The body of a request. Raises InvalidRequest for what cannot be understood, and for what Gemini cannot do."""
    fields, asked = openai.read(request, _decode_mapped, _REFUSED, "Gemini")
    name = upstream_model.removeprefix("models/")
    before_levels = any(fnmatchcase(name, pattern) for pattern in _BEFORE_LEVELS)
    out = {**conversation(asked.messages, must_be_signed=not before_levels), **_tools(asked), **_service_tier(asked)}
    config = {**_sampling(asked), **_thinking(asked.reasoning_effort, before_levels), **_format(asked)}
    for field, raw in (asked.generationConfig or {}).items():
        if field in config:
            raise openai.said_twice(f"generationConfig.{field}", "Gemini's")
        config[field] = raw
    if config:
        out["generationConfig"] = config
    for field, raw in fields.items():
        if field in _CONSUMED:
            continue
        if field in out:
            raise openai.said_twice(field, "Gemini's")
        out[field] = raw
    return _encode(out)


def _sampling(asked: _Mapped) -> dict[str, Any]:
    config = {theirs: value for ours, theirs in _SAME.items() if (value := getattr(asked, ours)) is not None}
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    if limit is not None:
        config["maxOutputTokens"] = limit
    if asked.stop:
        config["stopSequences"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if asked.n is not None and asked.n != 1:
        config["candidateCount"] = asked.n
    return config


def _thinking(effort: openai.Effort | None, before_levels: bool) -> dict[str, Any]:
    if effort is None:
        return {}
    if before_levels and effort in _BUDGETS:
        return {"thinkingConfig": {"thinkingBudget": _BUDGETS[effort]}}
    if not before_levels and effort in _LEVELS:
        return {"thinkingConfig": {"thinkingLevel": _LEVELS[effort]}}
    known = ", ".join(f"'{name}'" for name in (_BUDGETS if before_levels else _LEVELS))
    raise unsupported("reasoning_effort", f"This model cannot think with effort '{effort}'. Send one of {known}.")


def _format(asked: _Mapped) -> dict[str, Any]:
    match asked.response_format:
        case openai.JsonObjectFormat():
            return {"responseMimeType": "application/json"}
        case openai.JsonSchemaFormat(json_schema=form):
            described = {"description": form.description} if form.description else {}
            return {"responseMimeType": "application/json", "responseJsonSchema": {**described, **form.schema}}
    return {}


def _service_tier(asked: _Mapped) -> dict[str, Any]:
    wanted = asked.service_tier or "auto"
    if wanted not in _SERVICE_TIER:
        known = ", ".join(f"'{name}'" for name in _SERVICE_TIER)
        raise unsupported("service_tier", f"Gemini has no service tier '{wanted}'. Send one of {known}.")
    tier = _SERVICE_TIER[wanted]
    return {"serviceTier": tier} if tier else {}


def _tools(asked: _Mapped) -> dict[str, Any]:
    """`tools` and `toolConfig`."""
    choice = asked.tool_choice
    if not asked.tools:
        if choice in (None, "none", "auto"):
            return {}
        raise InvalidRequest("'tool_choice' asks for a tool, and 'tools' has none.", param="tool_choice")
    if asked.parallel_tool_calls is False and choice != "none":
        message = "Gemini's models call several tools at once if they see fit. Leave it out, or send true."
        raise unsupported("parallel_tool_calls", message)
    out: dict[str, Any] = {"tools": [{"functionDeclarations": [_declaration(tool) for tool in asked.tools]}]}
    calling = _calling(choice, strict=any(tool.function.strict for tool in asked.tools))
    return {**out, "toolConfig": {"functionCallingConfig": calling}} if calling else out


def _calling(choice: openai.ToolChoice | None, *, strict: bool) -> dict[str, Any]:
    """`functionCallingConfig`: of its modes, ANY and VALIDATED hold calls to the schemas."""
    match choice:
        case openai.NamedTool(function=function):
            return {"mode": "ANY", "allowedFunctionNames": [function.name]}
        case openai.AllowedTools(allowed_tools=allowed):
            mode = "ANY" if allowed.mode == "required" else "VALIDATED"
            return {"mode": mode, "allowedFunctionNames": [tool.function.name for tool in allowed.tools]}
        case "none" | "required":
            return {"mode": _MODES[choice]}
    if strict:
        return {"mode": "VALIDATED"}
    return {"mode": "AUTO"} if choice else {}


def _declaration(tool: openai.Tool) -> dict[str, Any]:
    function = tool.function
    declaration: dict[str, Any] = {"name": function.name}
    if function.description:
        declaration["description"] = function.description
    if function.parameters:
        declaration["parametersJsonSchema"] = function.parameters
    return declaration
