"""The nginx of phase 1: what it keeps, what it answers from the cache, and what it must not."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
import openai
import pytest

from lexora.entry.model_server import start_model_server
from tests.support.client import HELLO
from tests.support.gateway import ROOT, TINY_CHAT, models_config, running_gateway
from tests.support.nginx import NOBODY, Nginx, nginx_in, status_of
from tests.support.recorded import (
    DONE,
    Close,
    RecordedUpstream,
    Reset,
    Sleep,
    Until,
    completion,
    json_response,
    piece,
    stream,
    token,
    wait_until,
)

PROMPT = "日本の首都はどこですか？"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def _nginx(_upstream: RecordedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx_in(tmp_path_factory.mktemp("nginx")) as nginx:
        nginx.start(address(_upstream))
        yield nginx


@pytest.fixture
def nginx(_nginx: Nginx, upstream: RecordedUpstream) -> Nginx:
    """Empty, and filled from `upstream`, which answers "Hello." unless told otherwise; misses have nobody."""
    upstream.play([json_response(completion())])
    for path in _nginx.cache.rglob("*"):
        if path.is_file():
            path.unlink()
    return _nginx


@pytest.fixture
def own_nginx(tmp_path: Path) -> Iterator[Nginx]:
    """One of the test's own, to be started and stopped."""
    with nginx_in(tmp_path / "nginx") as nginx:
        yield nginx


def address(upstream: RecordedUpstream) -> str:
    return f"127.0.0.1:{upstream.port}"


def chat(text: str = PROMPT, **fields: object) -> bytes:
    """A chat in the bytes of OpenAI's SDK for Python."""
    body = {"messages": [{"role": "user", "content": text}], "model": "m", **fields}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def test_what_was_filled_is_answered_by_the_cache_alone(nginx: Nginx, upstream: RecordedUpstream) -> None:
    filled = nginx.keep(chat(seed=0), authorization="Bearer operator")
    assert upstream.received[0].headers["authorization"] == "Bearer operator"
    assert upstream.received[0].body == chat(seed=0)
    for answer in (
        nginx.fill(chat(seed=0)),
        nginx.ask(chat(seed=0)),
        nginx.ask(chat(seed=0), authorization="Bearer x"),
    ):
        assert status_of(answer) == (200, "HIT")
        assert answer.content == filled.content
    assert len(upstream.received) == 1


def test_a_client_stores_nothing_whoever_it_is(own_nginx: Nginx, upstream: RecordedUpstream) -> None:
    upstream.play([json_response(completion("For Ann."))], [json_response(completion("For Ben."))])
    own_nginx.start(misses=address(upstream))
    answers = [own_nginx.ask(chat(), authorization=f"Bearer {name}") for name in ("ann", "ben")]
    assert [status_of(answer) for answer in answers] == [(200, "MISS")] * 2
    assert ["For Ann." in answers[0].text, "For Ben." in answers[1].text] == [True, True]
    assert [one.headers["authorization"] for one in upstream.received] == ["Bearer ann", "Bearer ben"]
    assert own_nginx.kept() == 0


def test_a_client_sees_a_stream_as_it_comes(own_nginx: Nginx, upstream: RecordedUpstream) -> None:
    go_on = threading.Event()
    head, first, second, last, end = stream(token("Hel"), token("lo"), DONE)
    upstream.play([head, first, Sleep(0.05), second, Until(go_on), last, end])
    own_nginx.start(misses=address(upstream))
    url = f"{own_nginx.url}/v1/chat/completions"
    with httpx2.stream("POST", url, content=chat(stream=True), timeout=30) as response:
        pieces = response.iter_bytes()
        seen = b""
        while b"lo" not in seen:
            seen += next(pieces)
        go_on.set()
        assert b"[DONE]" in b"".join(pieces)
    assert own_nginx.kept() == 0


SAME = [
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2}}',
    f' {{ "seed" : 2 , "model" : "m" ,\n "messages" : [ {{ "content" : "{PROMPT}" , "role" : "user" }} ] }}\n',
    f'{{"model":"m","stream":false,"messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2}}',
]
OTHER = [
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":3}}',
    f'{{"model":"m2","messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT} "}}],"seed":2}}',
    f'{{"model":"m","messages":[{{"role":"system","content":"{PROMPT}"}}],"seed":2}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2,"temperature":0}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2,"stream":true}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2}}}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}},{{"role":"user","content":"x"}}],"seed":2}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"x\\",\\"{PROMPT}"}}],"seed":2}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2,}}',
    f'{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}]"seed":2}}',
    f'{{"model":"m" "messages":[{{"role":"user","content":"{PROMPT}"}}],"seed":2}}',
]


