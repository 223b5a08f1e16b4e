"""What every `AnswerStore` must do, whatever it keeps its answers in."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from lexora.adapters.dynamodb import DynamoAnswers
from lexora.adapters.sqlite import SqliteAnswers
from lexora.core.ports import AnswerStore
from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.emulator import Emulator

Answers = Mapping[tuple[str, int], str]


class Subject(NamedTuple):
    """A store, how answers get into it, and how to open it again."""

    store: AnswerStore
    fill: Callable[[Answers], None]
    reopen: Callable[[], AnswerStore]


def _sqlite(request: pytest.FixtureRequest) -> Iterator[Subject]:
    path: Path = request.getfixturevalue("tmp_path") / "lexora.db"
    opened = [SqliteAnswers(path)]

    def reopen() -> AnswerStore:
        opened.append(SqliteAnswers(path))
        return opened[-1]

    yield Subject(opened[0], lambda answers: opened[0].replace(dict(answers)), reopen)
    for store in opened:
        store.close()


def _dynamodb(request: pytest.FixtureRequest) -> Iterator[Subject]:
    emulator: Emulator = request.getfixturevalue("emulator")
    client, table = emulator.client("dynamodb"), emulator.table(prompt="S", variant="N")
    store = DynamoAnswers(client, table)
    yield Subject(store, lambda answers: store.replace(dict(answers)), lambda: DynamoAnswers(client, table))


ADAPTERS = {"sqlite": _sqlite, "dynamodb": _dynamodb}


@pytest.fixture(params=ADAPTERS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from ADAPTERS[request.param](request)


def get(store: AnswerStore, prompt: str, variant: int) -> str | None:
    return asyncio.run(store.get(prompt, variant))


def test_an_empty_store_has_nothing(subject: Subject) -> None:
    assert get(subject.store, "a", 0) is None


def test_a_prompt_has_variants(subject: Subject) -> None:
    subject.fill({("a", 0): "a0", ("a", 1): "a1", ("b", 0): "b0"})
    assert [get(subject.store, *key) for key in (("a", 0), ("a", 1), ("b", 0))] == ["a0", "a1", "b0"]


@pytest.mark.parametrize(
    ("prompt", "variant"), [("a", 2), ("a", -1), ("b", 0), ("A", 0), ("a ", 0), ("", 0), ("首" * 1000, 0)]
)
def test_another_key_finds_nothing(subject: Subject, prompt: str, variant: int) -> None:
    subject.fill({("a", 0): "a0", ("a", 1): "a1"})
    assert get(subject.store, prompt, variant) is None


def test_filling_replaces_everything(subject: Subject) -> None:
    subject.fill({("a", 0): "old", ("b", 0): "gone"})
    subject.fill({("a", 0): "new"})
    assert get(subject.store, "a", 0) == "new"
    assert get(subject.store, "b", 0) is None
    subject.fill({})
    assert get(subject.store, "a", 0) is None


TEXTS = ["日本の首都は東京です。🗻", "a\nb\tc\x00d", "'; DROP TABLE answers; --"]


@pytest.mark.parametrize("text", ["", *TEXTS, "x" * 350_000])
def test_an_answer_comes_back_as_it_was(subject: Subject, text: str) -> None:
    subject.fill({("a", 0): text})
    assert get(subject.store, "a", 0) == text


@pytest.mark.parametrize("prompt", [*TEXTS, "首" * 682])
def test_a_prompt_is_found_as_it_was(subject: Subject, prompt: str) -> None:
    subject.fill({(prompt, 0): "a", (prompt[1:], 0): "b"})
    assert [get(subject.store, prompt, 0), get(subject.store, prompt[1:], 0)] == ["a", "b"]


def test_answers_are_still_there_after_a_restart(subject: Subject) -> None:
    _, answers = load_prepared(SHIPPED)
    subject.fill(answers)
    again = subject.reopen()
    assert {key: get(again, *key) for key in answers} == answers
