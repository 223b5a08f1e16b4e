"""What a request may use, has used and is told when its calls fail: through a real gateway, its headers and records."""

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.drill.books import check_money, own, paid, spent, within_a_minute
from tests.support.client import RawChat, events, post, text_of
from tests.support.gateway import RunningGateway, free_port, running_gateway
from tests.support.recorded import (
    DONE,
    RECORDED,
    STREAM_HEAD,
    RecordedUpstream,
    Reset,
    Script,
    Sleep,
    Until,
    completion,
    finish,
    json_response,
    piece,
    recorded_upstream,
    stream,
    token,
    usage,
    wait_until,
)

FOREVER = Sleep(float("inf"))
GOOD = json_response(completion())
BROKEN = json_response({}, "500 Internal Server Error")
REFUSED = json_response({"error": {"message": "bad temperature"}}, "400 Bad Request")
PER_MINUTE = {"requests_per_minute": 100, "tokens_per_minute": 50_000}


@pytest.fixture(scope="module")
def first() -> Iterator[RecordedUpstream]:
    with recorded_upstream([b""]) as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[RecordedUpstream]:
    with recorded_upstream([b""]) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    first: RecordedUpstream, second: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """Each model is asked by one test, and each test's user is named like its model.

    Those of `rate_limits` have limits of tokens and requests, all the others only one of money.
    """
    a, b = first.base_url, second.base_url
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    claude = {"provider": "anthropic"}
    # vLLM goes on with what another has begun, OpenAI does not.
    rented = {"provider": "vllm", "origin": "paid"}
    models: dict[str, list[dict[str, Any]]] = {
        "longer": [own(a, "longer/a"), own(b, "longer/b")],
        "dearer": [paid(a, "dearer/a"), paid(b, "dearer/b")],
        "unsaid": [paid(a, "unsaid/a", **claude)],
        "late": [paid(a, "late/a")],
        "left": [paid(a, "left/a", **claude)],
        "rented": [paid(a, "rented/a", **rented), paid(b, "rented/b", **rented)],
        "claudes": [paid(a, "claudes/a", **claude), paid(b, "claudes/b", **rented)],
        "gone": [paid(a, "gone/a", **rented), paid(nobody, "gone/b", **rented)],
        "orders": [own(a, "orders/a", priority_scheduling=True)],
        "orders elsewhere": [paid(a, "orders/b", **rented, priority_scheduling=True)],
        "hidden": [own(a, "hidden/a")],
        "refused": [own(a, "refused/a")],
        "full": [own(a, "full/a", concurrency=1), paid(b, "full/b")],
        "seed": [own(a, "seed/a"), paid(nobody, "seed/b", **claude), own(b, "seed/c")],
        "seed alone": [own(a, "seed/d"), paid(nobody, "seed/e", **claude)],
    }
    config = {
        "models": {name: {"deployments": deployments} for name, deployments in models.items()},
        "rate_limits": {
            "default": {"requests_per_minute": 10**6, "tokens_per_minute": 10**14},
            "users": dict.fromkeys(("longer", "unsaid", "hidden", "refused"), PER_MINUTE),
        },
        "budgets": {"default": {"usd_per_day": 1_000}, "users": {"full": {"usd_per_day": 0}}},
        "queue": {"max_size": 0},
        "circuit": {"failures": 1_000_000},
    }
    with running_gateway(tmp_path_factory.mktemp("passage"), config) as running:
        yield running


def ask(gateway: RunningGateway, model: str, **fields: Any) -> httpx2.Response:
    return post(gateway, model=model, x_user_id=model, **fields)


def record_of(gateway: RunningGateway, response: httpx2.Response) -> dict[str, Any]:
    return gateway.record_of(response.headers["x-request-id"])


def only_record(gateway: RunningGateway, model: str) -> dict[str, Any]:
    """The record of a client that has got no headers."""

    def found() -> list[dict[str, Any]]:
        return [record for record in gateway.records() if record["model"] == model and record["attempts"]]

    wait_until(found, "the record")
    (record,) = found()
    return record


def tokens_reserved(response: httpx2.Response) -> int:
    """What is reserved once a request is let through, besides what others have used."""
    return PER_MINUTE["tokens_per_minute"] - int(response.headers["x-ratelimit-remaining-tokens"])


def begun(*texts: str) -> list[Any]:
    """The beginning of a stream in OpenAI's form."""
    return [STREAM_HEAD, *(piece(token(text)) for text in texts)]


def begun_by_anthropic(tokens: int) -> list[Any]:
    """A recorded stream as far as `tokens` pieces of its text: its first event counts one token."""
    *frames, _ = (RECORDED / "anthropic" / "text.sse").read_bytes().split(b"\n\n")
    texts = [number for number, frame in enumerate(frames) if b"text_delta" in frame]
    return [STREAM_HEAD, *(piece(frame + b"\n\n") for frame in frames[: texts[tokens - 1] + 1])]


# --- what is reserved ---


