"""`lexora answers generate`, through a real gateway."""

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.support.answers import CAPITAL, CAPITALS, Operator
from tests.support.command import LEXORA, Ended
from tests.support.gateway import RunningGateway, free_port, models_config, running_gateway
from tests.support.recorded import (
    Action,
    Close,
    RecordedUpstream,
    Sleep,
    completion,
    json_response,
    recorded_upstream,
    wait_until,
)


def answer(text: str, finish_reason: str = "stop") -> list[Action]:
    """A whole completion, as a script of the upstream's."""
    body = completion(text)
    body["choices"][0]["finish_reason"] = finish_reason
    return [json_response(body)]


def failure(status: str, headers: str = "") -> list[Action]:
    return [json_response({"error": {"message": "Not now.", "type": "x", "code": "y"}}, status, headers)]


GOOD = [answer(text) for text in CAPITALS]


@pytest.fixture
def wish(answers: Operator) -> Operator:
    """A prompt of which five answers are wanted."""
    answers.begin()
    assert answers("add", CAPITAL, "--id", "q1_capital").status == 0
    return answers


def generate(answers: Operator, door: RunningGateway, *arguments: str, model: str = "m") -> Ended:
    return answers("generate", "--url", door.url, "--model", model, *arguments)


def drafts(answers: Operator) -> list[str]:
    return [name for name in answers.files() if name.startswith("drafts/q")]


FIVE = [f"drafts/q1_capital/{number}.json" for number in range(5)]


def test_five_drafts_that_a_reviewer_can_judge(
    wish: Operator, door: RunningGateway, upstream: RecordedUpstream
) -> None:
    upstream.play(*GOOD)
    status, out, err = generate(wish, door, model="paid")
    assert (status, drafts(wish)) == (0, FIVE), err
    cost = (7 * 2 + 3 * 8) / 1e6
    assert out == f"5 of 5 drafts written to {wish.folder}/drafts, 0 given up; cost: {5 * cost:.6f} USD\n"
    assert "[5/5] q1_capital/4  written: " in err
    assert "next: lexora answers review" in err
    draft = wish.read(FIVE[2])
    assert draft.pop("generated_at")[:2] == "20"
    assert draft == {
        "prompt": CAPITAL,
        "response": CAPITALS[2],
        "replaces": None,
        "model": "recorded",
        "deployment": "openai/up",
        "cost_usd": cost,
    }
    assert wish("check").status == 0
    assert wish("accept", "--all").status == 0
    assert wish("check").status == 0


def test_each_variant_is_asked_for_with_those_before_it(
    wish: Operator, door: RunningGateway, upstream: RecordedUpstream
) -> None:
    upstream.play(*GOOD)
    generate(wish, door, "--temperature", "0.7", "--max-tokens", "300")
    asked: list[Any] = [request.json() for request in upstream.received]
    assert [(body["temperature"], body["max_tokens"], body["model"]) for body in asked] == [(0.7, 300, "up")] * 5
    for number, body in enumerate(asked):
        system, user = body["messages"]
        assert user == {"role": "user", "content": CAPITAL}
        assert [text in system["content"] for text in CAPITALS] == [k < number for k in range(5)]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (answer(""), "it is empty"),
        (answer("東京です", "length"), "it was cut off at the token limit (--max-tokens)"),
        (answer("東京です", "content_filter"), "the provider's filter cut it off"),
        (answer(CAPITALS[0] + "以上です。"), "it says nearly the same as drafts/q1_capital/0.json"),
        (answer("The capital of Japan is Tokyo."), "it is not in the prompt's language"),
    ],
    ids=["empty", "truncated", "filtered", "near-duplicate", "language"],
)
def test_what_is_unfit_is_asked_for_again(
    wish: Operator, door: RunningGateway, upstream: RecordedUpstream, bad: list[Action], said: str
) -> None:
    upstream.play(GOOD[0], bad, *GOOD[1:])
    status, _, err = generate(wish, door)
    assert (status, drafts(wish)) == (0, FIVE), err
    assert f"[1/5] q1_capital/1  rejected: {said}" in err
    assert [wish.read(name)["response"] for name in FIVE] == CAPITALS


