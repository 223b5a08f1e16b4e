"""OpenAI's chat request as Anthropic's (https://platform.claude.com/docs/en/api/messages).

Every field of OpenAI's API is mapped, known not to change the answer, or refused with what to do instead. Any other
field (`thinking`, `top_k`, `cache_control`, …) is taken for Anthropic's own and goes out as the client's bytes.
"""

from typing import Any

import msgspec

from lexora.core.chat import ChatRequest
from lexora.providers import chat_fields as openai
from lexora.providers.anthropic_messages import Block, conversation, marked
from lexora.providers.chat_fields import Refused, unsupported


class _Mapped(msgspec.Struct):
    """The fields of OpenAI's request that have a counterpart of another name, form or range."""

    messages: list[openai.Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    reasoning_effort: openai.Effort | None = None
    response_format: openai.Format | None = None
    tools: list[openai.Tool] | None = None
    tool_choice: openai.ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None


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
    "moderation": Refused((), "Leave it out, or moderate in a request of its own."),
    "verbosity": Refused(("medium",), "Leave it out, or say in the prompt how long the answer is to be."),
    "web_search_options": Refused((), "Leave it out, or offer a search tool of your own in `tools`."),
    "service_tier": Refused(("auto", "default"), "Leave it out, or send 'auto' or 'default'."),
    "functions": Refused(([],), "Send `tools`."),
    "function_call": Refused((), "Send `tool_choice`."),
}

_CONSUMED = {"model", *_Mapped.__struct_fields__, *_REFUSED, *openai.IRRELEVANT} - {"temperature"}

_TOOL_CHOICE = {"none": "none", "auto": "auto", "required": "any"}

_encode = msgspec.json.encode
_decode_mapped = msgspec.json.Decoder(_Mapped).decode


def messages_request(request: ChatRequest, upstream_model: str, default_max_tokens: int) -> bytes:
    """The body for `/messages`. Raises InvalidRequest for what cannot be understood, and for what Anthropic cannot do.

    `default_max_tokens` is for requests that set no limit: Anthropic's API requires one.
    """
    fields, asked = openai.read(request, _decode_mapped, _REFUSED, "Anthropic's")
    if asked.temperature is not None and asked.temperature > 1:
        raise unsupported("temperature", "Anthropic's temperature goes from 0 to 1, OpenAI's to 2. Send at most 1.")
    limits = (asked.max_completion_tokens, asked.max_tokens)
    out: dict[str, Any] = {
        "model": upstream_model,
        "max_tokens": next((limit for limit in limits if limit is not None), default_max_tokens),
        **conversation(asked.messages),
        **_tools(asked),
        **_output(asked),
    }
    if asked.stop:
        out["stop_sequences"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if asked.user:
        out["metadata"] = {"user_id": asked.user}
    for name, raw in fields.items():
        if name in _CONSUMED:
            continue
        if name in out:
            raise openai.said_twice(name, "Anthropic's")
        out[name] = raw
    return _encode(out)


def _tools(asked: _Mapped) -> dict[str, Any]:
    """`tools` and `tool_choice`."""
    tools, choice = openai.offered(asked.tools, asked.tool_choice)
    if not tools:
        return {}
    out: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if isinstance(choice, openai.NamedTool):
        out["tool_choice"] = {"type": "tool", "name": choice.function.name}
    elif choice or asked.parallel_tool_calls is False:
        out["tool_choice"] = {"type": _TOOL_CHOICE[choice or "auto"]}
    if asked.parallel_tool_calls is False and choice != "none":
        out["tool_choice"]["disable_parallel_tool_use"] = True
    return out


def _tool(tool: openai.Tool) -> Block:
    function = tool.function
    # No parameters means none to OpenAI; Anthropic wants the type said.
    block: Block = {"name": function.name, "input_schema": {"type": "object", **(function.parameters or {})}}
    if function.description:
        block["description"] = function.description
    if function.strict:
        block["strict"] = True
    return marked(block, tool.cache_control)


def _output(asked: _Mapped) -> dict[str, Any]:
    """`output_config` and `thinking`: how hard to try, and in what form to answer."""
    config: dict[str, Any] = {}
    out: dict[str, Any] = {}
    if asked.reasoning_effort == "none":
        out["thinking"] = {"type": "disabled"}
    elif asked.reasoning_effort:
        # Anthropic's least effort is "low".
        config["effort"] = "low" if asked.reasoning_effort == "minimal" else asked.reasoning_effort
    match asked.response_format:
        case openai.JsonObjectFormat():
            raise unsupported(
                "response_format.type",
                "Anthropic has no JSON mode without a schema. Send 'json_schema', or ask for JSON in the prompt.",
            )
        case openai.JsonSchemaFormat(json_schema=form):
            described = {"description": form.description} if form.description else {}
            config["format"] = {"type": "json_schema", "schema": {**described, **form.schema}}
    return {**out, "output_config": config} if config else out
