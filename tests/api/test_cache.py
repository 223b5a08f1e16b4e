"""The cache, through the public door: what is asked again costs nothing, and nobody gets what is not his."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.support.client import HELLO, UPSTREAM_KEY, RawChat, anthropic_sdk, bearer, events, post, sdk
from tests.support.command import LEXORA, run
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.recorded import (
    DONE,
    RECORDED,
    Action,
    Close,
    RecordedUpstream,
    Sleep,
    Until,
    completion,
    finish,
    json_response,
    stream,
    token,
    usage,
    wait_until,
)

CHAT = "/v1/chat/completions"
PLAIN = json_response(completion("Hello. I am here."))
STREAM = stream(token("Hello."), token(" I am here."), finish(), usage(7, 3), DONE)
WORDS = iter(range(10**6))
WEB = httpx2.Client(timeout=30)  # to make one takes its time


def config(url: str) -> dict[str, Any]:
    own = {"provider": "vllm", "base_url": url, "model": "up"}
    priced = {"provider": "openai", "base_url": url, "model": "up", "credential": "env:UPSTREAM_KEY"}
    price = {"input": 2, "output": 8}
    return {
        "circuit": {"failures": 1_000_000},
        "rate_limits": {"default": {"requests_per_minute": 100_000, "tokens_per_minute": 10**9}, "users": {
            "poor": {"requests_per_minute": 1, "tokens_per_minute": 10**6}}},
        "models": {
            "m": {"aliases": ["alias"], "cache": True, "deployments": [own]},
            "shared": {"cache": {"per_user": False}, "deployments": [{**priced, "price": price}]},
            "brief": {"cache": {"ttl_seconds": 0.5}, "deployments": [own]},
            "off": {"deployments": [{**own, "name": "first"}]},
            "split": {"cache": True, "deployments": [{**priced, "name": "unknown"}, {**priced, "price": price}]},
            "unpriced": {"cache": True, "deployments": [priced]},
            "claude": {"cache": True, "deployments": [{**priced, "provider": "anthropic"}]},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def site(_upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose models are cached, each in its way, but for `off`."""
    env = {"UPSTREAM_KEY": UPSTREAM_KEY}
    with running_gateway(tmp_path_factory.mktemp("cache"), config(_upstream.base_url), env=env) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _web() -> Iterator[None]:
    yield
    WEB.close()


@pytest.fixture
def messages() -> list[dict[str, str]]:
    """What no other test asks."""
    return [{"role": "user", "content": f"Question {next(WORDS)}?"}]


