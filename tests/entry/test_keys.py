"""`lexora keys` as operators type it."""

import json
import os
from pathlib import Path

import pytest

from tests.support.command import LEXORA, Ended, run


def keys(folder: Path, *arguments: str) -> Ended:
    return run(LEXORA, "keys", *arguments, "--data", folder)


def test_a_key_from_its_making_to_its_end(tmp_path: Path) -> None:
    data = tmp_path / "data"
    status, out, err = keys(data, "create", "--user", "ann", "--model", "a-*", "--model", "b", "--usd-per-day", "5")
    assert (status, out.count("\n")) == (0, 1), err
    plain = out.strip()
    key_id = plain.split("-")[2]
    assert plain.startswith("sk-lexora-")
    assert plain not in err
    new = keys(data, "rotate", key_id, "--keep-hours", "1").out.split("-")[2]
    assert keys(data, "revoke", key_id).status == 0
    listed = keys(data, "list", "--json")
    assert plain.encode() not in (data / "lexora.db").read_bytes()
    assert (data / "lexora.db").stat().st_mode & 0o077 == 0
    assert "secret_hash" not in listed.out
    found = {key["id"]: key for key in json.loads(listed.out)}
    assert {name: key["status"] for name, key in found.items()} == {key_id: "revoked", new: "active"}
    assert (found[new]["models"], found[new]["limits"]["usd_per_day"]) == (["a-*", "b"], 5)
    assert "a-*,b" in keys(data, "list").out


@pytest.mark.parametrize(("arguments", "what"), [
    (("create", "--user", ""), "--user"), (("create", "--user", "a", "--usd-per-day", "nan"), "--usd-per-day"),
    (("create", "--user", "a", "--tokens-per-minute=-1"), "--tokens-per-minute"),
    (("create", "--user", "a", "--expires-days", "0"), "--expires-days"), (("revoke", "nobody"), "no key 'nobody'"),
    (("list",), "no keys in"), (("create", "--user", "a", "--config", "/nowhere.yaml"), "/nowhere.yaml"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
    if arguments[0] == "revoke":
        keys(tmp_path, "create", "--user", "ann")
    status, out, err = keys(tmp_path, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert what in err


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT CHECKED: only root can give a folder to another user")
def test_root_makes_no_file_that_the_service_could_not_write_to(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 12345, 12345)
    status, out, err = keys(data, "create", "--user", "ann")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "sudo -u '#12345' lexora keys" in err
    assert not list(data.iterdir())
    # Once the service has made it, root may: nothing changes its owner.
    keys(tmp_path / "other", "create", "--user", "ann")
    (tmp_path / "other" / "lexora.db").rename(data / "lexora.db")
    os.chown(data / "lexora.db", 12345, 12345)
    assert keys(data, "create", "--user", "bob").status == 0
    assert {file.stat().st_uid for file in data.iterdir()} == {12345}
