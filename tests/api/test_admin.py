"""The admin API over a real socket and a real file."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Route, Router

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.api.admin import AdminKeys, ReloadEndpoint
from lexora.api.errors import ErrorLayer
from lexora.core import key_admin
from lexora.core.auth import Auth
from lexora.core.key_admin import NewKey
from tests.support.served import served


async def reload() -> str:
    return "3 models"


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[SqliteKeys]:
    with closing(SqliteKeys(tmp_path / "lexora.db")) as store:
        yield store


@pytest.fixture(params=[True, False], ids=["required", "loopback"])
def web(request: pytest.FixtureRequest, keys: SqliteKeys) -> Iterator[httpx2.Client]:
    auth = Auth(keys, None, required=request.param, prepared=False, now=time.time)
    rows = AdminKeys(auth, keys, 10_000).table()
    routes = [Route(path, endpoint, methods=[method]) for method, path, endpoint, _ in rows]
    routes.append(Route("/admin/reload", ReloadEndpoint(auth, reload), methods=["POST"]))
    app = ErrorLayer(Router(routes, redirect_slashes=False).app)
    _, plain = key_admin.create(keys, NewKey(user_id="root", admin=True), time.time(), "a" * 12, "a" * 43)
    bearer = {"authorization": f"Bearer {plain}"}
    with served(app) as url, httpx2.Client(base_url=url, headers=bearer) as client:
        yield client


def test_a_key_from_its_making_to_its_end(web: httpx2.Client, keys: SqliteKeys) -> None:
    made = web.post("/admin/keys", json={"user_id": "ann", "models": ["gpt-*"], "usd_per_month": 9})
    body: dict[str, Any] = made.json()
    assert (made.status_code, made.headers["cache-control"], body["status"]) == (201, "no-store", "active")
    assert body["key"].startswith(f"sk-lexora-{body['id']}-")
    shown = web.get(f"/admin/keys/{body['id']}").json()
    assert shown == {name: value for name, value in body.items() if name != "key"}
    rotated = web.post(f"/admin/keys/{body['id']}/rotate", json={"keep_hours": 1})
    assert (rotated.status_code, rotated.json()["user_id"]) == (201, "ann")
    again = web.post(f"/admin/keys/{rotated.json()['id']}/rotate")
    assert again.status_code == 201
    ended = web.delete(f"/admin/keys/{body['id']}")
    assert (ended.status_code, ended.json()["status"]) == (200, "revoked")
    listed = web.get("/admin/keys")
    assert [key["status"] for key in listed.json()["keys"]] == ["active", "revoked", "revoked", "active"]
    assert not any(key.secret_hash in listed.text for key in keys.all())
    assert body["key"] not in listed.text


CALLS = [("GET", "/admin/keys"), ("POST", "/admin/keys"), ("GET", f"/admin/keys/{'a' * 12}"),
         ("DELETE", f"/admin/keys/{'a' * 12}"), ("POST", f"/admin/keys/{'a' * 12}/rotate"),
         ("POST", "/admin/reload")]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_all_of_it_takes_an_admin(web: httpx2.Client, keys: SqliteKeys, method: str, path: str) -> None:
    _, plain = key_admin.create(keys, NewKey(user_id="ann"), time.time(), "b" * 12, "b" * 43)
    before = keys.all()
    url = f"{web.base_url}{path}"
    statuses = [
        httpx2.request(method, url, headers={"authorization": text} if text else {}).status_code
        for text in ("", "Bearer dummy", f"Bearer {plain}", f"Bearer sk-lexora-{'a' * 12}-{'x' * 43}")
    ]
    assert statuses == [401, 401, 403, 401]
    assert keys.all() == before


def test_what_is_not_there_or_not_right(web: httpx2.Client) -> None:
    assert web.get("/admin/keys/nobody").json()["error"]["code"] == "not_found"
    assert web.delete(f"/admin/keys/{'c' * 12}").status_code == 404
    assert web.post("/admin/keys", json={"user_id": 1}).json()["error"]["param"] == "user_id"
    assert web.post("/admin/keys", content=b'{"user_id": "a"}').status_code == 415
    assert web.post(f"/admin/keys/{'a' * 12}/rotate", json={"keep_hours": -1}).json()["error"]["param"] == "keep_hours"


def test_a_reload_says_what_there_is(web: httpx2.Client) -> None:
    response = web.post("/admin/reload")
    assert (response.status_code, response.json()) == (200, {"status": "reloaded", "detail": "3 models"})


def test_keys_that_cannot_be_written(web: httpx2.Client, keys: SqliteKeys) -> None:
    web.get("/admin/keys")
    keys.close()
    response = web.post("/admin/keys", json={"user_id": "ann"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "auth_unavailable")
    assert response.headers["retry-after"] == "2"