def test_what_a_real_model_babbles_is_never_written(wish: Operator, gateway: RunningGateway) -> None:
    status, out, err = generate(wish, gateway, "--max-tokens", "8", "--variants", "1", "--tries", "2", model="tiny")
    assert (status, drafts(wish)) == (1, [])
    assert out.startswith("0 of 1 drafts written")
    assert "given up: " in err
    assert "(the last of 2 tries)" in err


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        (failure("429 Too Many Requests", "retry-after: 0\r\n"), "429: Not now"),
        (failure("500 Internal Server Error"), "502: Not now"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"], ""),
    ],
    ids=["429", "500", "broken"],
)
def test_a_failure_that_passes_is_waited_out(
    wish: Operator, door: RunningGateway, upstream: RecordedUpstream, failed: list[Action], said: str
) -> None:
    upstream.play([*failed, Close()], GOOD[0])
    status, _, err = generate(wish, door, "--variants", "1")
    assert (status, drafts(wish), len(upstream.received)) == (0, FIVE[:1], 2), err
    assert f"q1_capital/0  {said}" in err
    assert "asks again in " in err


def test_the_wait_that_a_gateway_asks_for_is_kept_and_not_lengthened(wish: Operator) -> None:
    """The upstream stands in for the gateway here, which never asks for no wait at all."""
    refused = failure("429 Too Many Requests", "retry-after: 0\r\n")
    with recorded_upstream(*[refused] * 4, GOOD[0]) as gateway:
        status, _, err = wish("generate", "--url", gateway.base_url, "--variants", "1")
        assert (status, len(gateway.received)) == (0, 5), err
        assert err.count("asks again in 0.0 s") == 4
        assert gateway.received[0].headers["cache-control"] == "no-cache"
        gateway.play(refused)
        status, _, err = wish("generate", "--url", gateway.base_url, "--variants", "2")
        assert (status, len(gateway.received)) == (1, 5)
        assert "q1_capital/1  given up: 429: Not now (5 times)" in err
        assert "1 missing: run it again to go on, or with another --model" in err
        gateway.play(failure("429 Too Many Requests", "retry-after: 86400\r\nx-should-retry: false\r\n"))
        assert wish("generate", "--url", gateway.base_url, "--variants", "2").status == 1
        assert len(gateway.received) == 1


def test_only_what_is_missing_is_asked_for(wish: Operator, door: RunningGateway, upstream: RecordedUpstream) -> None:
    upstream.play(*GOOD)
    assert generate(wish, door, "--variants", "2").status == 0
    wish("accept", "q1/0")
    wish("reject", "q1/1")
    upstream.play(*GOOD[1:])
    assert generate(wish, door).status == 0
    assert len(upstream.received) == 4
    assert drafts(wish) == FIVE[1:]
    status, out, _ = generate(wish, door)
    assert (status, len(upstream.received)) == (0, 4)
    assert out.startswith("nothing is missing")


def test_what_is_served_can_be_replaced(wish: Operator, door: RunningGateway, upstream: RecordedUpstream) -> None:
    upstream.play(*GOOD)
    generate(wish, door, "--variants", "3")
    wish("accept", "--all")
    upstream.play(GOOD[4])
    status, _, err = generate(wish, door, "--ids", "q1/1")
    assert (status, drafts(wish)) == (0, FIVE[1:2]), err
    assert wish.read(FIVE[1])["replaces"] == 1
    wish("accept", "q1/1")
    assert wish.read("responses/q1_capital/1.json") == {"response": CAPITALS[4]}
    upstream.play(GOOD[1], GOOD[3], answer("首都は東京都です。"))
    status, out, _ = generate(wish, door, "--again", "--variants", "3", "--json")
    assert (status, json.loads(out)["written"]) == (0, ["q1_capital/0", "q1_capital/1", "q1_capital/2"])