def ask(site: RunningGateway, messages: Any, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    body = {"model": "m", "messages": messages, **fields}
    return WEB.post(f"{site.url}{CHAT}", json=body, headers=headers or {})


def state(response: httpx2.Response) -> str | None:
    assert response.status_code == 200, response.text
    found: str | None = response.headers.get("x-lexora-cache")
    return found


def text_of(response: httpx2.Response) -> str:
    if not response.headers["content-type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    chunks = [chunk for chunk in events(response) if chunk != "[DONE]"]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def test_what_is_asked_again_is_answered_by_the_cache(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN])
    first, again = ask(site, messages, model="shared"), ask(site, messages, model="shared")
    assert (state(first), state(again), len(upstream.received)) == ("miss", "hit", 1)
    assert (first.headers["x-lexora-origin"], first.headers["x-lexora-cost-usd"]) == ("paid", "0.000038000")
    assert "x-lexora-saved-usd" not in first.headers
    assert "age" not in first.headers
    facts = {name: again.headers[f"x-lexora-{name}"] for name in ("origin", "deployment", "model")}
    assert facts == {"origin": "cache", "deployment": "cache/openai/up", "model": "recorded"}
    assert (again.headers["x-lexora-cost-usd"], again.headers["x-lexora-saved-usd"]) == ("0", "0.000038000")
    assert again.headers["age"] in ("0", "1")
    request_id = again.headers["x-request-id"]
    assert again.json() == {**first.json(), "id": f"chatcmpl-{request_id}"}
    expected = {
        "origin": "cache",
        "deployment": "cache/openai/up",
        "provider": "openai",
        "model": "shared",
        "upstream_model": "recorded",
        "tokens_in": 7,
        "tokens_out": 3,
        "cost_usd": 0,
        "saved_usd": 0.000038,
        "attempts": 0,
        "outcome": "completed",
    }
    record = site.record_of(request_id)
    assert {name: record[name] for name in expected} == expected
    assert site.log_line_of(request_id)["savedUsd"] == 0.000038
    assert site.record_of(first.headers["x-request-id"])["saved_usd"] is None


@pytest.mark.parametrize(("model", "saved"), [("m", "0"), ("split", "0.000038000"), ("unpriced", None)])
def test_what_is_saved_is_what_the_first_deployment_with_a_price_takes(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, model: str, saved: str | None
) -> None:
    """An own one takes nothing."""
    upstream.play([PLAIN])
    ask(site, messages, model=model)
    again = ask(site, messages, model=model)
    assert (state(again), again.headers.get("x-lexora-saved-usd")) == ("hit", saved)


def test_a_model_that_is_not_cached_is_asked_each_time(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN])
    assert [state(ask(site, messages, model="off")) for _ in range(2)] == [None, None]
    assert len(upstream.received) == 2


def test_a_request_may_ask_for_the_cache_or_for_none(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN])
    assert [state(ask(site, messages, model="off", x_cache=wish)) for wish in (True, 60, 0.5)] == ["miss", "hit", "hit"]
    assert [state(ask(site, messages, model="off", x_cache=wish)) for wish in (False, 0, None)] == [None] * 3
    assert [state(ask(site, messages, x_cache=wish)) for wish in (False, 0)] == [None] * 2
    assert len(upstream.received) == 6
    assert all("x_cache" not in request.json() for request in upstream.received)
    for wrong in (-1, "yes", 10**7):
        refused = ask(site, messages, x_cache=wrong)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x_cache")


SAME: list[dict[str, Any]] = [
    {"model": "alias"},
    {"user": "someone"},
    {"metadata": {"trace": "1"}},
    {"stream_options": None},
    {"x_priority": "low"},
    {"x_timeout": 20},
    {"safety_identifier": "x"},
]
OTHER: list[dict[str, Any]] = [
    {"temperature": 0.5},
    {"temperature": None},
    {"max_tokens": 7},
    {"seed": 1},
    {"n": 1},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"response_format": {"type": "json_object"}},
    {"an_unknown_field": {"a": 1}},
    {"model": "shared"},
    {"model": "off", "x_cache": True},
    {"x_user_id": "someone else"},
]


@pytest.mark.parametrize("fields", SAME, ids=str)
def test_what_cannot_change_the_answer_does_not_matter(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, fields: dict[str, Any]
) -> None:
    upstream.play([PLAIN])
    assert state(ask(site, messages)) == "miss"
    assert state(ask(site, messages, **fields)) == "hit"


@pytest.mark.parametrize("fields", OTHER, ids=str)
def test_what_can_is_another_question(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, fields: dict[str, Any]
) -> None:
    upstream.play([PLAIN])
    assert state(ask(site, messages)) == "miss"
    assert state(ask(site, messages, **fields)) == "miss"


def test_the_order_of_fields_does_not_matter_nor_how_json_is_written(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN])
    content = messages[0]["content"]
    bodies = [
        f'{{"model":"m","messages":[{{"role":"user","content":"{content}é"}}],"tools":[{{"a":1,"b":[1.0,2]}}]}}',
        f'{{"tools": [{{"b": [1.0, 2], "a": 1}}], "messages": [{{"content": "{content}\\u00e9", "role": "user"}}],'
        '"model": "m"}',
    ]
    answers = [post(site, body.encode()) for body in bodies]
    assert [state(answer) for answer in answers] == ["miss", "hit"]
    twice = f'{{"model":"m","messages":[{{"role":"user","content":"evil","content":"{content}é"}}],"tools":[]}}'
    assert [state(post(site, twice.encode())) for _ in range(2)] == [None, None]  # who knows which one counts


TOOL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}


