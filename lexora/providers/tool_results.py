"""Results of tools that are more than text: a message of OpenAI's with a result has room for text alone."""

from collections.abc import Sequence
from typing import Any

Part = dict[str, Any]


def split(call_id: str, parts: Sequence[Part]) -> tuple[str, list[Part]]:
    """The text of a result, and the parts of a user's message that is to follow it: none if there is nothing else."""
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    others = [part for part in parts if part["type"] != "text"]
    if not others:
        return text, []
    text = "\n".join(filter(None, (text, "(The rest of the result is in the next message.)")))
    return text, [{"type": "text", "text": f"The rest of the result of {call_id}:"}, *others]
