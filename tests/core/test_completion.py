"""Our own completions and chunks, against the SDK's types of them."""

import json

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lexora.core.completion import chunks, completion
from lexora.core.usage import Usage

FACTS = {"request_id": "0" * 32, "created": 1_795_260_267, "model": "lexora/fixed", "usage": Usage(12, 34)}
TEXTS = [
    "東京です。日本の政治の中心です。",
    "No full stop",
    "一行目\n二行目\n\n四行目",
    "。。。はじめに点がある",
    'タブ\tと"引用"と絵文字🗻',
    "\n",
    "",
]


def test_a_completion_is_complete() -> None:
    data = json.loads(completion(text="東京です。", **FACTS))
    parsed = ChatCompletion.model_validate(data, strict=True)
    assert parsed.to_dict() == data  # nothing in it that the type does not have
    assert parsed.id == "chatcmpl-" + "0" * 32
    assert (parsed.object, parsed.created, parsed.model) == ("chat.completion", 1_795_260_267, "lexora/fixed")
    (choice,) = parsed.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", "東京です。", None)
    assert parsed.usage is not None
    assert (parsed.usage.prompt_tokens, parsed.usage.completion_tokens, parsed.usage.total_tokens) == (12, 34, 46)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("include_usage", [True, False])
def test_chunks_add_up_to_the_completion(text: str, include_usage: bool) -> None:
    whole = ChatCompletion.model_validate_json(completion(text=text, **FACTS))
    state = ChatCompletionStreamState()
    sent = chunks(text=text, include_usage=include_usage, **FACTS)
    for data in sent:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(data, strict=True))
    final = state.get_final_completion()
    assert final.choices[0].message.content == text
    assert final.choices[0].finish_reason == "stop"
    assert (final.id, final.created, final.model) == (whole.id, whole.created, whole.model)
    assert final.usage == (whole.usage if include_usage else None)


def test_usage_is_asked_for_in_openais_way() -> None:
    """A chunk of its own with no choices, before which every chunk has `usage: null`; unasked, no chunk has the key."""
    *others, last = map(json.loads, chunks(text="a", include_usage=True, **FACTS))
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
    assert [chunk["usage"] for chunk in others] == [None] * len(others)
    assert all("usage" not in json.loads(data) for data in chunks(text="a", include_usage=False, **FACTS))


def test_a_sentence_is_a_chunk() -> None:
    sent = [json.loads(data) for data in chunks(text="一つ目。二つ目。三つ目", include_usage=False, **FACTS)]
    deltas = [chunk["choices"][0]["delta"] for chunk in sent]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "一つ目。"},
        {"content": "二つ目。"},
        {"content": "三つ目"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in sent] == [None] * 4 + ["stop"]
