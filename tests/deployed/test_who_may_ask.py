"""Who may ask a deployed environment that wants to know: `blue`, which is deployed with the settings' defaults."""

import openai
import pytest

from tests.deployed.test_chat import CAPITAL, CAPITALS, EVERY_DOOR, HELLO
from tests.support.client import bearer
from tests.support.deployment import Environment

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def key(blue: Environment) -> str:
    return blue.make_key("--user", "ann", "--requests-per-minute", "1000")


@EVERY_DOOR
def test_a_model_answers_who_has_a_key(blue: Environment, key: str, door: str) -> None:
    with blue.sdk(door) as client:
        raw = client.with_options(api_key=key).chat.completions.with_raw_response.create(
            model="open", messages=HELLO, max_tokens=8
        )
    assert raw.headers["x-lexora-origin"] == "own"
    assert raw.headers["x-ratelimit-limit-requests"] == "1000"
    record = blue.record(raw.headers["x-request-id"])
    assert (record["user_id"], record["tokens_out"]) == ("ann", "8")
    assert key.startswith(f"sk-lexora-{record['key_id']}-")


@EVERY_DOOR
def test_nobody_else_gets_a_model_but_a_prepared_answer(blue: Environment, key: str, door: str) -> None:
    for wrong in ("none", key[:-1] + ("a" if key[-1] != "a" else "b")):
        with blue.sdk(door) as client, pytest.raises(openai.AuthenticationError) as refused:
            client.with_options(api_key=wrong).chat.completions.create(model="open", messages=HELLO)
        assert refused.value.code == "invalid_api_key"
    with blue.sdk(door) as client:
        answer = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": CAPITAL}])
    assert answer.choices[0].message.content in CAPITALS


@EVERY_DOOR
def test_keys_are_made_and_ended_by_an_admin(blue: Environment, key: str, door: str) -> None:
    admin = bearer(blue.make_key("--user", "root", "--admin"))
    with blue.client(door) as client:
        assert client.get("/admin/keys", headers=bearer(key)).status_code == 403
        made = client.post("/admin/keys", headers=admin, json={"user_id": "bob"}).json()
        ended = client.delete(f"/admin/keys/{made['id']}", headers=admin).json()
        assert ended["status"] == "revoked"
        body = {"model": "open", "messages": HELLO}
        assert client.post("/v1/chat/completions", headers=bearer(made["key"]), json=body).status_code == 401