def test_tokens_are_reserved_for_whichever_deployment_may_use_most(
    first: RecordedUpstream, second: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([GOOD])
    second.play([GOOD])
    within_a_minute(5)
    assert tokens_reserved(ask(gateway, "longer")) > 4096
    # The first one's answers have proved to be short; what the second one's are like nobody knows.
    assert tokens_reserved(ask(gateway, "longer")) > 4096
    assert not second.received


def test_money_is_reserved_for_the_deployment_that_is_asked(
    first: RecordedUpstream, second: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([GOOD])
    ask(gateway, "dearer")  # its answers are short
    before = spent(gateway, "dearer", "dearer")
    go = [threading.Event(), threading.Event()]
    first.play([Until(go[0]), BROKEN])
    second.play([Until(go[1]), GOOD])
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        stack.callback(lambda: [event.set() for event in go])
        answer = pool.submit(ask, gateway, "dearer")
        first.wait_until_received()
        assert 256e-6 <= spent(gateway, "dearer", "dearer") - before < 1000e-6
        go[0].set()
        second.wait_until_received()
        assert spent(gateway, "dearer", "dearer") - before >= 4096e-6
        go[1].set()
        assert answer.result().status_code == 200
    record_of(gateway, answer.result())
    check_money(gateway, ["dearer"], "dearer")


def test_what_anthropic_is_sent_as_the_limit_is_reserved(first: RecordedUpstream, gateway: RunningGateway) -> None:
    message = json_response((RECORDED / "anthropic" / "message.json").read_bytes())
    first.play([message])
    within_a_minute(5)
    for _ in range(2):  # also when its answers have proved to be short
        used = tokens_reserved(ask(gateway, "unsaid", max_tokens=1)) - 1
        response = ask(gateway, "unsaid")
        sent = first.received[-1].json()["max_tokens"]
        assert sent == 16_384
        assert tokens_reserved(response) - used >= sent


@pytest.mark.parametrize(
    "fields",
    {
        "system": {"system": "y" * 3000},
        "a refusal": {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "y" * 3000}]}]},
        "a call beside an image": {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps("y" * 3000)}}
                    ],
                },
            ]
        },
        "a file": {
            "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "y" * 16 * 3000}}]}]
        },
    }.items(),
    ids=lambda item: item[0],
)
def test_no_part_of_a_prompt_is_invisible(
    fields: tuple[str, dict[str, Any]], first: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([REFUSED])  # which uses no tokens, and nothing is learned from
    within_a_minute(5)
    assert tokens_reserved(ask(gateway, "hidden", max_tokens=1)) < 200
    assert tokens_reserved(ask(gateway, "hidden", max_tokens=1, **fields[1])) >= 3000


# --- what counts ---


def test_a_plain_paid_answer_that_is_late_costs_what_was_reserved(
    first: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([FOREVER])
    response = ask(gateway, "late", max_tokens=100, x_timeout=0.2)
    assert response.status_code == 504
    with RawChat(gateway, {"model": "late", "x_user_id": "late", "max_tokens": 100}) as client:
        first.wait_until_received(2)
        client.leave()
    wait_until(lambda: len([r for r in gateway.records() if r["model"] == "late"]) == 2, "the records")
    records = [record for record in gateway.records() if record["model"] == "late"]
    assert [record["outcome"] for record in records] == ["failed", "client_left"]
    for record in records:
        assert (record["tokens_out"], record["usage_estimated"]) == (100, 1)
        assert record["cost_usd"] == pytest.approx((record["tokens_in"] + 100) / 1e6)
    check_money(gateway, ["late"], "late")


def test_a_client_that_leaves_a_stream_has_at_least_the_tokens_that_it_got(
    first: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([*begun_by_anthropic(3), FOREVER])
    with RawChat(gateway, {"model": "left", "x_user_id": "left", "stream": True}) as client:
        client.read_until(b'"!\\n"')
        client.leave()
    record = only_record(gateway, "left")
    assert (record["outcome"], record["tokens_in"], record["tokens_out"]) == ("client_left", 25, 3)
    assert record["usage_estimated"] == 1
    assert record["cost_usd"] == pytest.approx(28e-6)
    check_money(gateway, ["left"], "left")


@pytest.mark.parametrize(
    ("model", "broken", "cost"),
    [("rented", begun("The ", "capital ", "is "), 2 + 3), ("claudes", begun_by_anthropic(3), 25 + 3)],
    ids=["uncounted", "counted in part"],
)
def test_what_a_broken_stream_has_cost_is_added_to_what_the_next_one_costs(
    model: str, broken: Script, cost: int, first: RecordedUpstream, second: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([*broken, Reset()])
    second.play(stream(token("Paris."), finish(), usage(20, 2), DONE))
    response = ask(gateway, model, stream=True)
    assert text_of(events(response)).endswith("Paris.")
    record = record_of(gateway, response)
    assert (record["outcome"], record["tokens_in"], record["tokens_out"]) == ("completed", 20, 5)
    assert record["cost_usd"] == pytest.approx((cost + 22) / 1e6)
    assert record["usage_estimated"] == 1
    check_money(gateway, [model], model)


def test_what_was_never_sent_is_not_billed_for_a_broken_stream(
    first: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([*begun("The ", "capital "), Reset()])
    response = ask(gateway, "gone", stream=True)
    assert events(response)[-1]["error"]["code"] == "upstream_unreachable"
    record = record_of(gateway, response)
    assert (record["outcome"], record["tokens_out"]) == ("failed", 2)
    assert record["cost_usd"] == pytest.approx(4e-6)
    check_money(gateway, ["gone"], "gone")


def test_a_client_that_leaves_before_the_next_try_has_what_it_got(
    first: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first.play([*begun("The ", "capital "), Reset()])
    config = {
        "models": {"again": {"deployments": [paid(first.base_url, provider="vllm", origin="paid")]}},
        "retry": {"max_attempts": 2, "delay_seconds": 20},
        "budgets": {"default": {"usd_per_day": 1}},
    }
    with running_gateway(tmp_path_factory.mktemp("again"), config) as gateway:
        with RawChat(gateway, {"model": "again", "x_user_id": "u", "stream": True}) as client:
            client.read_until(b"capital")
            wait_until(lambda: spent(gateway, "u", "again") < 100e-6, "its reservation to be given back")
            client.leave()
        record = only_record(gateway, "again")
        assert (record["outcome"], record["attempts"], record["tokens_out"]) == ("client_left", 1, 2)
        assert record["cost_usd"] == pytest.approx(4e-6)
        check_money(gateway, ["u"], "again")


def test_a_request_that_was_refused_counts_and_one_that_was_not_sent_does_not(
    first: RecordedUpstream, gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def left(response: httpx2.Response) -> int:
        return int(response.headers["x-ratelimit-remaining-requests"])

    first.play([REFUSED])
    within_a_minute(5)
    assert [left(ask(gateway, "refused")) for _ in range(3)] == [99, 98, 97]

    first.play([BROKEN])
    config = {
        "models": {"m": {"deployments": [own(first.base_url)]}},
        "rate_limits": {"default": PER_MINUTE},
        "circuit": {"failures": 1, "cooldown_seconds": 60},
    }
    with running_gateway(tmp_path_factory.mktemp("open"), config) as other:
        within_a_minute(5)
        responses = [post(other) for _ in range(4)]
        assert [response.json()["error"]["code"] for response in responses] == ["upstream_error"] + ["circuit_open"] * 3
        assert [left(response) for response in responses] == [99, 98, 98, 98]


# --- what the deployments are told and how they are judged ---


@pytest.mark.parametrize("model", ["orders", "orders elsewhere"])
def test_a_server_that_orders_requests_is_told_the_keys_priority(
    model: str, first: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([GOOD])
    ask(gateway, model, priority=-100)
    ask(gateway, model, priority=-100, x_priority="low")
    assert [received.json()["priority"] for received in first.received] == [5, 10]


CALL = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}\n\n'
THOUGHT = b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]}\n\n'


def test_a_stream_that_breaks_and_cannot_be_continued_counts_for_the_circuit(
    first: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cases = [(CALL, {}), (THOUGHT, {}), (token("half"), {"n": 2})]
    first.play(*([STREAM_HEAD, piece(frame), Reset()] for frame, _ in cases))
    config = {
        "models": {f"m{n}": {"deployments": [own(first.base_url, f"m{n}")]} for n in range(len(cases))},
        "circuit": {"failures": 1, "cooldown_seconds": 60},
    }
    with running_gateway(tmp_path_factory.mktemp("cannot"), config) as gateway:
        for number, (_, fields) in enumerate(cases):
            broken = post(gateway, model=f"m{number}", stream=True, **fields)
            assert events(broken)[-1]["error"]["code"] == "upstream_broken"
            assert post(gateway, model=f"m{number}").json()["error"]["code"] == "circuit_open"


# --- what the client is told ---


def test_a_busy_server_is_what_is_told_where_the_other_is_too_dear(
    first: RecordedUpstream, second: RecordedUpstream, gateway: RunningGateway
) -> None:
    go = threading.Event()
    first.play([Until(go), GOOD])
    second.play([GOOD])
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        stack.callback(go.set)
        running = pool.submit(ask, gateway, "full")
        first.wait_until_received()
        refused = ask(gateway, "full")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        go.set()
        assert running.result().status_code == 200
    assert not second.received


def test_a_fallback_that_cannot_do_what_is_asked_hides_no_outage(
    first: RecordedUpstream, second: RecordedUpstream, gateway: RunningGateway
) -> None:
    first.play([BROKEN])
    second.play([GOOD], [BROKEN])
    answered = ask(gateway, "seed", seed=7)
    assert (answered.status_code, answered.headers["x-lexora-deployment"]) == (200, "seed/c")
    for model in ("seed", "seed alone"):
        failed = ask(gateway, model, seed=7)
        assert (failed.status_code, failed.json()["error"]["code"]) == (502, "upstream_error"), model
