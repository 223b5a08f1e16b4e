"""Fallbacks, retries and circuits through a real gateway: who answers, what the client sees, what the record says."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.support.client import comments, events, post, text_of
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.recorded import (
    DONE,
    STREAM_END,
    STREAM_HEAD,
    Close,
    RecordedUpstream,
    Reset,
    Script,
    Sleep,
    Until,
    completion,
    error_event,
    finish,
    json_response,
    piece,
    recorded,
    recorded_upstream,
    stream,
    token,
    usage,
)

FOREVER = Sleep(float("inf"))
ROLE = b'data: {"id":"chatcmpl-1","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'


class Pair(NamedTuple):
    """Two upstreams behind one gateway. Model `chat` is at `first`, then at `second`; `alone` at `first` only."""

    first: RecordedUpstream
    second: RecordedUpstream
    gateway: RunningGateway

    def play(self, first: Script, second: Script = ()) -> None:
        self.first.play(first)
        self.second.play(second)

    def ask(self, model: str = "chat", **fields: Any) -> httpx2.Response:
        return post(self.gateway, model=model, **fields)

    def record(self, response: httpx2.Response) -> dict[str, Any]:
        return self.gateway.record_of(response.headers["x-request-id"])


def deployments(*upstreams: RecordedUpstream, provider: str = "vllm", **more: Any) -> dict[str, Any]:
    return {
        "deployments": [
            {
                "provider": provider,
                "base_url": upstream.base_url,
                "model": "up",
                "name": f"{provider}/{'ab'[n]}",
                "credential": None,
                "timeouts": {"first_token": 0.4},
                **more,
            }
            for n, upstream in enumerate(upstreams)
        ]
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with recorded_upstream([b""]) as first, recorded_upstream([b""]) as second:
        config = {
            "models": {
                "chat": deployments(first, second),
                "alone": deployments(first),
                "paid": deployments(first, second, provider="openai", price={"input": 1, "output": 2}),
            },
            "retry": {"max_attempts": 2, "delay_seconds": 0.05},
            "circuit": {"failures": 1000},
        }
        with running_gateway(tmp_path_factory.mktemp("pair"), config) as gateway:
            yield Pair(first, second, gateway)


GOOD = json_response(completion("from b"))
BUSY = json_response({"error": {"message": "slow down"}}, "429 Too Many Requests", "retry-after: 1\r\n")


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ([json_response({"error": {"message": "boom"}}, "500 Internal Server Error")], "upstream_error"),
        ([json_response({}, "503 Service Unavailable")], "upstream_error"),
        ([json_response({}, "429 Too Many Requests")], "upstream_error"),
        ([Reset()], "upstream_broken"),
        ([Close()], "upstream_broken"),
        ([json_response({"error": {"message": "who?"}}, "401 Unauthorized")], "upstream_credential_refused"),
        ([json_response({"error": {"message": "no model"}}, "404 Not Found")], "upstream_error"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{", Close()], "upstream_broken"),
        ([json_response({"error": {"message": "inside"}})], "upstream_error"),
    ],
)
def test_a_plain_request_goes_on_to_the_next_deployment(pair: Pair, broken: Script, code: str) -> None:
    pair.play(broken, [GOOD])
    response = pair.ask()
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "from b"
    assert response.headers["x-lexora-deployment"] == "vllm/b"
    assert response.headers["x-lexora-model"] == "recorded"
    record = pair.record(response)
    assert (record["outcome"], record["attempts"], record["deployment"]) == ("completed", 2, "vllm/b")
    (failed,) = json.loads(record["failed_attempts"])
    assert (failed["deployment"], failed["error"], failed["tokens"]) == ("vllm/a", code, 0)
    # Only what answered counts.
    assert (record["tokens_in"], record["tokens_out"]) == (7, 3)


def test_what_the_client_did_wrong_is_told_at_once(pair: Pair) -> None:
    pair.play([json_response({"error": {"message": "bad temperature"}}, "400 Bad Request")], [GOOD])
    response = pair.ask()
    assert (response.status_code, response.json()["error"]["message"]) == (400, "bad temperature")
    assert (len(pair.first.received), len(pair.second.received)) == (1, 0)


def test_the_same_deployment_is_asked_again_as_often_as_configured(pair: Pair) -> None:
    pair.first.play([json_response({}, "500 Internal Server Error")], [GOOD])
    assert pair.ask("alone").status_code == 200
    pair.play([json_response({}, "500 Internal Server Error")])
    response = pair.ask("alone")
    assert response.status_code == 502
    assert len(pair.first.received) == 2
    record = pair.record(response)
    assert (record["attempts"], record["outcome"], record["cost_usd"]) == (2, "failed", 0)


def test_retry_after_is_waited_for(pair: Pair) -> None:
    pair.first.play([BUSY], [GOOD])
    began = time.monotonic()
    assert pair.ask("alone").status_code == 200
    assert time.monotonic() - began >= 1


def test_retry_after_may_be_a_date(pair: Pair) -> None:
    late = "retry-after: Fri, 31 Dec 2100 23:59:59 GMT\r\n"
    pair.play([json_response({"error": {"message": "later"}}, "429 Too Many Requests", late)])
    response = pair.ask("alone")
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 10**8
    assert len(pair.first.received) == 1


def test_a_deployment_that_stays_silent_is_given_up(pair: Pair) -> None:
    pair.play([STREAM_HEAD, FOREVER], stream(ROLE, token("from b"), finish(), DONE))
    response = pair.ask(stream=True)
    assert text_of(events(response)) == "from b"
    assert comments(response) == [": x-lexora-deployment: vllm/b"]
    assert pair.record(response)["deployment"] == "vllm/b"
    pair.first.wait_until_left()


@pytest.mark.parametrize(
    "how", [[Reset()], [Close()], [piece(error_event("engine died", code=500)), STREAM_END], [STREAM_END]]
)
def test_a_stream_that_breaks_is_completed_by_the_next_deployment(pair: Pair, how: Script) -> None:
    begun = [STREAM_HEAD, piece(ROLE), piece(token("The capital ")), piece(token("is "))]
    rest = [ROLE, token("Pa"), token("ris."), finish(), usage(20, 2), DONE]
    pair.play([*begun, *how], stream(*rest))
    response = pair.ask(stream=True, max_tokens=10, stream_options={"include_usage": True})
    assert text_of(events(response)) == "The capital is Paris."
    assert response.text.endswith("data: [DONE]\n\n")
    *chunks, done = events(response)
    assert done == "[DONE]"
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks if chunk["choices"]].count("assistant") == 1
    assert chunks[-1]["usage"] == {"prompt_tokens": 18, "completion_tokens": 4, "total_tokens": 22}
    asked = pair.second.received[0].json()
    assert asked["messages"][-1] == {"role": "assistant", "content": "The capital is"}
    assert (asked["continue_final_message"], asked["add_generation_prompt"], asked["max_tokens"]) == (True, False, 8)
    record = pair.record(response)
    assert (record["outcome"], record["deployment"], record["tokens_out"]) == ("completed", "vllm/b", 4)
    assert json.loads(record["failed_attempts"])[0]["tokens"] == 2


def test_space_does_not_come_twice(pair: Pair) -> None:
    pair.play([STREAM_HEAD, piece(ROLE), piece(token("one ")), Reset()], stream(ROLE, token(" two"), finish(), DONE))
    assert text_of(events(pair.ask(stream=True))) == "one two"


def test_odd_chunks_of_the_one_that_goes_on_reach_the_client_as_they_are(pair: Pair) -> None:
    odd = b'data: {"choices":[{"index":0,"delta":{"content":"two"}}],"usage":{"prompt_tokens":"many"}}\n\n'
    pair.play([STREAM_HEAD, piece(token("one ")), Reset()], stream(odd, token(" three"), finish(), DONE))
    response = pair.ask(stream=True, stream_options={"include_usage": True})
    assert text_of(events(response)) == "one two three"
    assert pair.record(response)["outcome"] == "completed"


def test_a_stream_that_breaks_before_its_first_word_begins_anew(pair: Pair) -> None:
    pair.play([STREAM_HEAD, piece(ROLE), Reset()], stream(ROLE, token("whole"), finish(), DONE))
    response = pair.ask(stream=True)
    assert text_of(events(response)) == "whole"
    assert len(pair.second.received[0].json()["messages"]) == 1


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "json_object"}}, {"n": 2}], ids=["a form", "two choices"]
)
def test_what_cannot_be_completed_rightly_ends_in_an_error(pair: Pair, fields: dict[str, Any]) -> None:
    pair.play([STREAM_HEAD, piece(token("half")), Reset()], stream(token("other"), finish(), DONE))
    response = pair.ask(stream=True, **fields)
    assert "[DONE]" not in response.text
    assert events(response)[-1]["error"]["code"] == "upstream_broken"
    assert not pair.second.received
    assert pair.record(response)["outcome"] == "failed"


def test_a_tool_call_that_breaks_ends_in_an_error(pair: Pair) -> None:
    call = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}\n\n'
    pair.play([STREAM_HEAD, piece(call), Reset()], stream(token("other"), finish(), DONE))
    assert "[DONE]" not in pair.ask(stream=True).text
    assert not pair.second.received


def test_a_provider_that_does_not_continue_is_not_asked_to(pair: Pair) -> None:
    pair.play([STREAM_HEAD, piece(token("half")), Reset()], stream(token("other"), finish(), DONE))
    response = pair.ask("paid", stream=True)
    assert text_of(events(response)) == "half"
    assert events(response)[-1]["error"]["code"] == "upstream_broken"
    assert not pair.second.received


def test_a_fallback_that_refuses_to_continue_leaves_the_first_error(pair: Pair) -> None:
    refusal = json_response({"error": {"message": "no prefill here"}}, "400 Bad Request")
    pair.play([STREAM_HEAD, piece(token("half")), Reset()], [refusal])
    response = pair.ask(stream=True)
    assert events(response)[-1]["error"]["code"] == "upstream_broken"
    assert "[DONE]" not in response.text


def test_the_engine_of_a_real_vllm_dies(pair: Pair) -> None:
    pair.play(recorded("http/vllm-engine-killed.http"), stream(ROLE, token("!"), finish(), DONE))
    response = pair.ask(stream=True)
    assert response.text.endswith("data: [DONE]\n\n")
    assert text_of(events(response)).endswith("!")


def test_a_prompt_that_is_too_long_goes_to_a_larger_context(tmp_path_factory: pytest.TempPathFactory) -> None:
    with recorded_upstream(recorded("http/vllm-context-too-long.http")) as small, recorded_upstream([GOOD]) as large:
        models = {
            "chat": {
                "deployments": [
                    {**deployments(small)["deployments"][0], "context_window": 2048},
                    {**deployments(small)["deployments"][0], "context_window": 1024, "name": "smaller"},
                    {**deployments(large)["deployments"][0], "context_window": 32768, "name": "large"},
                ]
            }
        }
        with running_gateway(tmp_path_factory.mktemp("context"), {"models": models}) as gateway:
            response = post(gateway, model="chat")
            assert response.headers["x-lexora-deployment"] == "large"
            assert len(small.received) == 1


def test_a_circuit_opens_probes_and_closes(tmp_path_factory: pytest.TempPathFactory) -> None:
    with recorded_upstream([json_response({}, "500 Internal Server Error")]) as upstream:
        config = {"models": {"chat": deployments(upstream)}, "circuit": {"failures": 3, "cooldown_seconds": 1}}
        with running_gateway(tmp_path_factory.mktemp("circuit"), config) as gateway:
            assert [post(gateway, model="chat").status_code for _ in range(3)] == [502] * 3
            refused = post(gateway, model="chat")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit_open")
            assert refused.headers["retry-after"] == "1"
            assert len(upstream.received) == 3
            upstream.play([GOOD])
            time.sleep(1.05)
            assert [post(gateway, model="chat").status_code for _ in range(2)] == [200, 200]


def test_one_request_at_a_time_tries_whatever_becomes_of_earlier_ones(tmp_path_factory: pytest.TempPathFactory) -> None:
    go = {"early": threading.Event(), "probe": threading.Event()}
    wrong = json_response({"error": {"message": "bad temperature"}}, "400 Bad Request")
    scripts: dict[str, Script] = {name: [Until(event), wrong] for name, event in go.items()}
    with recorded_upstream([b""]) as upstream:
        upstream.play_as_asked({**scripts, "fails": [json_response({}, "500 Internal Server Error")], "good": [GOOD]})
        config = {"models": {"m": deployments(upstream)}, "circuit": {"failures": 1, "cooldown_seconds": 0.3}}
        with running_gateway(tmp_path_factory.mktemp("probe"), config) as gateway, ThreadPoolExecutor(2) as pool:
            early = pool.submit(post, gateway, script="early")
            upstream.wait_until_received(1)
            assert post(gateway, script="fails").status_code == 502
            time.sleep(0.35)
            probe = pool.submit(post, gateway, script="probe")
            upstream.wait_until_received(3)
            go["early"].set()
            assert early.result().status_code == 400
            assert post(gateway, script="good").json()["error"]["code"] == "circuit_open"
            go["probe"].set()
            assert probe.result().status_code == 400
            assert post(gateway, script="good").status_code == 200


def test_a_request_waits_for_a_place_as_long_as_it_says_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    go = threading.Event()
    with recorded_upstream([Until(go), GOOD], [GOOD]) as upstream:
        config = {"models": {"m": deployments(upstream, concurrency=1)}, "queue": {"default_timeout": 0.2}}
        with running_gateway(tmp_path_factory.mktemp("queue"), config) as gateway, ThreadPoolExecutor(2) as pool:
            first = pool.submit(post, gateway)
            upstream.wait_until_received()
            patient = pool.submit(post, gateway, x_timeout=25)
            refused = post(gateway)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_timeout")
            time.sleep(0.2)  # then the patient one, who came first or with it, has waited that long as well
            go.set()
            assert (first.result().status_code, patient.result().status_code) == (200, 200)
            assert float(patient.result().headers["x-lexora-queue-wait-ms"]) > 200


def test_a_user_stays_with_one_variant_and_the_weights_hold(tmp_path_factory: pytest.TempPathFactory) -> None:
    with recorded_upstream([GOOD]) as a, recorded_upstream([GOOD]) as b:
        both = deployments(a, b, weight=1)
        with running_gateway(tmp_path_factory.mktemp("split"), {"models": {"chat": both}}) as gateway:
            asked = [post(gateway, model="chat", x_user_id=f"u{n % 20}") for n in range(60)]
            by_user: dict[int, set[str]] = {}
            for n, response in enumerate(asked):
                by_user.setdefault(n % 20, set()).add(response.headers["x-lexora-deployment"])
            assert all(len(variants) == 1 for variants in by_user.values())
            assert {"vllm/a", "vllm/b"} == set().union(*by_user.values())
            gateway.record_of(asked[-1].headers["x-request-id"])
            variants = httpx2.get(f"{gateway.url}/stats").json()["models"]["chat"]["deployments"]
            assert sum(variant["requests"] for variant in variants.values()) == 60