def test_a_draft_that_waits_is_kept(wish: Operator, door: RunningGateway, upstream: RecordedUpstream) -> None:
    wish.draft("q1_capital/0", CAPITALS[0])
    wish.draft("q1_capital/1", CAPITALS[1])
    assert wish("accept", "q1_capital/1").out == "q1_capital/1 is responses/q1_capital/0.json\n"
    upstream.play(GOOD[2])
    assert generate(wish, door, "--ids", "q1/0").status == 0
    assert wish.read(FIVE[0])["response"] == CAPITALS[0]
    assert (wish.read(FIVE[1])["response"], wish.read(FIVE[1])["replaces"]) == (CAPITALS[2], 0)


def test_what_a_provider_will_not_answer_is_given_up_and_the_others_go_on(
    wish: Operator, door: RunningGateway, upstream: RecordedUpstream
) -> None:
    wish("add", "空はなぜ青いのですか？", "--id", "q2_sky", "--variants", "1")
    upstream.play(failure("400 Bad Request"), GOOD[0])
    status, out, err = generate(wish, door, "--variants", "1", "--parallel", "1")
    assert (status, drafts(wish)) == (1, ["drafts/q2_sky/0.json"]), err
    assert "q1_capital/0  given up: 400: Not now\n" in err
    assert out.startswith("1 of 2 drafts written")


def test_an_interruption_loses_nothing(wish: Operator, door: RunningGateway, upstream: RecordedUpstream) -> None:
    upstream.play(GOOD[0], GOOD[1], [Sleep(float("inf"))])
    command = [str(LEXORA), "answers", "generate", "--folder", str(wish.folder), "--url", door.url, "--model", "m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(upstream.received) == 3, "the third request", 20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, drafts(wish)) == (130, FIVE[:2])
    assert out.startswith("2 of 5 drafts written")
    assert "run it again to go on; what is written is kept" in err
    upstream.play(*GOOD[2:])
    assert generate(wish, door).status == 0
    assert [wish.read(name)["response"] for name in FIVE] == CAPITALS


def test_nothing_listens(wish: Operator) -> None:
    status, out, err = wish("generate", "--url", f"http://127.0.0.1:{free_port()}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "start a gateway there with `lexora serve`, or name another with --url" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--url", "nowhere"), "'nowhere' is no address of a gateway"),
        (("--url", "http://127.0.0.1:x"), "is no address of a gateway"),
        (("--ids", "q2"), "there is no q2; prompts are q1_capital"),
        (("--ids", "q1/x"), "there is no q1/x"),
        (("--ids", "q1/3"), "q1_capital/3 is not served"),
        (("--tries", "0"), "--tries must be 1 or more"),
        (("--variants", "x"), "'x' is no number of variants"),
    ],
)
def test_a_mistake_of_the_command_line_is_named(wish: Operator, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = wish("generate", *arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_a_model_that_there_is_not_ends_it_at_once(wish: Operator, door: RunningGateway) -> None:
    status, out, err = generate(wish, door, model="nobody")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "name a model with --model" in err


def test_a_gateway_without_a_model_ends_it_at_once(wish: Operator) -> None:
    """It is found by its config."""
    with running_gateway(wish.folder / "gateway", {"models": {}}) as bare:
        config = wish.write("gateway/where.yaml", {"server": {"port": int(bare.url.rpartition(":")[2])}})
        status, out, err = wish("generate", "--config", config)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "the gateway has no model: 503: " in err


def test_a_gateway_that_needs_a_key(
    wish: Operator, upstream: RecordedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = models_config(m={"provider": "vllm", "base_url": upstream.base_url, "model": "up"})
    with running_gateway(wish.folder / "gateway", config | {"auth": {"required": True}}) as guarded:
        status, _, err = generate(wish, guarded)
        assert (status, err.count("\n")) == (2, 1)
        assert "set LEXORA_API_KEY to a key of this gateway" in err
        made = subprocess.run(
            [LEXORA, "keys", "create", "--user", "ann", "--data", guarded.folder / "data"],
            capture_output=True,
            text=True,
            check=True,
        )
        monkeypatch.setenv("LEXORA_API_KEY", made.stdout.strip())
        upstream.play(*GOOD)
        status, _, err = generate(wish, guarded)
        assert (status, drafts(wish)) == (0, FIVE), err
