"""The port `VersionStore`: the same of every adapter."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lexora.adapters.dynamodb_versions import DynamoVersions
from lexora.adapters.sqlite_versions import SqliteVersions
from lexora.core.answers import PreparedPrompt
from lexora.core.ports import InForce, Overtaken, VersionStore
from lexora.core.versions import Version
from tests.support.emulator import Emulator


class Subject(NamedTuple):
    store: VersionStore
    reopen: Callable[[], VersionStore]


def _sqlite(request: pytest.FixtureRequest) -> Iterator[Subject]:
    path: Path = request.getfixturevalue("tmp_path") / "lexora.db"
    opened = [SqliteVersions(path)]

    def reopen() -> SqliteVersions:
        opened.append(SqliteVersions(path))
        return opened[-1]

    yield Subject(opened[0], reopen)
    for store in opened:
        store.close()


def _dynamodb(request: pytest.FixtureRequest) -> Iterator[Subject]:
    emulator: Emulator = request.getfixturevalue("emulator")
    places = emulator.table(prompt="S", variant="N"), emulator.table(pk="S", sk="S"), emulator.bucket()

    def opened() -> DynamoVersions:
        return DynamoVersions(emulator.client("dynamodb"), emulator.client("s3"), *places)

    yield Subject(opened(), opened)


ADAPTERS = {"sqlite": _sqlite, "dynamodb": _dynamodb}


@pytest.fixture(params=ADAPTERS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from ADAPTERS[request.param](request)


def version(id_: str, *texts: str, before: str | None = None) -> Version:
    prompt = PreparedPrompt("q1_capital", "日本の首都は？", ["首都\x00は"], len(texts))
    return Version(id_, 1.5, "ann", "a 'message'", before, [prompt], {"q1_capital": list(texts)})


def test_an_empty_store_has_nothing(subject: Subject) -> None:
    assert (subject.store.in_force(), subject.store.ids(), subject.store.get("v1")) == (InForce(), [], None)


def test_versions_are_kept_newest_first(subject: Subject) -> None:
    kept = [version("v1", "a"), version("v2", "東京", "b\nc"), version("v3", "c", before="v2")]
    for one in (kept[1], kept[0], kept[2], kept[0]):
        subject.store.add(one)
    again = subject.reopen()
    assert again.ids() == ["v3", "v2", "v1"]
    assert [again.get(one.id) for one in kept] == kept


def test_what_was_begun_is_put_in_force_and_finished(subject: Subject) -> None:
    store, first = subject.store, version("v1", "a")
    store.add(first)
    begun = store.begin("v1", 12.5, store.in_force())
    assert begun == store.in_force() == InForce(None, "v1", 12.5)
    switched = store.switch(first, begun)
    assert switched == store.in_force() == InForce("v1", "v1", 12.5)
    assert store.finish(switched) == subject.reopen().in_force() == InForce("v1")


def test_only_one_of_two_begins(subject: Subject) -> None:
    seen = subject.store.in_force()
    assert subject.store.begin("v1", 1, seen) is not None
    assert subject.reopen().begin("v2", 2, seen) is None
    assert subject.store.in_force() == InForce(None, "v1", 1)


def test_what_died_is_begun_again_and_switched_again(subject: Subject) -> None:
    first = version("v1", "a")
    begun = subject.store.begin("v1", 1, InForce())
    assert begun is not None
    subject.store.switch(first, begun)
    again = subject.reopen()
    begun = again.begin("v1", 2, again.in_force())
    assert begun == InForce("v1", "v1", 2, None)
    assert again.finish(again.switch(first, begun)) == InForce("v1")
    begun = again.begin("v2", 3, again.in_force())
    assert begun == InForce("v1", "v2", 3, "v1")
    switched = again.switch(version("v2", "b"), begun)
    assert again.begin("v2", 4, switched) == InForce("v2", "v2", 4, "v1"), "what was in force before is not forgotten"


def test_whoever_was_overtaken_changes_nothing(subject: Subject) -> None:
    store, first = subject.store, version("v1", "a")
    begun = store.begin("v1", 1, InForce())
    assert begun is not None
    assert store.begin("v2", 99, begun) is not None
    with pytest.raises(Overtaken):
        store.switch(first, begun)
    with pytest.raises(Overtaken):
        store.finish(begun)
    assert store.in_force() == InForce(None, "v2", 99)
