"""Anthropic's messages as OpenAI's (https://platform.claude.com/docs/en/api/messages).

What a block says is passed on; citations of old answers are not. Nor are marks, unless they are asked for: what is to
be cached, and thoughts with their signatures, which mean nothing to any but Anthropic's models.
"""

from collections.abc import Sequence
from typing import Any

from lexora.core.errors import InvalidRequest
from lexora.providers import tool_results
from lexora.providers.chat_fields import unsupported
from lexora.providers.messages_door_blocks import (
    Assistant,
    Block,
    Marked,
    Message,
    Part,
    RedactedThinking,
    System,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    User,
    parts_of,
    text_part,
)

OpenAIMessage = dict[str, Any]


def conversation(
    messages: Sequence[Message], system: Sequence[OpenAIMessage] = (), *, counted: bool = False, marks: bool = False
) -> list[OpenAIMessage]:
    """OpenAI's messages, after the system prompt. Raises InvalidRequest for what cannot be passed on.

    `counted`: nobody is to answer them, so that they may end with an answer. `marks`: with `cache_control`, and with
    signed thoughts as `thinking_blocks`, as clients of OpenAI's API write them for Anthropic's models by wide custom.
    """
    said = [*system]
    for position, message in enumerate(messages):
        match message:
            case System(content=content):
                _add_system(said, system_message(content))
            case Assistant(content=content):
                said.append(_assistant_message(content))
                if marks and not isinstance(content, str):
                    _mark_answer(said[-1], content)
            case User(content=str(content)):
                said.append({"role": "user", "content": content})
            case User(content=list(blocks)):
                said += _user_messages(blocks, f"messages[{position}]", marks)
    if said and said[-1]["role"] == "assistant" and not counted:
        where = f"messages[{len(messages) - 1}]"
        raise unsupported(
            where, "Not every model goes on with an answer that is begun for it. End with a user message."
        )
    return said


def is_anthropics(messages: Sequence[Message]) -> bool:
    """Whether Anthropic takes the thinking in the history for its own: it checks the signatures."""
    blocks = (block for message in messages if isinstance(message.content, list) for block in message.content)
    return all(block.signature for block in blocks if isinstance(block, Thinking))


def system_message(content: str | Sequence[Text], *, marks: bool = False) -> OpenAIMessage:
    """One text, as not every model's template takes parts in a system message, unless there are marks in it."""
    if marks and not isinstance(content, str):
        return {"role": "system", "content": [part for block in content for part in _mark(block.parts(""), block)]}
    text = content if isinstance(content, str) else "\n".join(block.text for block in content)
    return {"role": "system", "content": text}


def _add_system(said: list[OpenAIMessage], message: OpenAIMessage) -> None:
    """Many models' templates take one system message, and only as the first: later ones go into what the user says,
    marked as coding agents mark them there.
    """
    text = message["content"]
    if not said:
        said.append(message)
    elif (last := said[-1])["role"] == "system":
        _append(last, text, "\n")
    else:
        reminder = f"<system-reminder>\n{text}\n</system-reminder>"
        if last["role"] != "user":
            said.append({"role": "user", "content": reminder})
        else:
            _append(last, reminder, "\n\n")


def _append(message: OpenAIMessage, text: str, between: str) -> None:
    if isinstance(message["content"], str):
        message["content"] += f"{between}{text}"
    else:
        message["content"].append(text_part(text))


def _assistant_message(content: str | Sequence[Text | Thinking | RedactedThinking | ToolUse]) -> OpenAIMessage:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    calls = [block.call() for block in content if isinstance(block, ToolUse)]
    text = "".join(block.text for block in content if isinstance(block, Text))
    message: OpenAIMessage = {"role": "assistant", "content": text or (None if calls else "")}
    # Models that think between calls want to see what they thought; those that do not never sent any.
    thinking = "\n".join(block.thinking for block in content if isinstance(block, Thinking) and block.thinking)
    if thinking:
        message["reasoning_content"] = thinking
    if calls:
        message["tool_calls"] = calls
    return message


def _mark_answer(message: OpenAIMessage, content: Sequence[Text | Thinking | RedactedThinking | ToolUse]) -> None:
    thoughts = [block for block in content if isinstance(block, Thinking | RedactedThinking)]
    if thoughts:
        message["thinking_blocks"] = thoughts
    parts = [part for block in content if isinstance(block, Text) for part in _mark(block.parts(""), block)]
    if parts:
        message["content"] = parts
    calls = [block for block in content if isinstance(block, ToolUse)]
    for call, block in zip(message.get("tool_calls", ()), calls, strict=True):
        _mark([call], block)


def _mark(parts: list[Part], block: Marked) -> list[Part]:
    """The parts that a block has become, the last one with its mark."""
    if block.cache_control is not None and parts:
        parts[-1]["cache_control"] = block.cache_control
    return parts


def mark_end(message: OpenAIMessage, control: dict[str, Any]) -> None:
    """Everything up to the end of this message is to be cached."""
    content = message["content"] or ""
    parts = [text_part(content)] if isinstance(content, str) else content
    message["content"] = _mark(parts, Marked(cache_control=control))


def _user_messages(blocks: Sequence[Block | ToolResult], where: str, marks: bool) -> list[OpenAIMessage]:
    """The tools' results, which OpenAI wants right after the calls, and then what else the user says."""
    results: list[OpenAIMessage] = []
    parts: list[Part] = []
    for position, block in enumerate(blocks):
        here = f"{where}.content[{position}]"
        if isinstance(block, ToolResult):
            text, others = _result(block, here)
            content = _mark([text_part(text)], block) if marks and block.cache_control is not None else text
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
            parts += others
        else:
            parts += _mark(block.parts(here), block) if marks else block.parts(here)
    if not blocks:
        raise InvalidRequest(f"'{where}.content' is empty.", param=f"{where}.content", code="invalid_value")
    if not parts:
        return results
    lone_text = parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else None
    return [*results, {"role": "user", "content": parts if lone_text is None else lone_text}]


def _result(result: ToolResult, where: str) -> tuple[str, list[Part]]:
    content = result.content or ""
    parts = [text_part(content)] if isinstance(content, str) else parts_of(content, where)
    text, others = tool_results.split(result.tool_use_id, parts)
    # OpenAI's has no other way to say so.
    return f"Error: {text}" if result.is_error else text, others
