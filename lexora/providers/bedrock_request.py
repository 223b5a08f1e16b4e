"""OpenAI's chat request as Converse's (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html).

Every field of OpenAI's API is mapped, known not to change the answer, or refused with what to do instead. Bedrock's
own fields (`guardrailConfig`, `requestMetadata`, …) go out as the client's bytes; what `inferenceConfig`,
`outputConfig` and `additionalModelRequestFields` hold is joined with what the request says in OpenAI's way. Any other
field is refused: Bedrock would pass over it.
"""

from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.chat import ChatRequest
from lexora.providers import chat_fields as openai
from lexora.providers.bedrock_messages import cache_point, conversation, uses_tools
from lexora.providers.chat_fields import Refused, unsupported

_Object = dict[str, Any]


class _Mapped(msgspec.Struct):
    """The fields that have a counterpart, and those of Bedrock's own that are joined with what these become."""

    messages: list[openai.Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    thinking: dict[str, Raw] | None = None
    reasoning_effort: openai.Effort | None = None
    response_format: openai.Format | None = None
    tools: list[openai.Tool] | None = None
    tool_choice: openai.ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    service_tier: str | None = None
    inferenceConfig: dict[str, Raw] | None = None  # noqa: N815 - Bedrock's name, as the next ones
    outputConfig: dict[str, Raw] | None = None  # noqa: N815
    additionalModelRequestFields: dict[str, Raw] | None = None  # noqa: N815


_REFUSED = {
    "n": Refused((1,), "Ask once for each answer."),
    "logprobs": Refused((False,), "Leave it out, or choose a model of another provider."),
    "top_logprobs": Refused((0,), "Leave it out, or choose a model of another provider."),
    "logit_bias": Refused(({},), "Leave it out, or choose a model of another provider."),
    "presence_penalty": Refused((0,), "Leave it out, or say in the prompt what not to repeat."),
    "frequency_penalty": Refused((0,), "Leave it out, or say in the prompt what not to repeat."),
    "seed": Refused((), "Leave it out: an answer cannot be repeated."),
    "modalities": Refused((["text"],), 'Leave it out, or send ["text"].'),
    "audio": Refused((), "Leave it out: answers are text."),
    "prediction": Refused((), "Leave it out: answers take no prediction."),
    "moderation": Refused((), "Leave it out, or name a guardrail in `guardrailConfig`."),
    "verbosity": Refused(("medium",), "Leave it out, or say in the prompt how long the answer is to be."),
    "web_search_options": Refused((), "Leave it out, or offer a search tool of your own in `tools`."),
    "functions": Refused(([],), "Send `tools`."),
    "function_call": Refused((), "Send `tool_choice`."),
}

_OWN = {
    *("guardrailConfig", "promptVariables", "requestMetadata", "performanceConfig"),
    *("additionalModelResponseFieldPaths", "system", "toolConfig", "serviceTier"),
}

# Who asks, of which Bedrock is told nothing, and the bookkeeping of OpenAI's own.
_IRRELEVANT = openai.IRRELEVANT | {"user"}

_CONSUMED = {"model", "stream", *_Mapped.__struct_fields__, *_REFUSED, *_IRRELEVANT}

_SERVICE_TIER = {"auto": None, "default": "default", "flex": "flex", "priority": "priority"}

_encode = msgspec.json.encode
_decode_mapped = msgspec.json.Decoder(_Mapped).decode


def converse_request(request: ChatRequest, upstream_model: str) -> bytes:
    """The body of a request. Raises InvalidRequest for what cannot be understood, and for what Bedrock cannot do."""
    fields, asked = openai.read(request, _decode_mapped, _REFUSED, "Bedrock's")
    out = conversation(asked.messages)
    out |= {**_tools(asked, needed=uses_tools(out["messages"])), **_service_tier(asked)}
    effort, extra = _effort(asked.reasoning_effort, upstream_model)
    for name, config, own in (
        ("inferenceConfig", _inference(asked), asked.inferenceConfig),
        ("outputConfig", {**effort, **_format(asked)}, asked.outputConfig),
        (
            "additionalModelRequestFields",
            {**extra, **_of_the_model(asked, upstream_model)},
            asked.additionalModelRequestFields,
        ),
    ):
        if joined := _joined(name, config, own or {}):
            out[name] = joined
    for name, raw in fields.items():
        if name in _CONSUMED:
            continue
        if name not in _OWN:
            message = f"Bedrock does not know '{name}'. What only the model knows belongs in"
            raise unsupported(name, f"{message} `additionalModelRequestFields`; else leave it out.")
        if name in out:
            raise openai.said_twice(name, "Bedrock's")
        out[name] = raw
    return _encode(out)


def _joined(name: str, ours: _Object, own: dict[str, Raw]) -> _Object:
    for field in own:
        if field in ours:
            raise openai.said_twice(f"{name}.{field}", "Bedrock's")
    return {**ours, **own}


def _inference(asked: _Mapped) -> _Object:
    if asked.temperature is not None and asked.temperature > 1:
        raise unsupported("temperature", "Bedrock's temperature goes from 0 to 1, OpenAI's to 2. Send at most 1.")
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    config = {"maxTokens": limit, "temperature": asked.temperature, "topP": asked.top_p, "stopSequences": stop or None}
    return {name: value for name, value in config.items() if value is not None}


def _effort(effort: openai.Effort | None, model: str) -> tuple[_Object, _Object]:
    """How hard to try, as a part of `outputConfig`, or of the model's own fields where those have it."""
    if effort is None:
        return {}, {}
    if "openai." in model:
        return {}, {"reasoning_effort": effort}
    # Neither Bedrock nor Nova knows a "minimal" one.
    least = "low" if effort == "minimal" else effort
    if "amazon.nova-2" in model:
        thinking = {"type": "disabled"} if least == "none" else {"type": "enabled", "maxReasoningEffort": least}
        return {}, {"reasoningConfig": thinking}
    if least != "none":
        return {"effort": least}, {}
    if "anthropic." in model:
        return {}, {"thinking": {"type": "disabled"}}
    message = "Bedrock cannot tell this model not to think. Leave it out, or say it in `additionalModelRequestFields`."
    raise unsupported("reasoning_effort", message)


def _of_the_model(asked: _Mapped, model: str) -> _Object:
    """What Converse has no field for, where it is known what the model calls it."""
    out: _Object = {}
    if asked.top_k is not None:
        if "anthropic." in model:
            out["top_k"] = asked.top_k
        elif "amazon.nova" in model:
            out["inferenceConfig"] = {"topK": asked.top_k}
        else:
            message = "Bedrock's models have different names for it. Put this model's into"
            raise unsupported("top_k", f"{message} `additionalModelRequestFields`, or leave it out.")
    if asked.thinking is not None:
        if "anthropic." not in model or asked.reasoning_effort == "none":
            message = "'thinking' is a field of Anthropic's models. Send `reasoning_effort` instead of it."
            raise unsupported("thinking", message)
        out["thinking"] = asked.thinking
    return out


def _format(asked: _Mapped) -> _Object:
    match asked.response_format:
        case openai.JsonObjectFormat():
            raise unsupported(
                "response_format.type",
                "Bedrock has no JSON mode without a schema. Send 'json_schema', or ask for JSON in the prompt.",
            )
        case openai.JsonSchemaFormat(json_schema=form):
            described = {"description": form.description} if form.description else {}
            schema = {"schema": _encode(form.schema).decode(), **described}
            return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
    return {}


def _service_tier(asked: _Mapped) -> _Object:
    wanted = asked.service_tier or "auto"
    if wanted not in _SERVICE_TIER:
        known = ", ".join(f"'{name}'" for name in _SERVICE_TIER)
        raise unsupported("service_tier", f"Bedrock has no service tier '{wanted}'. Send one of {known}.")
    tier = _SERVICE_TIER[wanted]
    return {"serviceTier": {"type": tier}} if tier else {}


def _tools(asked: _Mapped, *, needed: bool) -> _Object:
    """`toolConfig`. `needed`: the conversation has used tools, and Bedrock then wants to be told of them."""
    tools, choice = openai.offered(asked.tools, asked.tool_choice)
    if needed and choice == "none":
        message = "Bedrock cannot forbid tools in a conversation that has used some. Leave it out, or send 'auto'."
        raise unsupported("tool_choice", message)
    if needed and not tools:
        message = "Bedrock wants to be told of the tools that the conversation has used. Send them in `tools`."
        raise unsupported("tools", message)
    if not tools or choice == "none":
        return {}
    if asked.parallel_tool_calls is False:
        message = "Bedrock's models call several tools at once if they see fit. Leave it out, or send true."
        raise unsupported("parallel_tool_calls", message)
    config: _Object = {"tools": [block for tool in tools for block in (_tool(tool), *cache_point(tool.cache_control))]}
    match choice:
        case openai.NamedTool(function=function):
            config["toolChoice"] = {"tool": {"name": function.name}}
        case "auto":
            config["toolChoice"] = {"auto": {}}
        case "required":
            config["toolChoice"] = {"any": {}}
    return {"toolConfig": config}


def _tool(tool: openai.Tool) -> _Object:
    function = tool.function
    # No parameters means none to OpenAI; Bedrock wants the type said.
    spec: _Object = {"name": function.name, "inputSchema": {"json": {"type": "object", **(function.parameters or {})}}}
    if function.description:
        spec["description"] = function.description
    if function.strict:
        spec["strict"] = True
    return {"toolSpec": spec}