def delta(index: int = 0, logprobs: Any = None, **fields: Any) -> bytes:
    choice = {"index": index, "delta": fields, "logprobs": logprobs, "finish_reason": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "recorded"}
    return b"data: " + json.dumps({**chunk, "choices": [choice], "usage": None}).encode() + b"\n\n"


def logprob(text: str) -> dict[str, Any]:
    return {"content": [{"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}


LOGPROBS = {"content": logprob("Hel")["content"] + logprob("lo.")["content"], "refusal": None}

STREAMS: dict[str, tuple[dict[str, Any], list[bytes], list[dict[str, Any]]]] = {
    "text": (
        {},
        [delta(role="assistant", content=""), token("Hel"), token("lo."), finish()],
        [{"index": 0, "message": {"content": "Hello."}, "logprobs": None, "finish_reason": "stop"}],
    ),
    "reasoning": (
        {},
        [delta(role="assistant"), *(delta(reasoning_content=said) for said in ("I ", "think.")), token("a"), finish()],
        [{"index": 0, "message": {"content": "a", "reasoning_content": "I think."}, "finish_reason": "stop"}],
    ),
    "tools": (
        {},
        [
            delta(role="assistant", content=None, tool_calls=[TOOL]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
            delta(tool_calls=[{**TOOL, "index": 1, "id": "call_2", "function": {"name": "g", "arguments": "{}"}}]),
            finish("tool_calls"),
        ],
        [
            {
                "index": 0,
                "message": {
                    "content": None,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
    ),
    "two choices": (
        {"n": 2},
        [
            *(delta(index, role="assistant") for index in (0, 1)),
            *(token(part, index) for part, index in (("one", 0), ("t", 1), ("wo", 1))),
            *(finish(index=index) for index in (1, 0)),
        ],
        [
            {"index": 0, "message": {"content": "one"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": "two"}, "finish_reason": "stop"},
        ],
    ),
    "logprobs": (
        {"logprobs": True},
        [delta(role="assistant"), *(delta(logprobs=logprob(part), content=part) for part in ("Hel", "lo.")), finish()],
        [{"index": 0, "message": {"content": "Hello."}, "logprobs": LOGPROBS, "finish_reason": "stop"}],
    ),
}  # fmt: skip


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(name in whole and contains(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_streamed_answer_serves_plain_and_streamed_alike(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, kind: str
) -> None:
    fields, sent, expected = STREAMS[kind]
    upstream.play(stream(*sent, usage(7, 3), DONE))
    with sdk(site) as client:
        finals = []
        for cached in ("miss", "hit"):
            raw = client.chat.completions.with_raw_response.create(
                model="m", messages=messages, stream=True, stream_options={"include_usage": True}, **fields
            )
            assert raw.headers["x-lexora-cache"] == cached
            finals.append(_assembled(raw.parse()))
        plain = client.chat.completions.with_raw_response.create(model="m", messages=messages, **fields)
        whole = json.loads(plain.content)
        assert plain.headers["x-lexora-cache"] == "hit"
        assert contains(whole["choices"], expected)
        for final in finals:
            assert final.usage is not None
            assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (7, 3)
        first, second = ([choice.to_dict() for choice in final.choices] for final in finals)
        assert first == second
        assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (7, 3)
    assert len(upstream.received) == 1


@pytest.mark.parametrize("kind", STREAMS)
def test_a_plain_answer_serves_streams_alike(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, kind: str
) -> None:
    fields, _, choices = STREAMS[kind]
    whole = completion(choices=[{**c, "message": {"role": "assistant", **c["message"]}} for c in choices])
    upstream.play([json_response(whole)])
    with sdk(site) as client:
        assert state(ask(site, messages, **fields)) == "miss"
        raw = client.chat.completions.with_raw_response.create(model="m", messages=messages, stream=True, **fields)
        assert raw.headers["x-lexora-cache"] == "hit"
        final = _assembled(raw.parse())
        assert final.usage is None
        assert contains([choice.to_dict() for choice in final.choices], choices)
        streamed = ask(site, messages, stream=True, stream_options={"include_usage": True}, **fields)
    *chunks, last, done = events(streamed)
    assert (done, last["usage"]) == ("[DONE]", whole["usage"])
    ids = {chunk["id"] for chunk in [*chunks, last]}
    assert ids == {f"chatcmpl-{streamed.headers['x-request-id']}"}
    assert len(upstream.received) == 1


def _assembled(chunks: Any) -> Any:
    """As the SDK puts a stream together."""
    from openai.lib.streaming.chat import ChatCompletionStreamState

    found = ChatCompletionStreamState()
    for chunk in chunks:
        found.handle_chunk(chunk)
    return found.current_completion_snapshot


def ended(reason: str, text: str = "Hel") -> list[Action]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return [json_response(completion(choices=[choice]))]


BROKEN: dict[str, list[Action]] = {
    "length": ended("length"),
    "filter": ended("content_filter"),
    "nothing": ended("stop", ""),
    "error": [json_response({"error": {"message": "no"}}, "500 Internal Server Error")],
    "error inside": [json_response({"error": {"message": "no"}})],
    "cut": [PLAIN[:-10], Close()],
}
BROKEN_STREAMS: dict[str, list[Action]] = {
    "length": stream(token("Hel"), finish("length"), usage(7, 3), DONE),
    "filter": stream(token("Hel"), finish("content_filter"), usage(7, 3), DONE),
    "nothing": stream(finish(), DONE),
    "cut": [*stream(token("Hel"))[:-1], Close()],
    "error": stream(token("Hel"), b'data: {"error": {"message": "no"}}\n\n'),
    "malformed": stream(token("Hel"), b"data: {\n\n", token("lo"), finish(), DONE),
    "strange": stream(token("Hel"), delta(tool_calls=[{"id": "no index", "function": {}}]), finish(), DONE),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_failed_or_was_cut_off_is_not_kept(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, kind: str
) -> None:
    upstream.play(BROKEN[kind], [PLAIN])
    ask(site, messages)
    assert [state(ask(site, messages)) for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("kind", BROKEN_STREAMS)
def test_nor_is_such_a_stream(site: RunningGateway, upstream: RecordedUpstream, messages: Any, kind: str) -> None:
    upstream.play(BROKEN_STREAMS[kind], STREAM)
    ask(site, messages, stream=True)
    assert [state(ask(site, messages, stream=True)) for _ in range(2)] == ["miss", "hit"]


PARTS = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hello."}]  # Mistral's, of reasoning


def test_what_the_cache_cannot_read_reaches_the_client_all_the_same(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    said = {"role": "assistant", "content": PARTS}
    plain = [json_response(completion(choices=[{"index": 0, "message": said, "finish_reason": "stop"}]))]
    streamed = stream(token("Hello."), delta(thinking_blocks=[4]), finish(), DONE)
    upstream.play(plain, streamed)
    first, second = ask(site, messages), ask(site, messages, stream=True)
    assert (state(first), first.json()["choices"][0]["message"]["content"]) == ("miss", PARTS)
    assert (state(second), text_of(second), events(second)[-1]) == ("miss", "Hello.", "[DONE]")
    assert state(ask(site, messages, stream=True)) == "miss"


async def _all(site: RunningGateway, bodies: list[dict[str, Any]]) -> list[httpx2.Response]:
    limits = httpx2.Limits(max_connections=len(bodies))
    async with httpx2.AsyncClient(base_url=site.url, timeout=30, limits=limits) as client:
        return await asyncio.gather(*(client.post(CHAT, json=body) for body in bodies))


def many(site: RunningGateway, count: int, messages: Any, **fields: Any) -> list[httpx2.Response]:
    """The same, asked by so many at once."""
    return asyncio.run(_all(site, [{"model": "m", "messages": messages, **fields}] * count))


@pytest.mark.parametrize("leads", ["plain", "stream"])
@pytest.mark.parametrize("follow", ["plain", "stream"])
def test_a_hundred_who_ask_the_same_at_once_cost_one_call(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, leads: str, follow: str
) -> None:
    go = threading.Event()
    upstream.play([Until(go), *([PLAIN] if leads == "plain" else STREAM)])
    first = threading.Thread(target=ask, args=(site, messages), kwargs={"stream": leads == "stream"})
    first.start()
    upstream.wait_until_received()
    threading.Timer(0.5, go.set).start()
    answers = many(site, 99, messages, stream=follow == "stream")
    first.join()
    assert len(upstream.received) == 1
    assert {state(answer) for answer in answers} <= {"shared", "hit"}
    assert "shared" in {state(answer) for answer in answers}
    assert {text_of(answer) for answer in answers} == {"Hello. I am here."}
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 99
    assert ask(site, messages).headers["x-lexora-cache"] == "hit"


def test_those_who_wait_go_on_when_the_call_fails(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    failing = [Sleep(0.4), *BROKEN["error"]]
    upstream.play(failing, [PLAIN])
    answers = many(site, 20, messages)
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [502]
    assert len(upstream.received) == 2


def test_or_all_at_once_when_it_is_not_one_to_share(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([Sleep(0.4), *BROKEN["length"]], BROKEN["length"])
    answers = many(site, 10, messages)
    assert [state(answer) for answer in answers] == ["miss"] * 10
    assert len(upstream.received) == 10


@pytest.mark.parametrize("streamed", [False, True])
def test_or_when_the_client_leaves_who_asked_first(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any, streamed: bool
) -> None:
    go = threading.Event()
    begun = stream(token("Hel"))[:2] if streamed else []
    upstream.play([*begun, Sleep(float("inf"))], [Until(go), *(STREAM if streamed else [PLAIN])])
    answers: list[httpx2.Response] = []
    with RawChat(site, {"messages": messages, "stream": streamed}) as first:
        upstream.wait_until_received()
        rest = threading.Thread(target=lambda: answers.extend(many(site, 10, messages, stream=streamed)))
        rest.start()
        wait_until(lambda: len(_waiting(site)) >= 11, "all to be connected")
        first.leave()
        upstream.wait_until_received(2)
        go.set()
        rest.join()
    assert len(answers) == 10
    assert {text_of(answer) for answer in answers} == {"Hello. I am here."}
    assert len(upstream.received) == 2


def _waiting(site: RunningGateway) -> list[Any]:
    return [each for each in site.sockets() if each.laddr.port == site.port]


def test_who_waits_has_a_deadline_of_his_own_and_may_leave(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    go = threading.Event()
    upstream.play([Until(go), PLAIN])
    first = threading.Thread(target=ask, args=(site, messages))
    first.start()
    upstream.wait_until_received()
    late = ask(site, messages, x_timeout=0.2)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    with RawChat(site, {"messages": messages}) as second:
        second.leave()
    go.set()
    first.join()
    assert state(ask(site, messages)) == "hit"
    assert len(upstream.received) == 1


@pytest.mark.slow
def test_a_stream_that_waits_for_another_is_kept_alive(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    go = threading.Event()
    upstream.play([Until(go), *STREAM])
    first = threading.Thread(target=ask, args=(site, messages), kwargs={"stream": True})
    first.start()
    upstream.wait_until_received()
    with RawChat(site, {"messages": messages, "stream": True}) as second:
        second.read_until(b": keep-alive\n\n")
        go.set()
        assert b"data: [DONE]" in second.read_to_end()
    first.join()
    assert len(upstream.received) == 1


@pytest.mark.slow
def test_a_client_that_does_not_read_keeps_nobody_waiting_for_long(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    flood = [token("x" * 200_000)] * 100
    upstream.play(stream(*flood, finish(), DONE), [PLAIN])
    with RawChat(site, {"messages": messages, "stream": True}, receive_buffer=4096) as first:
        first.read_until(b"data: ")
        answer = ask(site, messages)
    assert (state(answer), text_of(answer)) == ("miss", "Hello. I am here.")


def test_users_have_caches_of_their_own_unless_a_model_is_shared(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN])
    users = ["ann", "bob", "ann", "bob", None, None]
    own = [state(ask(site, messages, x_user_id=user)) for user in users]
    assert own == ["miss", "miss", "hit", "hit", "miss", "hit"]
    shared = [state(ask(site, messages, model="shared", x_user_id=user)) for user in users]
    assert shared == ["miss"] + ["hit"] * 5
    assert site.record_of(ask(site, messages, x_user_id="ann").headers["x-request-id"])["user_id"] == "ann"


def test_those_who_wait_for_one_another_are_of_one_user(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([Sleep(0.3), PLAIN])
    bodies = [{"model": "m", "messages": messages, "x_user_id": user} for user in ("ann", "bob") for _ in range(5)]
    answers = asyncio.run(_all(site, bodies))
    assert sorted(map(str, map(state, answers))) == ["miss"] * 2 + ["shared"] * 8
    assert len(upstream.received) == 2


def test_an_answer_has_its_time(site: RunningGateway, upstream: RecordedUpstream, messages: Any) -> None:
    upstream.play([PLAIN])
    assert [state(ask(site, messages, model="brief")) for _ in range(2)] == ["miss", "hit"]
    time.sleep(0.6)
    assert state(ask(site, messages, model="brief", x_cache=3600)) == "miss"  # the model's own rule is the longest


def test_a_request_says_how_old_an_answer_may_be(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN])
    assert state(ask(site, messages)) == "miss"
    time.sleep(1.1)
    assert state(ask(site, messages, {"cache-control": "max-age=60"})) == "hit"
    assert state(ask(site, messages, {"cache-control": "max-age=1"})) == "miss"
    assert state(ask(site, messages, {"cache-control": "max-age=1"})) == "hit"
    time.sleep(0.3)
    assert state(ask(site, messages, x_cache=0.2)) == "miss"
    assert state(ask(site, messages, {"cache-control": "max-age=0"})) == "miss"


def test_no_cache_asks_anew_and_no_store_keeps_nothing(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN], [json_response(completion("Newer."))])
    assert state(ask(site, messages, {"cache-control": "no-store"})) == "miss"
    newer = ask(site, messages, {"cache-control": "no-cache"})
    assert (state(newer), text_of(newer)) == ("miss", "Newer.")
    assert state(ask(site, messages, {"cache-control": "no-cache, no-store"})) is None
    for headers in ({"cache-control": "no-store"}, {}):
        again = ask(site, messages, headers)
        assert (state(again), text_of(again)) == ("hit", "Newer.")
    assert len(upstream.received) == 3


def test_what_the_cache_answers_counts_towards_no_limit(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    upstream.play([PLAIN])
    assert state(ask(site, messages, x_user_id="poor")) == "miss"
    assert state(ask(site, messages, x_user_id="poor")) == "hit"
    assert ask(site, [*messages, HELLO], x_user_id="poor").status_code == 429


def test_other_doors_have_it_too(site: RunningGateway, upstream: RecordedUpstream, messages: Any) -> None:
    upstream.play([PLAIN])
    content = messages[0]["content"]
    with anthropic_sdk(f"{site.url}/v1") as client:
        for cached in ("miss", "hit"):
            raw = client.messages.with_raw_response.create(model="m", max_tokens=9, messages=messages)
            assert raw.headers["x-lexora-cache"] == cached
            message = raw.parse()
            assert [block.text for block in message.content if block.type == "text"] == ["Hello. I am here."]
            assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)
        with client.messages.stream(model="m", max_tokens=9, messages=messages) as streamed:
            final = streamed.get_final_message()
            assert streamed.response.headers["x-lexora-cache"] == "hit"
        assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 3)
    with sdk(site) as openai_client:
        for cached in ("miss", "hit"):
            response = openai_client.responses.with_raw_response.create(model="m", input=content + "!")
            assert response.headers["x-lexora-cache"] == cached
            assert response.parse().output_text == "Hello. I am here."
    query = {"model": "m", "prompt": content + "?", "x_cache": True}
    queried = [WEB.post(f"{site.url}/api/v1/llm/query", json=query) for _ in range(2)]
    assert [state(answer) for answer in queried] == ["miss", "hit"]
    assert queried[0].json() == queried[1].json()


def test_what_the_same_fields_say_in_another_api_is_another_question(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    """`system` is nothing in OpenAI's, and the model is not told."""
    upstream.play([PLAIN])
    body = {"model": "m", "max_tokens": 9, "system": "Say no.", "messages": messages}
    paths = [CHAT, "/v1/messages"]
    assert [state(WEB.post(f"{site.url}{path}", json=body)) for path in paths * 2] == ["miss", "miss", "hit", "hit"]
    assert [request.json()["messages"][0]["role"] for request in upstream.received] == ["user", "system"]


def test_signed_reasoning_comes_back_with_its_signatures(
    site: RunningGateway, upstream: RecordedUpstream, messages: Any
) -> None:
    said = (RECORDED / "anthropic" / "thinking-and-tools.sse").read_bytes().split(b"\n\n")
    upstream.play(stream(*(event + b"\n\n" for event in said if event)))
    with anthropic_sdk(f"{site.url}/v1") as client:
        finals = []
        for cached in ("miss", "hit"):
            with client.messages.stream(model="claude", max_tokens=9, messages=messages) as streamed:
                finals.append(streamed.get_final_message())
                assert streamed.response.headers["x-lexora-cache"] == cached
        plain = client.messages.with_raw_response.create(model="claude", max_tokens=9, messages=messages)
        assert plain.headers["x-lexora-cache"] == "hit"
        finals.append(plain.parse())
    first, again, whole = ([block.to_dict() for block in final.content] for final in finals)
    assert first == again == whole
    assert {block["type"] for block in first} == {"thinking", "redacted_thinking", "text", "tool_use"}
    assert len(upstream.received) == 1
    # OpenAI's clients are not shown the signatures in a stream, and without them it is not the whole answer.
    assert [state(ask(site, messages, model="claude", stream=True)) for _ in range(2)] == ["miss", "miss"]


@pytest.mark.parametrize(
    ("path", "fields", "answer"),
    [
        ("/v1/embeddings", {"input": "a"}, {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 2}}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}, {"results": [{"index": 0, "relevance_score": 0.5}]}),
        (
            "/v1/completions",
            {"prompt": "a"},
            {"id": "cmpl-1", "choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]},
        ),
    ],
)  # fmt: skip
def test_so_have_other_tasks(
    site: RunningGateway, upstream: RecordedUpstream, path: str, fields: dict[str, Any], answer: dict[str, Any]
) -> None:
    upstream.play([json_response(answer)])
    body = {"model": "m", "x_user_id": f"{next(WORDS)}", **fields}
    first, again = (WEB.post(f"{site.url}{path}", json=body) for _ in range(2))
    assert (state(first), state(again)) == ("miss", "hit")
    assert first.json() == answer
    assert {**again.json(), "id": None} == {**answer, "id": None}


def test_a_text_completion_serves_streams_alike(site: RunningGateway, upstream: RecordedUpstream) -> None:
    def chunk(text: str, reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        facts = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "recorded"}
        return b"data: " + json.dumps({**facts, "choices": [choice]}).encode() + b"\n\n"

    upstream.play(stream(chunk("Hel"), chunk("lo."), chunk("", "stop"), DONE))
    asked: dict[str, Any] = {"model": "m", "prompt": f"{next(WORDS)}"}
    with sdk(site) as client:
        for _ in range(2):
            chunks = client.completions.create(stream=True, **asked)
            assert "".join(each.choices[0].text for each in chunks) == "Hello."
        whole = client.completions.create(**asked)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("Hello.", "stop")
    assert len(upstream.received) == 1


def test_images_are_not_kept(site: RunningGateway, upstream: RecordedUpstream) -> None:
    upstream.play([json_response({"created": 1, "data": [{"b64_json": "AA=="}]})])
    body = {"model": "m", "prompt": "a cat"}
    assert [state(WEB.post(f"{site.url}/v1/images/generations", json=body)) for _ in range(2)] == [None, None]


def test_stats_and_metrics_say_what_is_saved(site: RunningGateway, upstream: RecordedUpstream, messages: Any) -> None:
    upstream.play([PLAIN])
    before = WEB.get(f"{site.url}/stats").json()["saved_usd"]
    ask(site, messages, model="split")
    again = ask(site, messages, model="split")
    site.record_of(again.headers["x-request-id"])
    body = WEB.get(f"{site.url}/stats?hours=2").json()  # another report than the last one, which is kept for a second
    assert body["saved_usd"] >= before + 0.000038 - 1e-12
    assert body["saved_usd"] == body["origins"]["cache"]["saved_usd"] + body["origins"].get("fixed", {}).get(
        "saved_usd", 0
    )
    assert body["models"]["split"]["deployments"]["cache/unknown"]["requests"] >= 1
    metrics = WEB.get(f"{site.url}/metrics").text
    assert 'lexora_saved_usd_total{model="split",origin="cache"}' in metrics


def test_prepared_answers_say_what_they_save(site: RunningGateway) -> None:
    """By what they would have cost at the model that was asked for."""
    capital = [{"role": "user", "content": "日本の首都はどこですか？"}]
    for model, known in (("shared", True), ("m", True), ("unpriced", False), ("nobody knows it", False)):
        response = ask(site, capital, model=model)
        assert response.headers["x-lexora-origin"] == "fixed"
        saved = response.headers.get("x-lexora-saved-usd")
        assert (saved is not None) == known
        assert (float(saved or 0) > 1e-5) == (model == "shared")
    record = site.record_of(ask(site, capital, model="shared").headers["x-request-id"])
    price = (record["tokens_in"] * 2 + record["tokens_out"] * 8) / 1e6
    assert record["saved_usd"] == pytest.approx(price)
    fetched = WEB.get(f"{site.url}/responses/q1/0.json")  # the first model of the map is an own one
    assert fetched.headers["x-lexora-saved-usd"] == "0"


def _key(folder: Path, *arguments: str) -> str:
    made = run(LEXORA, "keys", "create", "--data", folder / "data", *arguments)
    assert made.status == 0, made.err
    return next(word for word in made.out.split() if word.startswith("sk-lexora-"))


def test_keys_are_asked_for_and_models_forbidden_as_ever(
    upstream: RecordedUpstream, folder: Path, messages: Any
) -> None:
    settings = {**config(upstream.base_url), "auth": {"required": True}}
    upstream.play([PLAIN])
    with running_gateway(folder, settings, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as site:
        ann = _key(folder, "--user", "ann")
        bob = _key(folder, "--user", "bob", "--model", "m")
        assert state(ask(site, messages, bearer(ann), model="shared")) == "miss"
        assert state(ask(site, messages, bearer(ann), model="shared", x_user_id="bob")) == "hit"
        assert ask(site, messages, bearer(bob), model="shared").status_code == 403
        assert ask(site, messages, model="shared").status_code == 401
        assert state(ask(site, messages, bearer(ann))) == "miss"
        assert state(ask(site, messages, bearer(bob), x_user_id="ann")) == "miss"  # he cannot say that he is ann


def test_what_is_kept_outlives_a_restart_and_a_broken_file_is_no_failure(
    upstream: RecordedUpstream, folder: Path, messages: Any
) -> None:
    settings = {**config(upstream.base_url), "cache": {"by_request": False}}
    upstream.play([PLAIN])
    kept = folder / "data" / "cache.db"
    with running_gateway(folder, settings, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as site:
        assert state(ask(site, messages, model="off", x_cache=True)) is None
        assert not kept.exists()  # before there is anything in it
        assert state(ask(site, messages)) == "miss"
    with running_gateway(folder, settings, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as site:
        assert state(ask(site, messages)) == "hit"
    for file in folder.glob("data/cache.db*"):
        file.unlink()
    kept.mkdir()
    with running_gateway(folder, settings, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as site:
        assert [state(ask(site, messages)) for _ in range(2)] == ["miss", "miss"]
        assert "the cache cannot be read" in site.stdout
    shutil.rmtree(kept)


def test_a_real_model_is_cached(gateway: RunningGateway) -> None:
    """Of the tiny one, which ends by itself only when it is told to."""
    body: dict[str, Any] = {"messages": [HELLO], "seed": 7, "stop": ["a", "e", "i", "o", "t"], "max_tokens": 200}
    with sdk(gateway) as client:
        answers = [
            client.chat.completions.create(model="tiny-chat", extra_body={"x_cache": True}, **body) for _ in range(2)
        ]
    if answers[0].choices[0].finish_reason == "stop" and answers[0].choices[0].message.content:
        assert answers[0].choices == answers[1].choices
        assert isinstance(answers[0], openai.types.chat.ChatCompletion)
