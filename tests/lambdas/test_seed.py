"""The seed function: what CloudFormation asks of it, what it fills, and what it says when it cannot."""

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from lambdas.seed import handler as deployed
from lexora.entry import seed as seeding
from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.emulator import Emulator
from tests.support.gateway import ROOT

KEY = "config/model_map.json"


class CloudFormation:
    """What a response address leads to: keeps the answers, and the headers that came with them."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.answers.append({**json.loads(body), "path": self.path, "bytes": len(body)})
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/answer?signature=abc%2Fdef"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ask(self, kind: str) -> dict[str, Any]:
        """Asks the function as Lambda does. Returns its answer."""
        event = {
            "RequestType": kind,
            "ResponseURL": self.url,
            "StackId": "arn:aws:cloudformation:us-east-1:1:stack/Lexora-dev-Data/1",
            "RequestId": "unique",
            "LogicalResourceId": "Seed",
            "ResourceProperties": {},
        }
        deployed.handler(event, None)
        return self.answers[-1]


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    started = CloudFormation()
    yield started
    started.stop()


class Environment:
    """A table and a bucket, as the function's environment variables name them, and the folder of its zip."""

    def __init__(self, emulator: Emulator, root: Path) -> None:
        self._emulator = emulator
        self.root = root
        self.table = emulator.table(prompt="S", variant="N")
        self.bucket = emulator.bucket()

    def answers(self) -> dict[tuple[str, int], str]:
        items = self._emulator.items(self.table)
        return {(item["prompt"]["S"], int(item["variant"]["N"])): item["response"]["S"] for item in items}

    def model_map(self) -> bytes | None:
        s3 = self._emulator.client("s3")
        try:
            content: bytes = s3.get_object(Bucket=self.bucket, Key=KEY)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return content


@pytest.fixture
def environment(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A fresh environment, and the function in it."""
    shutil.copytree(SHIPPED, tmp_path / "static_responses")
    (tmp_path / "model_map.json").write_text('{"default": true}')
    made = Environment(emulator, tmp_path)
    settings = {"ANSWERS_TABLE": made.table, "CONFIG_BUCKET": made.bucket, "MODEL_MAP_KEY": KEY}
    for name, value in emulator.environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(seeding, "ROOT", tmp_path)
    return made


def test_a_new_environment_gets_the_answers_and_a_model_map(
    environment: Environment, cloudformation: CloudFormation
) -> None:
    answer = cloudformation.ask("Create")
    assert answer["Status"] == "SUCCESS"
    _, answers = load_prepared(SHIPPED)
    assert len(answers) == 50
    assert environment.answers() == answers
    assert environment.model_map() == b'{"default": true}'


def test_an_update_brings_what_has_changed_and_leaves_the_operators_model_map(
    environment: Environment, cloudformation: CloudFormation, emulator: Emulator
) -> None:
    cloudformation.ask("Create")
    emulator.client("s3").put_object(Bucket=environment.bucket, Key=KEY, Body=b"the operator's")
    file = environment.root / "static_responses" / "responses" / "q1_capital" / "3.json"
    file.write_text('{"response": "changed"}')
    (environment.root / "model_map.json").write_text("another default")
    assert cloudformation.ask("Update")["Status"] == "SUCCESS"
    _, answers = load_prepared(SHIPPED)
    assert environment.answers() == {**answers, ("日本の首都はどこですか？", 3): "changed"}
    assert environment.model_map() == b"the operator's"


def test_in_a_checkout_the_model_map_is_where_it_is_kept(
    environment: Environment, cloudformation: CloudFormation
) -> None:
    (environment.root / "infra").mkdir()
    (environment.root / "model_map.json").rename(environment.root / "infra" / "model_map.json")
    assert cloudformation.ask("Create")["Status"] == "SUCCESS"
    assert environment.model_map() == b'{"default": true}'


def test_deleting_it_deletes_nothing(environment: Environment, cloudformation: CloudFormation) -> None:
    cloudformation.ask("Create")
    assert cloudformation.ask("Delete")["Status"] == "SUCCESS"
    assert len(environment.answers()) == 50
    assert environment.model_map() is not None


def test_deleting_what_never_came_about_succeeds(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its creation has failed and the stack is rolled back."""
    monkeypatch.delenv("ANSWERS_TABLE")
    assert cloudformation.ask("Delete")["Status"] == "SUCCESS"


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
def test_an_answer_says_what_it_answers(environment: Environment, cloudformation: CloudFormation, kind: str) -> None:
    answer = cloudformation.ask(kind)
    assert (answer["StackId"], answer["RequestId"], answer["LogicalResourceId"]) == (
        "arn:aws:cloudformation:us-east-1:1:stack/Lexora-dev-Data/1",
        "unique",
        "Seed",
    )
    assert answer["PhysicalResourceId"] == "lexora-seed"  # a change of it would be taken for another resource
    assert answer["path"] == "/answer?signature=abc%2Fdef"


def test_the_answer_fits_the_signature_of_its_address(environment: Environment, cloudformation: CloudFormation) -> None:
    """The address is signed for an empty content type."""
    cloudformation.ask("Delete")
    assert cloudformation.headers[-1]["content-type"] == ""


def test_a_broken_file_is_named(environment: Environment, cloudformation: CloudFormation) -> None:
    (environment.root / "static_responses" / "responses" / "q3_mountain" / "2.json").write_text("{")
    answer = cloudformation.ask("Create")
    assert answer["Status"] == "FAILED"
    assert "q3_mountain/2.json: Input data was truncated" in answer["Reason"]
    assert answer["Reason"].endswith("mend this and deploy again")
    assert environment.answers() == {}


@pytest.mark.parametrize("variable", ["ANSWERS_TABLE", "CONFIG_BUCKET"])
def test_what_is_not_there_is_named(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "nowhere")
    answer = cloudformation.ask("Create")
    assert answer["Status"] == "FAILED"
    assert "nowhere" in answer["Reason"]
    assert answer["PhysicalResourceId"] == "lexora-seed"


def test_a_missing_setting_is_named(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_MAP_KEY")
    answer = cloudformation.ask("Create")
    assert answer["Status"] == "FAILED"
    assert "MODEL_MAP_KEY" in answer["Reason"]


def test_a_broken_import_is_told_too(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lexora.entry.seed", None)
    answer = cloudformation.ask("Create")
    assert (answer["Status"], answer["Reason"].partition(":")[0]) == ("FAILED", "ModuleNotFoundError")


def test_a_long_reason_is_cut(
    environment: Environment, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer above 4096 bytes is none."""
    monkeypatch.setattr(seeding, "load_prepared", lambda _: (_ for _ in ()).throw(OSError("🗻\x00" * 5000)))
    answer = cloudformation.ask("Create")
    assert answer["Status"] == "FAILED"
    assert answer["bytes"] <= 4096
    assert answer["Reason"].endswith("mend this and deploy again")


def test_an_answer_that_cannot_be_given_is_an_error(environment: Environment, cloudformation: CloudFormation) -> None:
    """Lambda then asks again: CloudFormation's calls are asynchronous ones."""
    cloudformation.status = 403
    with pytest.raises(HTTPError):
        cloudformation.ask("Create")
    cloudformation.status = 200
    assert cloudformation.ask("Create")["Status"] == "SUCCESS"


def test_it_needs_nothing_that_the_zip_has_not() -> None:
    code = (
        "import sys, lambdas.seed.handler, lexora.entry.seed; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'yaml', 'xllamacpp', 'uvloop', 'starlette', 'pydantic', 'psutil', 'httpx2'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "[]\n"
