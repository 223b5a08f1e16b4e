"""`lexora answers diff|publish|rollback|versions`, as a person runs them: here, and on AWS as the emulator has it."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from lexora.adapters.sqlite_versions import SqliteVersions
from lexora.core.versions import Version
from lexora.entry.answers import here
from lexora.entry.prepared import SHIPPED, load_prepared
from lexora.entry.publishing import plan, put_in_force
from lexora.main import main
from tests.support.answers_place import AnswersPlace
from tests.support.command import LEXORA, Ended, run
from tests.support.emulator import Emulator
from tests.support.gateway import RunningGateway, running_gateway

ALONE = {"CI": "", "YES": "", "AWS_EC2_METADATA_DISABLED": "true"}
SHIPPED_VERSION = Version.of(*load_prepared(SHIPPED))
FIRST = SHIPPED_VERSION.answers["q1_capital"][0]
NEW = "日本の首都は、いまも東京です。"


class Machine:
    """A folder with a gateway's config, data and prepared answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers = Path(shutil.copytree(SHIPPED, folder / "answers"))
        self.config = {"answers": str(self.answers), "models": {}}
        (folder / "config.yaml").write_text(json.dumps(self.config))

    def lexora(self, action: str, *arguments: str) -> Ended:
        places = ("--config", self.folder / "config.yaml", "--data", self.folder / "data")
        return run(LEXORA, "answers", action, *places, *arguments, env=ALONE)

    def write(self, text: str, name: str = "q1_capital/0") -> None:
        (self.answers / "responses" / f"{name}.json").write_text(json.dumps({"response": text}))

    def content(self) -> Version:
        return Version.of(*load_prepared(self.answers))

    def versions(self) -> list[str]:
        """Their messages, newest first; the one in force has a star."""
        listed = json.loads(self.lexora("versions", "--json").out)
        return [f"{'*' if it['in_force'] else ''}{it['message']}" for it in listed]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def gateway(machine: Machine) -> Iterator[RunningGateway]:
    with running_gateway(machine.folder, machine.config) as running:
        yield running


def capital(gateway: RunningGateway) -> str:
    text: str = httpx2.get(f"{gateway.url}/responses/q1/0.json").json()["response"]
    return text


def refused(ended: Ended) -> str:
    assert ended.status == 2, ended
    return ended.err.removeprefix("lexora: ").strip()


def test_a_running_gateway_serves_what_is_published_and_what_is_gone_back_to(
    machine: Machine, gateway: RunningGateway
) -> None:
    machine.write(NEW)
    shown = machine.lexora("diff", "--exit-code")
    assert shown.status == 1
    assert shown.out.splitlines() == [
        "~ q1_capital  日本の首都はどこですか？",
        f"    - 0.json: {FIRST}",
        f"    + 0.json: {NEW}",
    ]
    assert capital(gateway) == FIRST

    published = machine.lexora("publish", "-m", "more polite")
    assert (published.status, published.out) == (0, shown.out), published.err
    assert "is in force; back to the one before: lexora answers rollback" in published.err
    assert capital(gateway) == NEW
    assert machine.lexora("diff", "--exit-code").status == 0
    assert machine.versions() == ["*more polite", "what was served before, never published"]

    back = machine.lexora("rollback")
    assert back.status == 0, back.err
    assert capital(gateway) == FIRST
    assert machine.content() == SHIPPED_VERSION
    assert machine.versions() == ["more polite", "*what was served before, never published"]


def test_all_of_it_changes_at_once_for_readers(machine: Machine, gateway: RunningGateway) -> None:
    """One reads all the time, one answer after the other: after the first new one there is no old one."""
    for number, text in enumerate(SHIPPED_VERSION.answers["q1_capital"]):
        machine.write(f"改めてお答えします。{text}", f"q1_capital/{number}")
    new = set(machine.content().answers["q1_capital"])
    done, seen = threading.Event(), []

    def read() -> None:
        with httpx2.Client(base_url=gateway.url) as client:
            while not done.is_set():
                seen.extend(client.get(f"/responses/q1/{k}.json").json()["response"] in new for k in range(5))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        published = machine.lexora("publish")
    finally:
        done.set()
        reader.join()
    assert published.status == 0, published.err
    assert {False, True} >= set(seen)
    assert seen == sorted(seen)
    assert capital(gateway) in new


