"""Publishing to AWS: what dies half-way, two people at once, and that no reader sees a mixture."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from lexora.adapters import cloudfront, dynamodb_versions
from lexora.adapters.cloudfront import edge_code
from lexora.core.ports import InForce, Overtaken
from lexora.core.versions import Version
from lexora.entry.errors import ConfigError
from lexora.entry.publishing import plan, put_in_force
from tests.support.answers_place import AnswersPlace, version_of
from tests.support.emulator import Emulator

OLD = version_of(q1=["old 0", "old 1"], q2=["old"], q3=["gone"])
NEW = version_of(q1=["new 0", "new 1", "new 2"], q2=["old"], q4=["come"])
CHANGED = ["/responses/catalogue.json", *(f"/responses/{it}.json" for it in ("q1/0", "q1/1", "q1/2", "q3/0", "q4/0"))]


@pytest.fixture
def place(emulator: Emulator) -> AnswersPlace:
    made = AnswersPlace(emulator)
    publish(made, OLD)
    made.assert_serves(OLD)
    return made


def publish(place: AnswersPlace, wanted: Version, by: str = "ann") -> str | None:
    return put_in_force(place.store, place.site, plan(place.store, wanted, by, "why"), lambda _: None)


class Dies:
    """A client whose call of this name fails, from the n-th on."""

    def __init__(self, client: Any, name: str, nth: int) -> None:
        self._client = client
        self._name = name
        self._left = nth

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        return call if name != self._name else lambda **given: self._called(call, given)

    def _called(self, call: Callable[..., Any], given: dict[str, Any]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise EndpointConnectionError(endpoint_url="https://aws")
        return call(**given)


def test_a_version_is_put_in_force_everywhere(place: AnswersPlace) -> None:
    assert publish(place, NEW) is not None
    place.assert_serves(NEW)
    newest, first = place.store.ids()
    kept = place.store.get(newest)
    assert kept is not None
    assert (kept.by, kept.message, kept.before) == ("ann", "why", first)
    assert place.store.in_force() == InForce(newest)
    assert place.invalidations() == [CHANGED]


def test_going_back_is_publishing_an_old_version(place: AnswersPlace) -> None:
    publish(place, NEW)
    first = place.store.get(place.store.ids()[1])
    assert first is not None
    publish(place, first)
    place.assert_serves(OLD)
    assert place.store.in_force() == InForce(first.id)
    assert place.invalidations() == [CHANGED, CHANGED]
    assert len(place.store.ids()) == 2


STEPS = [
    *(("s3", "put_object", nth) for nth in (0, 1, 3)),
    *(("dynamodb", "transact_write_items", nth) for nth in range(3)),
    *(("cloudfront", name, 0) for name in ("update_function", "publish_function", "create_invalidation")),
    *(("s3", "put_object", 8), ("s3", "delete_objects", 0)),
]


@pytest.mark.parametrize(("service", "call", "nth"), STEPS)
def test_what_dies_half_way_is_finished_by_doing_it_again(
    place: AnswersPlace, service: str, call: str, nth: int
) -> None:
    """And until it is, readers of the table and of the edge see one version each."""
    for holder in (place.store, place.site):
        if hasattr(holder, f"_{service}"):
            setattr(holder, f"_{service}", Dies(getattr(holder, f"_{service}"), call, nth))
    with pytest.raises(OSError, match="https://aws"):
        publish(place, NEW)
    assert (place.answers(), place.catalogue()) in [(it.items(), it.catalogue()) for it in (OLD, NEW)]
    (at_edge,) = (version for version in (OLD, NEW) if edge_code(version) == place.code())
    assert cloudfront._files(at_edge).keys() <= place.keys(), "the edge looks for files that are not there"
    for holder in (place.store, place.site):
        if hasattr(holder, f"_{service}"):
            setattr(holder, f"_{service}", place.emulator.client(service))
    planned = plan(place.store, NEW, "ann", "")
    assert planned.is_needed
    put_in_force(place.store, place.site, planned, lambda _: None)
    place.assert_serves(NEW)
    assert place.store.in_force().begun is None
    assert place.invalidations()[-1] == CHANGED


def test_there_is_nothing_to_do_where_there_is_no_difference(place: AnswersPlace) -> None:
    assert not plan(place.store, OLD, "ann", "").is_needed


def test_of_two_people_one_is_refused(place: AnswersPlace) -> None:
    ours, theirs = plan(place.store, NEW, "ann", ""), plan(place.store, version_of(q1=["b"]), "bob", "")
    put_in_force(place.store, place.site, ours, lambda _: None)
    with pytest.raises(ConfigError, match="somebody else has just begun to publish"):
        put_in_force(place.store, place.site, theirs, lambda _: None)
    place.assert_serves(NEW)


def test_who_is_at_work_is_not_disturbed(place: AnswersPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = plan(place.store, NEW, "ann", "")
    place.store.add(ours.version)
    assert place.store.begin(ours.version.id, ours.version.at, ours.seen) is not None
    other = version_of(q1=["b"])
    with pytest.raises(ConfigError, match=rf"ann has begun to publish version {ours.version.id} \d s ago"):
        plan(place.store, other, "bob", "")
    monkeypatch.setattr("lexora.entry.publishing._PATIENCE_SECONDS", 0)
    publish(place, other)
    place.assert_serves(other)


def test_who_took_too_long_and_was_overtaken_changes_nothing_more(place: AnswersPlace) -> None:
    ours = plan(place.store, NEW, "ann", "")
    place.store.add(ours.version)
    begun = place.store.begin(ours.version.id, 0, ours.seen)
    assert begun is not None
    other = version_of(q1=["b"])
    publish(place, other, "bob")
    with pytest.raises(Overtaken):
        place.store.switch(ours.version, begun)
    place.assert_serves(other)


def test_more_changes_than_one_transaction_takes(place: AnswersPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamodb_versions, "_MOST_WRITES", 7)
    large = version_of(**{f"p{n}": [f"{n} {k}" for k in range(5)] for n in range(12)})
    publish(place, large)
    place.assert_serves(large)
    publish(place, OLD)
    place.assert_serves(OLD)


def test_a_prompt_that_can_be_no_key_is_refused_before_anything_changes(place: AnswersPlace) -> None:
    longest = version_of(**{"q" * 2_047: ["just so"]}).prompts[0].prompt
    content = version_of(q1=["a"])
    for prompt in (longest, longest + "?"):
        content.prompts[0].prompt = prompt
        if prompt == longest:
            publish(place, content)
        else:
            with pytest.raises(ConfigError, match=r"the prompt of q1 has 2,049 bytes"):
                publish(place, content)
    assert place.store.in_force().begun is None
    assert set(place.answers()) == {(longest, 0)}


def test_a_table_that_was_changed_by_hand_is_put_right(place: AnswersPlace) -> None:
    item = {"prompt": {"S": "q2?"}, "variant": {"N": "7"}, "response": {"S": "stray"}}
    place.emulator.client("dynamodb").put_item(TableName=place.answers_table, Item=item)
    publish(place, NEW)
    place.assert_serves(NEW)


@pytest.mark.parametrize("most", [99, 7])
def test_a_reader_of_the_table_sees_no_mixture(place: AnswersPlace, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Whoever reads a prompt reads variants of one version, and never fewer than there were."""
    monkeypatch.setattr(dynamodb_versions, "_MOST_WRITES", most)
    versions = [version_of(q1=[f"{n} {k}" for k in range(3)], q2=[f"{n} {k}" for k in range(4)]) for n in "ab"]
    publish(place, versions[0])
    client = place.emulator.client("dynamodb")
    done, mixed, looks = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            keys = [{"prompt": {"S": "q2?"}, "variant": {"N": str(k)}} for k in range(4)]
            gets = [{"Get": {"TableName": place.answers_table, "Key": key}} for key in keys]
            found = client.transact_get_items(TransactItems=gets)["Responses"]
            texts = {item["Item"]["response"]["S"][0] if "Item" in item else "" for item in found}
            looks.append(texts)
            if len(texts) != 1 or "" in texts:
                mixed.append(texts)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(6):
            publish(place, versions[(turn + 1) % 2])
    finally:
        done.set()
        reader.join()
    assert not mixed
    assert {frozenset(look) for look in looks} == {frozenset("a"), frozenset("b")}
