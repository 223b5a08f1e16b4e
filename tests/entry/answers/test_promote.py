"""`lexora answers promote`, from the records of a real gateway and from its log."""

import io
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from lexora.adapters.json_log import iso
from lexora.adapters.sqlite import SqliteRecords
from tests.support.answers import Operator
from tests.support.command import Ended
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.recorded import RecordedUpstream, completion, json_response, recorded_upstream, wait_until

TEA, KOREA, PLANTS = "紅茶をおいしく入れるには？", "韓国の首都はどこですか？", "植物はなぜ緑色なのですか？"
# Of each request, at 2 and 8 dollars per million tokens, 7 and 3 of them.
COST = (7 * 2 + 3 * 8) / 1e6


class Promoter(NamedTuple):
    """Someone who may look into the records of a gateway."""

    answers: Operator
    gateway: RunningGateway

    def __call__(self, *arguments: str | Path) -> Ended:
        return self.answers("promote", "--data", self.gateway.folder / "data", *arguments)

    def proposals(self, *arguments: str | Path) -> list[dict[str, Any]]:
        status, out, err = self(*arguments, "--json")
        assert status == 0, err
        found: list[dict[str, Any]] = json.loads(out)
        return found


def ask(gateway: RunningGateway, content: Any, user: str | None = None, **fields: Any) -> None:
    headers = fields.pop("headers", None)
    body = {"model": "paid", "messages": [{"role": "user", "content": content}], "x_user_id": user, **fields}
    httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=10)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that was asked a number of things."""
    with recorded_upstream([json_response(completion())]) as upstream:
        paid = {"provider": "openai", "base_url": upstream.base_url, "model": "up", "credential": "env:UPSTREAM_KEY"}
        config = models_config(paid={**paid, "price": {"input": 2, "output": 8}})
        with running_gateway(tmp_path_factory.mktemp("asked"), config, env={"UPSTREAM_KEY": "sk-x"}) as running:
            for prompt in (PLANTS, PLANTS.rstrip("？"), PLANTS, PLANTS):
                ask(running, prompt, "ann")
            for user in ("ann", "bob", "ann"):
                ask(running, TEA, user)
                ask(running, [{"type": "text", "text": KOREA}], user)
                ask(running, "日本の首都は？", user)  # known
                ask(running, "光とは", user, headers={"cache-control": "no-cache"})  # wants no prepared answer
                ask(running, "音とは", user, tools=[{"type": "function", "function": {"name": "f"}}])  # nor this
                ask(running, "夢" * 1001, user)
                ask(running, "虹とは", user, model="nobody")  # fails
            ask(running, TEA.replace("？", "?"), "bob")
            wait_until(lambda: len(running.records()) == 4 + 3 * 7 + 1, "the records", 10)
            yield running


@pytest.fixture
def promote(answers: Operator, asked: RunningGateway) -> Promoter:
    answers.copy_shipped()
    return Promoter(answers, asked)


def test_only_what_a_prepared_answer_could_answer_is_kept(asked: RunningGateway) -> None:
    kept = {record["prompt"] for record in asked.records()}
    assert kept == {PLANTS, PLANTS.rstrip("？"), TEA, TEA.replace("？", "?"), KOREA, "虹とは", None}


def test_prompts_are_ranked_by_what_they_cost(promote: Promoter) -> None:
    first, second = promote.proposals()
    assert (first["prompt"], first["count"], first["users"], first["tokens"]) == (TEA, 3 + 1, 2, 40)
    assert first["cost_usd"] == pytest.approx(4 * COST)
    assert (first["making_usd"], first["saved_usd"]) == (pytest.approx(5 * COST), pytest.approx(-COST))
    assert (first["suggested_id"], first["near"]) == ("q11", None)
    assert (second["prompt"], second["count"], second["near"]) == (KOREA, 3, "q1_capital")


def test_a_table_for_people(promote: Promoter) -> None:
    status, out, err = promote()
    assert status == 0
    head, first, second, near = out.splitlines()
    assert head.split() == ["REF", "ASKED", "USERS", "TOKENS", "COST", "USD", "SAVED", "USD", "PROMPT"]
    assert first.endswith(TEA)
    assert second.endswith(KOREA)
    assert near.split()[:4] == ["close", "to", "q1_capital", "(日本の首都はどこですか？):"]
    assert "1 more were asked by too few users" in err
    assert "ann" not in out + err


def test_bounds(promote: Promoter) -> None:
    assert {found["prompt"] for found in promote.proposals("--users", "1")} == {TEA, KOREA, PLANTS}
    assert len(promote.proposals("--users", "1", "--limit", "1")) == 1
    assert promote.proposals("--min-count", "4", "--users", "2")[0]["prompt"] == TEA
    assert promote.proposals("--users", "3") == []


def test_the_log_says_the_same(promote: Promoter, tmp_path: Path) -> None:
    lines = promote.gateway.stdout.splitlines()
    log = tmp_path / "log"
    # As `make logs` prints them, with lines of other things between.
    log.write_text("\n".join(("{", *(f"2026-01-01T00:00:00+00:00 2026/01/01/[$LATEST]0 {line}" for line in lines))))
    of_log, of_records = promote.proposals("--log", log), promote.proposals()
    assert [{**found, "cost_usd": 0, "making_usd": 0, "saved_usd": 0} for found in of_log] == [
        {**found, "cost_usd": 0, "making_usd": 0, "saved_usd": 0} for found in of_records
    ]
    assert [found["cost_usd"] for found in of_log] == pytest.approx([found["cost_usd"] for found in of_records])


def test_log_lines_from_before_are_passed_over(promote: Promoter, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(re.sub(r'"timestamp":"\d{4}', '"timestamp":"2020', promote.gateway.stdout))
    assert promote.proposals("--log", log) == []
    assert len(promote.proposals("--log", log, "--since", "99999d")) == 2


BROKEN = [
    {"latestUserMessage": 5},
    {"latestUserMessage": "\ud800 and then"},
    {"userId": [1]},
    {"costUsd": "much"},
    {"tokensIn": "a", "tokensOut": "b"},
    {"timestamp": "soon"},
    {"timestamp": "0001-01-01T00:00:00Z"},
]


def test_lines_that_are_broken_are_passed_over(answers: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.copy_shipped()
    good = {"timestamp": iso(time.time()), "lonePrompt": True, "outcome": "completed", "userId": "ann", "costUsd": 0.5}
    good |= {"latestUserMessage": TEA, "tokensIn": 7, "tokensOut": 3}
    lines = [json.dumps(line).encode() for line in (good, *({**good, **wrong} for wrong in BROKEN), good)]
    lines += [lines[0].replace(b"ann", b"\xff\xfe"), lines[0][:-9], b'{"lonePrompt":' + b"[" * 100_000, b'"lonePrompt"']
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(lines)), encoding="utf-8"))
    status, out, err = answers("promote", "--log", "-", "--json", "--min-count", "1", "--users", "1")
    assert status == 0, err
    assert [(found["prompt"], found["count"], found["cost_usd"]) for found in json.loads(out)] == [(TEA, 2, 1.0)]


def test_what_is_accepted_waits_for_answers(promote: Promoter) -> None:
    ref = promote.proposals()[0]["ref"]
    status, out, err = promote("--accept", ref)
    assert (status, out) == (0, f"added q11: {TEA}\n")
    assert "lexora answers generate --ids q11" in err
    assert promote.answers.read("drafts/catalogue.json")["prompts"][0]["prompt"] == TEA
    assert [found["prompt"] for found in promote.proposals()] == [KOREA]  # the other is known now


def test_what_is_close_to_a_known_prompt_is_for_a_person_to_decide(promote: Promoter) -> None:
    ref = promote.proposals()[1]["ref"]
    status, out, err = promote("--accept", ref)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "accept it with --id q1_capital, else with an id of its own: --id q12" in err
    assert promote("--accept", ref, "--id", "q11_korea").out == f"added q11_korea: {KOREA}\n"


def test_a_proposal_can_become_an_alias(promote: Promoter) -> None:
    ref = promote.proposals()[1]["ref"]
    assert promote("--accept", ref, "--id", "q1").out == f"added to q1_capital: {KOREA}\n"
    assert KOREA in promote.answers.read("catalogue.json")["prompts"][0]["aliases"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--accept", "000000"), "there is no proposal 000000"),
        (("--accept", "000000,000001", "--id", "q11"), "--id names the one proposal"),
        (("--since", "30"), "write a number and a unit"),
        (("--min-count", "0"), "give 1 or more"),
        (("--log", "/nowhere"), "/nowhere: No such file or directory"),
    ],
)
def test_a_mistake_of_the_command_line_is_named(promote: Promoter, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = promote(*arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_records_that_are_not_there_or_of_an_earlier_version(answers: Operator, tmp_path: Path) -> None:
    answers.copy_shipped()
    assert "name the gateway's folder with --data" in answers("promote", "--data", tmp_path).err
    SqliteRecords(tmp_path / "lexora.db").close()
    with closing(sqlite3.connect(tmp_path / "lexora.db")) as connection:
        connection.execute("ALTER TABLE requests DROP COLUMN prompt")
    status, _, err = answers("promote", "--data", tmp_path)
    assert (status, err.count("\n")) == (2, 1)
    assert "start this one once" in err


def test_no_word_is_kept_where_the_config_forbids_it(
    answers: Operator, upstream: RecordedUpstream, tmp_path: Path
) -> None:
    upstream.play([json_response(completion())])
    config = models_config(paid={"provider": "vllm", "base_url": upstream.base_url, "model": "up"})
    with running_gateway(tmp_path / "gateway", config | {"logging": {"message_text": False}}) as silent:
        for _ in range(3):
            ask(silent, TEA)
        wait_until(lambda: len(silent.records()) == 3, "the records")
        assert {record["prompt"] for record in silent.records()} == {None}
        answers.copy_shipped()
        status, out, err = answers("promote", "--log", silent.folder / "stdout")
    for file in (silent.folder / "data").iterdir():
        assert TEA.encode() not in file.read_bytes()
    assert (status, out) == (0, "")
    assert "lines without the users' words are passed over" in err