def test_without_a_gateway_it_is_kept_for_the_next_one(machine: Machine) -> None:
    assert machine.lexora("publish", "-m", "first").status == 0
    machine.write(NEW)
    published = machine.lexora("publish", "-m", "second")
    assert published.status == 0, published.err
    assert "no gateway is running" in published.err
    assert machine.lexora("rollback").status == 0
    assert machine.versions() == ["second", "*first"]
    with running_gateway(machine.folder, machine.config) as gateway:
        assert capital(gateway) == FIRST


def test_publishing_what_is_in_force_does_nothing(machine: Machine, gateway: RunningGateway) -> None:
    assert machine.lexora("publish").status == 0
    again = machine.lexora("publish")
    assert (again.status, again.out) == (0, "")
    assert "has these answers already" in again.err
    assert len(machine.versions()) == 1


def test_prompts_come_and_go(machine: Machine, gateway: RunningGateway) -> None:
    """Drafts of the folder stay when it goes back."""
    (machine.answers / "drafts" / "q1_capital").mkdir(parents=True)
    draft = machine.answers / "drafts" / "q1_capital" / "0.json"
    draft.write_text(json.dumps({"prompt": "日本の首都はどこですか？", "response": NEW}))
    machine.lexora("publish", "-m", "ten")
    catalogue = json.loads((machine.answers / "catalogue.json").read_text())
    gone = catalogue["prompts"].pop(1)["id"]
    catalogue["prompts"].append({"id": "q11_hours", "prompt": "何時に開きますか？", "variants": 1})
    (machine.answers / "catalogue.json").write_text(json.dumps(catalogue))
    shutil.rmtree(machine.answers / "responses" / gone)
    (machine.answers / "responses" / "q11_hours").mkdir()
    machine.write("毎日、朝の十時に開きます。", "q11_hours/0")
    published = machine.lexora("publish")
    assert published.status == 0, published.err
    assert "+ q11_hours  何時に開きますか？" in published.out.splitlines()
    assert f"- {gone}  関ヶ原の戦いは何年に起こりましたか？" in published.out.splitlines()
    assert httpx2.get(f"{gateway.url}/responses/{gone}/0.json").status_code == 404
    assert httpx2.get(f"{gateway.url}/responses/q11/0.json").status_code == 200
    assert machine.lexora("rollback").status == 0
    assert httpx2.get(f"{gateway.url}/responses/{gone}/0.json").status_code == 200
    assert httpx2.get(f"{gateway.url}/responses/q11/0.json").status_code == 404
    assert machine.content() == SHIPPED_VERSION
    assert not (machine.answers / "responses" / "q11_hours").exists()
    assert draft.exists()


def test_what_was_not_published_is_not_lost_by_going_back(machine: Machine) -> None:
    machine.lexora("publish", "-m", "first")
    machine.write(NEW)
    machine.lexora("publish", "-m", "second")
    machine.write("東京です。まだ下書きで、誰も見ていません。")
    back = machine.lexora("rollback")
    assert back.status == 0, back.err
    assert "was never published; it is kept as version" in back.err
    assert machine.versions() == ["lay in the folder, never published", "second", "*first"]
    kept = json.loads(machine.lexora("versions", "--json").out)[0]["id"]
    assert machine.lexora("rollback", kept).status == 0
    assert machine.content().answers["q1_capital"][0] == "東京です。まだ下書きで、誰も見ていません。"


def test_going_back_that_died_is_finished_by_the_same_command(machine: Machine) -> None:
    machine.lexora("publish", "-m", "first")
    machine.write(NEW)
    machine.lexora("publish", "-m", "second")
    with closing(SqliteVersions(machine.folder / "data" / "lexora.db")) as store:
        first = store.get(store.ids()[-1])
        assert first is not None
        begun = store.begin(first.id, time.time(), store.in_force())
        assert begun is not None
        store.switch(first, begun)
    back = machine.lexora("rollback")
    assert back.status == 0, back.err
    assert "was begun and not finished; this finishes it" in back.err
    assert machine.versions() == ["second", "*first"]
    assert machine.content().answers["q1_capital"][0] == FIRST


def test_a_folder_with_mistakes_is_not_published(machine: Machine) -> None:
    machine.write("")
    (machine.answers / "responses" / "q2_battle" / "1.json").unlink()
    line = refused(machine.lexora("publish"))
    assert "q2_battle/1.json: is missing" in line
    assert line.endswith("nothing is published")
    assert machine.versions() == []