def test_a_chat_is_the_same_however_it_is_written_and_no_other(nginx: Nginx) -> None:
    nginx.keep(chat(seed=2))
    assert [status_of(nginx.ask(body.encode())) for body in SAME] == [(200, "HIT")] * len(SAME)
    assert [status_of(nginx.ask(body.encode())) for body in OTHER] == [(503, "MISS")] * len(OTHER)


def test_any_other_chat_is_kept_under_all_its_bytes(nginx: Nginx, upstream: RecordedUpstream) -> None:
    upstream.play(*([json_response(completion(f"Answer {number}."))] for number in range(len(OTHER))))
    for body in OTHER:
        nginx.keep(body.encode())
    for number, body in enumerate(OTHER):
        assert f"Answer {number}." in nginx.ask(body.encode()).text
    assert nginx.ask(b" " + OTHER[4].encode()).status_code == 503


def test_a_chat_without_a_seed_gets_any_variant(nginx: Nginx, upstream: RecordedUpstream) -> None:
    upstream.play(*([json_response(completion(f"Variant {seed}."))] for seed in range(5)))
    for seed in range(5):
        nginx.keep(chat(seed=seed))
    given = {nginx.ask(chat()).json()["choices"][0]["message"]["content"] for _ in range(100)}
    assert given == {f"Variant {seed}." for seed in range(5)}
    assert nginx.ask(chat(seed=5)).status_code == 503


def test_the_sdk_is_answered_by_the_cache(nginx: Nginx) -> None:
    nginx.keep(chat(seed=4))
    sdk = openai.OpenAI(base_url=f"{nginx.url}/v1", api_key="none", max_retries=0)
    answer = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}], seed=4)
    assert answer.choices[0].message.content == "Hello."
    with pytest.raises(openai.InternalServerError) as raised:
        sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "What else?"}])
    assert (raised.value.status_code, raised.value.code) == (503, "not_prepared")


def test_one_upstream_call_for_many_that_ask_the_same(nginx: Nginx, upstream: RecordedUpstream) -> None:
    go_on = threading.Event()
    upstream.play([Until(go_on), json_response(completion())])
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(nginx.fill, chat(seed=0)) for _ in range(20)]
        upstream.wait_until_received()
        go_on.set()
        answers = [status_of(one.result()) for one in asked]
    assert sorted(answers) == [(200, "HIT")] * 19 + [(200, "MISS")]
    assert len(upstream.received) == 1


