"""`lexora answers publish` and `rollback` on a deployed environment: no deploy, and no reader sees a mixture."""

import json
import shutil
import sys
import threading
from pathlib import Path

import pytest

from lexora.core.versions import CATALOGUE_PATH, Version
from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.answers_place import invalidated
from tests.support.command import Ended, make_command, run
from tests.support.deployment import Environment
from tests.support.emulator import Emulator

pytestmark = pytest.mark.timeout(600)
OLD = Version.of(*load_prepared(SHIPPED))
CAPITAL = "日本の首都はどこですか？"


def lexora(emulator: Emulator, action: str, *arguments: str | Path) -> Ended:
    """As operators type it: `make answers`."""
    command = make_command(
        "-o", f"{sys.prefix}/aws", "answers", "ENV=blue", f"ARGS={action} {' '.join(map(str, arguments))}"
    )
    return run(*command, env=emulator.environment())


def test_what_is_published_is_read_at_once_and_whole(blue: Environment, emulator: Emulator, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "answers"))
    for id_ in ("q1_capital", "q3_mountain"):
        for number, text in enumerate(OLD.answers[id_]):
            content = json.dumps({"response": f"改めてお答えします。{text}"})
            (folder / "responses" / id_ / f"{number}.json").write_text(content)
    catalogue = json.loads((folder / "catalogue.json").read_text())
    catalogue["prompts"][0]["aliases"].append("都はどこ？")
    (folder / "catalogue.json").write_text(json.dumps(catalogue))
    new = Version.of(*load_prepared(folder))
    changed = [CATALOGUE_PATH]
    changed += [f"/responses/{id_}/{k}.json" for id_ in ("q1_capital", "q3_mountain") for k in range(5)]
    old_files, new_files = OLD.files(), new.files()
    done, seen = threading.Event(), []

    def read() -> None:
        with blue.client("cdn") as client:
            while not done.is_set():
                for path in changed:
                    content = client.get(path).content
                    assert content in (old_files[path], new_files[path])
                    seen.append(content == new_files[path])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        published = lexora(emulator, "publish", "--folder", folder, "--yes", "-m", "test")
        with blue.client("cdn") as client:
            for path, content in new_files.items():
                assert client.get(path).content == content, published.err
    finally:
        done.set()
        reader.join()
    assert published.status == 0, published.err
    assert seen == sorted(seen), "an old answer was read after a new one"
    assert not seen[0]
    assert blue.answers() == new.items()
    with blue.client("chat") as client:
        asked = client.post(
            "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": CAPITAL}]}
        )
    assert asked.json()["choices"][0]["message"]["content"] in new.answers["q1_capital"]
    cloudfront = emulator.client("cloudfront")
    assert invalidated(cloudfront, blue.outputs["DistributionId"]) == [changed]

    back = lexora(emulator, "rollback", "--yes")
    assert back.status == 0, back.err
    with blue.client("cdn") as client:
        for path, content in old_files.items():
            assert client.get(path).content == content
    assert blue.answers() == OLD.items()
    assert lexora(emulator, "diff", "--folder", SHIPPED, "--exit-code").status == 0


def test_files_lie_in_the_bucket_under_their_public_paths(blue: Environment, emulator: Emulator) -> None:
    s3, bucket = emulator.client("s3"), blue.outputs["SiteBucketName"]
    for path, content in OLD.files().items():
        assert s3.get_object(Bucket=bucket, Key=path.removeprefix("/"))["Body"].read() == content