def test_a_gateway_that_refuses_is_told_of(
    machine: Machine, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its config cannot be read any more, so it goes on with what it has; mended, the same command finishes."""
    monkeypatch.setattr(here, "_TAKEN_SECONDS", 1)
    machine.write(NEW)
    good = machine.folder / "good.yaml"
    (machine.folder / "config.yaml").rename(good)
    (machine.folder / "config.yaml").write_text("nonsense: true")
    assert main(["answers", "publish", "--config", str(good), "--data", str(machine.folder / "data")]) == 2
    assert "the running gateway has not taken these answers" in capsys.readouterr().err
    assert capital(gateway) == FIRST
    good.rename(machine.folder / "config.yaml")
    finished = machine.lexora("publish")
    assert finished.status == 0, finished.err
    assert "was begun and not finished" in finished.err
    assert capital(gateway) == NEW


def test_another_folder_than_the_gateways_is_refused(machine: Machine, tmp_path: Path) -> None:
    other = shutil.copytree(SHIPPED, tmp_path / "other")
    assert "the gateway reads its answers in" in refused(machine.lexora("publish", "--folder", str(other)))


@pytest.mark.parametrize("name", ["", "2999"])
def test_a_version_that_there_is_not_is_refused(machine: Machine, name: str) -> None:
    said = refused(machine.lexora("rollback", *([name] if name else [])))
    assert said.endswith("has no version" if not name else "see: lexora answers versions")


# On AWS


class Environment(Machine):
    def __init__(self, folder: Path, place: AnswersPlace, name: str) -> None:
        super().__init__(folder)
        self.place = place
        self.name = name

    def lexora(self, action: str, *arguments: str) -> Ended:
        command = (LEXORA, "answers", action, "--folder", self.answers, "--env", self.name, *arguments)
        return run(*command, env=self.place.emulator.environment(ALONE))


@pytest.fixture
def dev(emulator: Emulator, tmp_path: Path) -> Environment:
    place, name = AnswersPlace(emulator), emulator.name("e").removeprefix("test-")
    place.make_stacks(name)
    put_in_force(place.store, place.site, plan(place.store, SHIPPED_VERSION, "deploy", "shipped"), lambda _: None)
    return Environment(tmp_path, place, name)


def test_an_environment_gets_what_is_published_and_what_is_gone_back_to(dev: Environment) -> None:
    dev.write(NEW)
    shown = dev.lexora("diff")
    published = dev.lexora("publish", "--yes", "-m", "more polite")
    assert (published.status, published.out) == (0, shown.out), published.err
    assert f"- 0.json: {FIRST}" in published.out
    dev.place.assert_serves(dev.content())
    assert f"back to the one before: lexora answers rollback --env {dev.name}" in published.err
    assert "it has forgotten" in published.err
    assert dev.place.invalidations() == [["/responses/q1_capital/0.json"]]
    assert dev.versions() == ["*more polite", "shipped"]
    back = dev.lexora("rollback", "--yes", "--no-wait")
    assert back.status == 0, back.err
    dev.place.assert_serves(SHIPPED_VERSION)
    assert dev.content() != SHIPPED_VERSION, "the folder is the operator's, here"


def test_nobody_is_asked_and_nothing_changed_without_a_terminal(dev: Environment) -> None:
    dev.write(NEW)
    assert refused(dev.lexora("publish")).endswith("nobody is at this terminal; add --yes")
    dev.place.assert_serves(SHIPPED_VERSION)


def test_an_environment_that_there_is_not_is_named(dev: Environment) -> None:
    dev.name = "nowhere"
    assert "there is no stack Lexora-nowhere-Data" in refused(dev.lexora("diff"))


@pytest.fixture
def no_sdk(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which only what the gateway needs is installed."""
    for name in ("boto3", "botocore"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(name='{name}')")
    return {**ALONE, "PYTHONPATH": str(tmp_path)}


def test_without_the_sdk_it_says_what_to_install(machine: Machine, no_sdk: dict[str, str]) -> None:
    ended = run(LEXORA, "answers", "diff", "--folder", machine.answers, "--env", "dev", env=no_sdk)
    assert "make .venv/aws" in refused(ended)


def test_here_it_needs_no_sdk(machine: Machine, no_sdk: dict[str, str]) -> None:
    places = ("--config", machine.folder / "config.yaml", "--data", machine.folder / "data")
    ended = run(LEXORA, "answers", "publish", *places, env=no_sdk)
    assert (ended.status, ended.out.count("\n+ ")) == (0, 9), ended.err