WHOLE = json.dumps(completion()).encode()
NOT_KEPT = {
    "an error": [json_response({"error": {"message": "no"}}, "500 Internal Server Error")],
    "a refusal": [json_response({"error": {"message": "no"}}, "400 Bad Request")],
    "cut before its length": [json_response(completion())[:-20], Close()],
    "cut between chunks": [CHUNKED + piece(WHOLE), Close()],
    "reset between chunks": [CHUNKED + piece(WHOLE), Reset()],
    "without an end that can be told": [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + WHOLE, Close()],
    "a stream": stream(token("Hello."), DONE),
    "a page": [b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"],
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_what_is_no_whole_answer_is_not_kept(name: str, nginx: Nginx, upstream: RecordedUpstream) -> None:
    upstream.play(NOT_KEPT[name], [json_response(completion("Better."))])
    try:
        nginx.fill(chat(seed=0))
    except httpx2.RemoteProtocolError:
        assert "cut" in name or "reset" in name
    assert nginx.ask(chat(seed=0)).status_code == 503
    assert "Better." in nginx.keep(chat(seed=0)).text
    assert status_of(nginx.ask(chat(seed=0))) == (200, "HIT")


def test_a_chunked_answer_is_kept_whatever_headers_forbid_it(nginx: Nginx, upstream: RecordedUpstream) -> None:
    forbidden = (
        b"cache-control: no-store\r\nvary: *\r\nset-cookie: a=b\r\nx-accel-buffering: no\r\nx-request-id: theirs\r\n"
    )
    upstream.play([CHUNKED.replace(b"transfer", forbidden + b"transfer") + piece(WHOLE) + b"0\r\n\r\n"])
    filled = nginx.keep(chat(seed=0))
    answer = nginx.ask(chat(seed=0), accept_encoding="gzip", cookie="c=d")
    assert (status_of(answer), answer.content) == ((200, "HIT"), WHOLE)
    assert "set-cookie" not in answer.headers
    assert filled.headers["x-request-id"] == "theirs"
    assert answer.headers["x-request-id"] != "theirs"


def test_large_bodies_are_neither_kept_nor_mixed_up(own_nginx: Nginx, upstream: RecordedUpstream) -> None:
    """They are not in memory, so that every one of them has the same key: none."""
    upstream.play(*([json_response(completion(f"Answer {number}."))] for number in range(5)))
    own_nginx.start(address(upstream), misses=address(upstream))
    bodies = [chat(letter * 30_000, seed=0) for letter in "ab"]
    asked = [own_nginx.fill(bodies[0]), own_nginx.fill(bodies[1]), own_nginx.ask(bodies[0]), own_nginx.ask(b"")]
    assert [f"Answer {number}." in one.text for number, one in enumerate(asked)] == [True] * 4
    assert {status_of(one) for one in asked} == {(200, "BYPASS")}
    assert upstream.received[2].body == bodies[0]
    assert own_nginx.kept() == 0
    largest = chat("c" * 19_000, seed=0)
    own_nginx.keep(largest)
    assert status_of(own_nginx.ask(largest)) == (200, "HIT")
    refused = own_nginx.ask(b"x" * 21_000_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


def test_it_starts_and_answers_without_its_upstream(own_nginx: Nginx, upstream: RecordedUpstream) -> None:
    upstream.play([json_response(completion())])
    own_nginx.start(address(upstream))
    own_nginx.keep(chat(seed=0))
    own_nginx.start(NOBODY)
    assert status_of(own_nginx.ask(chat(seed=0))) == (200, "HIT")
    own_nginx.start("llm.invalid:8000")
    assert status_of(own_nginx.ask(chat(seed=0))) == (200, "HIT")
    assert own_nginx.fill(chat(seed=1)).status_code == 502


def test_what_is_past_its_time_is_given_while_there_is_nothing_newer(
    own_nginx: Nginx, upstream: RecordedUpstream
) -> None:
    models = f"{own_nginx.url}/v1/models"
    upstream.play([json_response(completion("Old."))])
    own_nginx.start(address(upstream), misses=address(upstream), valid="1s")
    own_nginx.keep(chat(seed=0))
    listed = own_nginx.client.get(f"{own_nginx.fill_url}/v1/models")
    upstream.play(NOT_KEPT["an error"], [b"HTTP/1.1 200", Close()], [json_response(completion("New."))])
    # It is good for a second, and nginx counts whole ones.
    wait_until(lambda: status_of(own_nginx.ask(chat(seed=0))) == (200, "STALE"), "an old answer")
    old = own_nginx.ask(chat(seed=0))
    assert (status_of(old), "Old." in old.text) == ((200, "STALE"), True)
    new = own_nginx.ask(chat(seed=0))
    assert (status_of(new), "New." in new.text) == ((200, "EXPIRED"), True)
    assert status_of(own_nginx.client.get(models)) == (200, "EXPIRED")
    own_nginx.start(valid="1s")
    old = own_nginx.ask(chat(seed=0))
    assert (status_of(old), "Old." in old.text) == ((200, "STALE"), True)
    again = own_nginx.client.get(models)
    assert (status_of(again), again.content) == ((200, "STALE"), listed.content)


def test_new_answers_for_old_when_the_operator_says_so(nginx: Nginx, upstream: RecordedUpstream) -> None:
    upstream.play([json_response(completion("Old."))], NOT_KEPT["an error"], [json_response(completion("New."))])
    nginx.keep(chat(seed=0))
    assert nginx.fill(chat(seed=0), cache_control="no-cache").status_code == 500
    assert "Old." in nginx.ask(chat(seed=0), cache_control="no-cache").text
    assert status_of(nginx.fill(chat(seed=0), cache_control="no-cache")) == (200, "BYPASS")
    wait_until(lambda: "New." in nginx.ask(chat(seed=0)).text, "the new answer to be kept")
    assert "cache-control" not in upstream.received[-1].headers  # the gateway would ask a model


def test_the_files_of_phase_3_are_at_their_addresses(nginx: Nginx) -> None:
    folder = ROOT / "static_responses"
    for name in ("catalogue.json", "responses/q1_capital/0.json", "responses/q10_tablespoon/4.json"):
        answer = nginx.client.get(
            f"{nginx.url}/responses/{name.removeprefix('responses/')}", headers={"origin": "https://x"}
        )
        assert answer.content == (folder / name).read_bytes()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "max-age=300" in answer.headers["cache-control"]
    drawn = [nginx.client.get(f"{nginx.url}/responses/q1_capital/random.json") for _ in range(60)]
    files = {path.read_bytes() for path in (folder / "responses" / "q1_capital").iterdir()}
    assert {answer.content for answer in drawn} == files
    assert drawn[0].headers["cache-control"] == "no-store"


def test_a_prompt_with_fewer_answers_has_a_random_one_too(own_nginx: Nginx, tmp_path: Path) -> None:
    for name in ("responses/q1/0.json", "responses/q1/1.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    own_nginx.start(answers=tmp_path)
    drawn = [own_nginx.client.get(f"{own_nginx.url}/responses/q1/random.json") for _ in range(60)]
    assert {(answer.status_code, answer.text[-6:]) for answer in drawn} == {(200, "0.json"), (200, "1.json")}
    assert drawn[0].headers["cache-control"] == "no-store"
    assert own_nginx.client.get(f"{own_nginx.url}/responses/q2/random.json").status_code == 404


@pytest.mark.parametrize("path", ["/responses/q1_capital/5.json", "/responses/../config.yaml", "/admin/keys", "/stats"])
def test_there_is_nothing_else(path: str, nginx: Nginx, upstream: RecordedUpstream) -> None:
    answer = nginx.client.get(nginx.url + path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert nginx.client.get(nginx.fill_url + path).status_code == 404
    assert upstream.received == []


def test_the_log_has_the_cache_status_and_no_word_of_the_client(nginx: Nginx) -> None:
    nginx.keep(chat(seed=0))
    answer = nginx.ask(chat(seed=0), authorization="Bearer secret")
    log = nginx.folder / "access.log"
    wait_until(lambda: answer.headers["x-request-id"] in log.read_text(), "the line of the answer")
    text = log.read_text()
    (line,) = [one for one in map(json.loads, text.splitlines()) if one["requestId"] == answer.headers["x-request-id"]]
    assert (line["cache"], line["status"], line["path"]) == ("HIT", 200, "/v1/chat/completions")
    assert "secret" not in text
    assert PROMPT not in text


def test_hello_is_not_a_prepared_prompt(nginx: Nginx) -> None:
    assert nginx.ask(json.dumps({"messages": [HELLO]}).encode()).json()["error"]["type"] == "service_unavailable"


@contextmanager
def real_llamacpp(folder: Path) -> Iterator[str]:
    """The address of a model server that ends with the block, as that of the other tests must not."""
    server = start_model_server(TINY_CHAT, print)
    try:
        yield server.deployment.base_url.removeprefix("http://").removesuffix("/v1")
    finally:
        server.stop()


@contextmanager
def real_gateway(folder: Path) -> Iterator[str]:
    """The same of a gateway, which has a model in name only, and so nothing but its prepared answers."""
    nobody = {"provider": "vllm", "base_url": f"http://{NOBODY}/v1", "model": "m"}
    with running_gateway(folder / "gateway", models_config(m=nobody)) as gateway:
        yield f"127.0.0.1:{gateway.port}"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("real", [real_llamacpp, real_gateway])
def test_all_50_outlive_their_upstream_and_a_restart(
    real: Callable[[Path], AbstractContextManager[str]], own_nginx: Nginx, tmp_path: Path
) -> None:
    warmup = ROOT / "scripts" / "warmup.sh"
    with real(tmp_path) as upstream:
        own_nginx.start(upstream)
        filled = subprocess.run([warmup, own_nginx.fill_url], capture_output=True, text=True, timeout=300)
        assert filled.returncode == 0, filled.stderr
        assert filled.stdout.count(" filled\n") == 50
    own_nginx.start(upstream)
    assert own_nginx.fill(chat(seed=5)).status_code == 502, "the upstream is gone"

    model = own_nginx.client.get(f"{own_nginx.url}/v1/models").json()["data"][0]["id"]
    prompts = json.loads((ROOT / "static_responses" / "catalogue.json").read_text())["prompts"]
    assert len(prompts) == 10
    for entry in prompts:
        answers = [own_nginx.ask(chat(entry["prompt"], model=model, seed=seed)) for seed in range(5)]
        assert {status_of(answer) for answer in answers} == {(200, "HIT")}
        texts = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
        assert len(set(texts)) == 5
        if real is real_gateway:
            files = [ROOT / "static_responses" / "responses" / entry["id"] / f"{k}.json" for k in range(5)]
            assert texts == [json.loads(file.read_text())["response"] for file in files]
    checked = subprocess.run([warmup, "--check", own_nginx.url], capture_output=True, text=True, timeout=100)
    assert (checked.returncode, checked.stdout.count(" kept\n")) == (0, 50)
