"""How a model is asked for a variant of a prepared answer."""

from collections.abc import Sequence
from typing import Any

from lexora.core.answer_checks import language

# The system message makes these requests none that a prepared answer answers, and none that is counted as asked again.
_JAPANESE = (
    "質問に日本語で正確に答えてください。前置きや見出しは付けず、答えの文章だけを、100〜250字ほどで書いてください。",
    "次の答えはすでにあります。書き出し、切り口、文の組み立て、挙げる例が、そのどれとも違う答えを書いてください。",
)
_OTHER = (
    "Answer the question correctly, in the language in which it is asked. Write just the answer, without preamble or "
    "heading, in 40 to 120 words.",
    "The answers below exist already. Write one that differs from each of them in its opening, angle, structure and "
    "examples.",
)


def draft_messages(prompt: str, others: Sequence[str]) -> list[dict[str, Any]]:
    """The messages that ask for an answer unlike the others."""
    task, unlike = _JAPANESE if language(prompt) == "Japanese" else _OTHER
    if others:
        task = "\n\n".join((task, unlike, *(f"{number}. {text}" for number, text in enumerate(others, 1))))
    return [{"role": "system", "content": task}, {"role": "user", "content": prompt}]


def answer_of(content: str) -> str:
    """The answer in what a model wrote: without the thoughts that some put before it, with or without a first tag."""
    thoughts, _, answer = content.rpartition("</think>")
    return "" if not thoughts and answer.lstrip().startswith("<think>") else answer.strip()
