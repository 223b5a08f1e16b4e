"""scripts/warmup.sh through a real nginx: fills, verifies, goes on where it failed, and says what is missing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Ended, make_command, run
from tests.support.gateway import ROOT, free_port
from tests.support.nginx import Nginx, nginx_in, status_of
from tests.support.recorded import RecordedUpstream, Script, completion, json_response

SCRIPT = ROOT / "scripts" / "warmup.sh"
PROMPT = '「猿も木から落ちる」と"言う"のは？'
CUT = completion(choices=[{"index": 0, "message": {"role": "assistant", "content": "It"}, "finish_reason": "length"}])


@pytest.fixture
def nginx(tmp_path: Path, upstream: RecordedUpstream) -> Iterator[Nginx]:
    """Filled from `upstream`, which lists the model `m`."""
    upstream.about = json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})
    with nginx_in(tmp_path / "nginx") as running:
        running.start(f"127.0.0.1:{upstream.port}")
        yield running


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Of one prompt, which is enough."""
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps({"prompts": [{"id": "q1_monkey", "prompt": PROMPT}]}))
    return path


def warm(catalogue: Path, *arguments: str, **env: str) -> Ended:
    return run(SCRIPT, *arguments, env={"CATALOGUE": str(catalogue), "RETRIES": "0", **env})


def answers(*texts: str) -> list[Script]:
    return [[json_response(completion(text))] for text in texts]


def seeds(upstream: RecordedUpstream) -> list[int]:
    return [one.json()["seed"] for one in upstream.received]


def test_it_fills_and_a_second_time_finds_all_there(nginx: Nginx, upstream: RecordedUpstream, catalogue: Path) -> None:
    upstream.play(*answers(*"abcde"))
    ended = warm(catalogue, nginx.fill_url, API_KEY="sk-1")
    last = "all 5 answers are in the cache (model m)"
    assert ended == (0, "".join(f"[{n + 1}/5] q1_monkey/{n} filled\n" for n in range(5)) + last + "\n", "")
    assert seeds(upstream) == [0, 1, 2, 3, 4]
    assert upstream.received[0].json() == {"messages": [{"role": "user", "content": PROMPT}], "model": "m", "seed": 0}
    assert {one.headers["authorization"] for one in upstream.received} == {"Bearer sk-1"}
    for target, url in (("cache-warm", nginx.fill_url), ("cache-check", nginx.url)):
        again = run(*make_command(target, f"URL={url}", "MODEL=m"), env={"CATALOGUE": str(catalogue)})
        assert (again.status, again.out.count(" kept\n"), again.err) == (0, 5, "")
    assert len(upstream.received) == 5


def test_what_failed_is_listed_and_the_next_run_asks_for_that_alone(
    nginx: Nginx, upstream: RecordedUpstream, catalogue: Path
) -> None:
    broken = [json_response({"error": {"message": "overloaded"}}, "503 Service Unavailable")]
    upstream.play(*answers("a", "b"), broken, *answers("d", "e"))
    ended = warm(catalogue, nginx.fill_url)
    assert ended.status == 1
    assert "[3/5] q1_monkey/2 status 503: " in ended.out
    assert ended.err.splitlines()[0] == "1 of 5 failed:"
    assert ended.err.splitlines()[1].startswith("  q1_monkey/2: status 503: ")
    upstream.play(*answers("c"))
    ended = warm(catalogue, nginx.fill_url)
    assert (ended.status, seeds(upstream)) == (0, [2])


@pytest.mark.slow
def test_a_bad_answer_is_a_failure_until_it_is_replaced(
    nginx: Nginx, upstream: RecordedUpstream, catalogue: Path
) -> None:
    bad = [[json_response(one)] for one in (completion("  "), CUT, {"object": "list"})]
    upstream.play(*answers("a", "b"), *bad)
    ended = warm(catalogue, nginx.fill_url)
    reasons = ("the answer is empty", "the answer is not whole: finish_reason length", "is no chat completion")
    listed = "".join(f"  q1_monkey/{number}: {reason}\n" for number, reason in enumerate(reasons, 2))
    assert (ended.status, ended.err) == (1, "3 of 5 failed:\n" + listed)
    upstream.play(*answers("c"), *bad[:1], *answers("e"))
    ended = warm(catalogue, nginx.fill_url)
    assert (ended.status, seeds(upstream)) == (1, [2, 3, 4])
    assert "[3/5] q1_monkey/2 filled\n[4/5] q1_monkey/3 the answer is empty\n[5/5] q1_monkey/4 filled\n" in ended.out


@pytest.mark.slow
def test_new_answers_replace_the_old_and_equal_ones_are_told(
    nginx: Nginx, upstream: RecordedUpstream, catalogue: Path
) -> None:
    upstream.play(*answers("old"))
    ended = warm(catalogue, nginx.fill_url)
    assert (ended.status, ended.err) == (0, "note: q1_monkey has 1 different answers in 5\n")
    upstream.play(*answers(*"abcde"))
    ended = warm(catalogue, "--refresh", nginx.fill_url)
    assert (ended.status, ended.out.count(" filled\n"), ended.err) == (0, 5, "")
    assert len(upstream.received) == 5


def test_a_check_asks_nobody_for_what_is_missing(nginx: Nginx, upstream: RecordedUpstream, catalogue: Path) -> None:
    ended = warm(catalogue, "--check", nginx.url, MODEL="m", RETRIES="")
    assert ended.status == 1
    assert ended.err.startswith("5 of 5 failed:\n  q1_monkey/0: is not in the cache\n")
    assert len((nginx.folder / "access.log").read_text().splitlines()) == 1 + 1 + 5, (
        "its start, the models, and no retry"
    )
    assert upstream.received == []


@pytest.mark.slow
def test_what_the_cache_does_not_keep_is_a_failure(nginx: Nginx, upstream: RecordedUpstream, catalogue: Path) -> None:
    upstream.play([json_response(completion("a")).replace(b"application/json", b"text/plain")])
    ended = warm(catalogue, nginx.fill_url)
    assert ended.status == 1
    assert "q1_monkey/0: was not kept: x-cache-status MISS" in ended.err
    assert len(upstream.received) == 10


def test_wrong_calls_are_refused_in_a_line_or_two(nginx: Nginx, upstream: RecordedUpstream, catalogue: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    ended = warm(catalogue, nobody)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(f"{nobody}/v1/models: curl: (7)")
    itself = f"http://127.0.0.1:{upstream.port}"
    ended = warm(catalogue, itself)
    assert (ended.status, ended.err) == (1, f"{itself} is no cache: its answers have no x-cache-status\n")
    upstream.about = json_response({"object": "list", "data": []})
    ended = warm(catalogue, nginx.fill_url)
    assert (ended.status, ended.err) == (1, f"{nginx.fill_url}/v1/models lists no model: name one, MODEL=…\n")
    ended = warm(catalogue, "--rubbish")
    assert ended.status == 2
    assert "scripts/warmup.sh [--refresh | --check] [URL]" in ended.err
    ended = warm(catalogue / "none", nginx.fill_url, MODEL="m")
    assert ended.status == 1
    assert status_of(nginx.ask(b"{}")) == (503, "MISS")
