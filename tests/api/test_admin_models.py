"""Load, unload, sleep and wake, through a gateway with an admin's key, on servers that follow the documented APIs."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core import key_admin
from lexora.core.key_admin import NewKey
from lexora.core.model_map import Deployment
from tests.support.gateway import RunningGateway, free_port, models_config, running_gateway
from tests.support.model_servers import LlamaRouter, Ollama, Vllm, running
from tests.support.recorded import wait_until

ADAPTER = "/adapters/sql"


def admins_key(folder: Path, *, admin: bool = True) -> str:
    """The plain text of a new key in the store of the gateway in `folder`."""
    keys = SqliteKeys(folder / "data" / "lexora.db")
    digit = "a" if admin else "b"
    _, plain = key_admin.create(keys, NewKey(user_id="root", admin=admin), 1.0, digit * 12, digit * 43)
    keys.close()
    return plain


@contextmanager
def admin_of(folder: Path, config: dict[str, Any], **more: Any) -> Iterator[httpx2.Client]:
    """A client with an admin's key of a gateway with this config."""
    with running_gateway(folder, config, **more) as gateway:
        headers = {"authorization": f"Bearer {admins_key(folder)}"}
        with httpx2.Client(base_url=gateway.url, headers=headers, timeout=30) as client:
            yield client


def do(client: httpx2.Client, model: str, action: str, **wanted: Any) -> tuple[int, str]:
    """Status, and the state that the model is in, or the error's code."""
    response = client.post(f"/admin/models/{model}/{action}", **({"json": wanted} if wanted else {}))
    body = response.json()
    if response.status_code != 200:
        return response.status_code, body["error"]["code"]
    assert body["model"] == model
    (deployment,) = body["deployments"]
    return 200, deployment["state"]


def states(client: httpx2.Client) -> dict[str, str]:
    return {each["model"]: each["state"] for each in client.get("/admin/models").json()["models"]}


def names(client: httpx2.Client) -> list[str]:
    return [model["id"] for model in client.get("/v1/models").json()["data"]]


def chat(client: httpx2.Client, model: str) -> httpx2.Response:
    return client.post(
        "/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "Say something new."}]}
    )


def own(provider: str, base_url: str, model: str, **more: Any) -> dict[str, Any]:
    return {"provider": provider, "base_url": base_url, "model": model, **more}


def test_ollama_loads_and_unloads(folder: Path) -> None:
    with running(Ollama()) as server:
        config = models_config(
            q=own("ollama", server.base_url, "qwen3:4b"),
            l=own("ollama", server.base_url, "llama3"),
            gone=own("ollama", server.base_url, "gone"),
        )
        with admin_of(folder, config) as client:
            assert states(client) == {"q": "unloaded", "l": "unloaded", "gone": "unloaded"}
            assert do(client, "l", "load") == (200, "loaded")
            assert server.calls == [("/api/generate", {"model": "llama3", "keep_alive": -1, "stream": False})]
            assert states(client) == {"q": "unloaded", "l": "loaded", "gone": "unloaded"}
            assert do(client, "l", "load") == (200, "loaded")
            assert len(server.calls) == 1  # there was nothing to do
            server.lingering = 4
            assert do(client, "l", "unload") == (200, "unloaded")
            assert server.lingering == 0
            assert server.calls[1:] == [("/api/generate", {"model": "llama3", "keep_alive": 0, "stream": False})]
            assert do(client, "gone", "load") == (404, "upstream_error")
            for action in ("sleep", "wake"):
                assert do(client, "q", action) == (400, "operation_not_supported")


def test_llamacpps_router_loads_and_unloads_and_answers_when_it_is_done(folder: Path) -> None:
    with running(LlamaRouter()) as server:
        config = models_config(
            a=own("llamacpp", server.base_url, "first"),
            bad=own("llamacpp", server.base_url, "bad"),
            no=own("llamacpp", server.base_url, "no"),
        )
        with admin_of(folder, config) as client:
            assert states(client) == {"a": "unloaded", "bad": "unloaded", "no": "unloaded"}
            assert do(client, "a", "load") == (200, "loaded")
            assert do(client, "a", "load") == (200, "loaded")
            assert server.calls == [("/models/load", {"model": "first"})]
            assert do(client, "a", "unload") == (200, "unloaded")
            assert do(client, "bad", "load") == (502, "load_failed")
            assert do(client, "no", "load") == (404, "upstream_error")
            assert do(client, "a", "sleep") == (400, "operation_not_supported")
            server.status["a"] = "sleeping"  # as it does by itself, and wakes when it is asked
            assert do(client, "a", "load") == (200, "sleeping")
            server.status["a"] = "loading"
            server.becomes("a", "loaded")
            assert do(client, "a", "load") == (200, "loaded")


def test_a_real_llamacpp_with_one_model_says_so_and_cannot_unload_it(
    gateway: RunningGateway, llamacpp: Deployment
) -> None:
    headers = {"authorization": f"Bearer {admins_key(gateway.folder)}"}
    with httpx2.Client(base_url=gateway.url, headers=headers, timeout=30) as client:
        (model,) = client.get("/admin/models").json()["models"]
        assert model == {
            "model": "tiny-chat",
            "deployment": "llamacpp/tiny-chat",
            "provider": "llamacpp",
            "server": llamacpp.base_url,
            "upstream_model": "tiny-chat",
            "state": "loaded",
            "parent": None,
        }
        assert do(client, "tiny", "load") == (200, "loaded")
        response = client.post("/admin/models/tiny/unload")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "operation_not_enabled")
        assert "--models-dir" in response.json()["error"]["message"]


def test_vllm_sleeps_and_wakes_and_is_sent_nothing_meanwhile(folder: Path) -> None:
    with running(Vllm()) as server, running(Ollama()) as other:
        config = models_config(m=own("vllm", server.base_url, "qwen3"))
        config["models"]["two"] = {
            "aliases": ["org/two"],
            "deployments": [own("vllm", server.base_url, "qwen3"), own("ollama", other.base_url, "llama3")],
        }
        with admin_of(folder, config) as client:
            assert states(client)["m"] == "loaded"
            assert do(client, "m", "sleep") == (200, "sleeping")
            assert server.calls == [("/sleep?level=1", None)]
            refused = chat(client, "m")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_asleep")
            assert chat(client, "org/two").headers["x-lexora-deployment"] == "ollama/llama3"
            assert server.chats == []
            assert client.get("/stats").json()["asleep"] == ["vllm/qwen3"]
            health = client.get("/health")
            assert (health.status_code, health.json()["status"], health.json()["asleep"]) == (200, "degraded", 1)
            counted = re.compile(r'lexora_requests_total\{[^}]*"ollama/llama3"')
            wait_until(lambda: counted.search(client.get("/metrics").text), "the answer to be counted")
            metrics = client.get("/metrics").text
            assert 'lexora_upstream_asleep{deployment="vllm/qwen3"} 1' in metrics
            assert "lexora_failed_attempts_total{" not in metrics  # it was not even tried
            assert do(client, "m", "sleep") == (200, "sleeping")
            assert do(client, "m", "wake") == (200, "loaded")
            assert do(client, "m", "wake") == (200, "loaded")
            assert server.calls[1:] == [("/wake_up", None)]
            assert chat(client, "m").status_code == 200
            assert "asleep" not in client.get("/health").json()


@pytest.mark.parametrize("who", ["the gateway", "somebody else"])
def test_a_vllm_without_its_weights_reads_them_again_when_it_wakes(folder: Path, who: str) -> None:
    with running(Vllm()) as server, admin_of(folder, models_config(m=own("vllm", server.base_url, "qwen3"))) as client:
        if who == "the gateway":
            assert do(client, "m", "sleep", level=2) == (200, "sleeping")
            assert server.calls == [("/sleep?level=2", None)]
        else:
            server.post("/sleep", {"level": ["2"]}, None)
        server.calls.clear()
        assert do(client, "m", "wake") == (200, "loaded")
        assert server.calls == [
            ("/wake_up?tags=weights", None),
            ("/collective_rpc", {"method": "reload_weights"}),
            ("/wake_up?tags=kv_cache", None),
            ("/reset_prefix_cache", None),
        ]
        assert server.weights
        assert do(client, "m", "sleep") == (200, "sleeping")
        server.calls.clear()
        assert do(client, "m", "wake") == (200, "loaded")
        assert server.calls == [("/wake_up", None)]
        server.post("/sleep", {"level": ["2"]}, None)
        assert do(client, "m", "wake") == (200, "loaded")
        assert server.weights


def test_a_vllm_that_somebody_else_puts_to_sleep_is_seen_to(folder: Path) -> None:
    with running(Vllm()) as server, admin_of(folder, models_config(m=own("vllm", server.base_url, "qwen3"))) as client:
        server.asleep = {"weights"}
        wait_until(lambda: client.get("/health").json().get("asleep") == 1, "the sleep to be seen", 15)
        assert chat(client, "m").status_code == 503
        server.asleep = set()
        wait_until(lambda: "asleep" not in client.get("/health").json(), "it to be seen awake", 15)
        assert chat(client, "m").status_code == 200


def test_requests_under_way_are_answered_before_vllm_sleeps(folder: Path) -> None:
    with (
        running(Vllm()) as server,
        admin_of(folder, models_config(m=own("vllm", server.base_url, "qwen3"))) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        server.hold.clear()
        under_way = pool.submit(chat, client, "m")
        wait_until(lambda: server.chats, "the chat")
        sleeps = pool.submit(do, client, "m", "sleep")
        wait_until(lambda: client.get("/stats").json()["asleep"], "the sleep to be under way")
        assert chat(client, "m").status_code == 503
        assert (len(server.chats), server.calls) == (1, [])
        server.hold.set()
        assert under_way.result(10).status_code == 200
        assert sleeps.result(10) == (200, "sleeping")


def test_a_vllm_without_its_developer_mode_says_what_it_needs(folder: Path) -> None:
    with (
        running(Vllm(dev=False, runtime_lora=False)) as server,
        admin_of(folder, models_config(m=own("vllm", server.base_url, "qwen3"))) as client,
    ):
        response = client.post("/admin/models/m/sleep")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "operation_not_enabled")
        assert "VLLM_SERVER_DEV_MODE=1" in response.json()["error"]["message"]
        assert chat(client, "m").status_code == 200  # it is awake
        assert do(client, "m", "wake") == (200, "loaded")
        response = client.post("/admin/models/sql/load", json={"path": ADAPTER, "parent": "m"})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "operation_not_enabled")
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in response.json()["error"]["message"]
        assert do(client, "m", "load") == (200, "loaded")
        assert do(client, "m", "unload") == (400, "operation_not_supported")


def test_adapters_come_and_go_and_are_models_while_they_are_there(folder: Path) -> None:
    with running(Vllm()) as server, running(Vllm()) as other:
        server.adapters["old"] = "/adapters/old"
        base = own("vllm", server.base_url, "qwen3", price={"output": 1000}, name="big")
        config = {
            "models": {
                "base": {"deployments": [base]},
                "else": {"deployments": [own("vllm", other.base_url, "qwen3")]},
            },
            "backends": {"vllm": {"url": server.base_url}},
        }
        with admin_of(folder, config) as client:
            assert names(client) == ["base", "else", "qwen3", "old"]
            assert do(client, "sql", "load", parent="base", path=ADAPTER) == (200, "loaded")
            assert server.calls == [("/v1/load_lora_adapter", {"lora_name": "sql", "lora_path": ADAPTER})]
            assert names(client) == ["base", "else", "qwen3", "old", "sql"]
            listed = {each["model"]: each for each in client.get("/admin/models").json()["models"]}
            assert (listed["sql"]["state"], listed["sql"]["parent"]) == ("loaded", "qwen3")
            assert listed["base"]["parent"] is None
            answer = chat(client, "sql")
            assert (answer.status_code, answer.headers["x-lexora-deployment"]) == (200, "vllm/sql")
            assert server.chats[-1]["model"] == "sql"
            assert float(answer.headers["x-lexora-cost-usd"]) == 0.003  # as of its base model
            assert do(client, "sql", "unload") == (200, "unloaded")
            assert names(client) == ["base", "else", "qwen3", "old"]
            assert do(client, "sql", "unload") == (404, "model_not_found")
            assert do(client, "sql", "load", parent="base", path="/elsewhere") == (404, "upstream_error")
            assert do(client, "sql", "load", parent="nobody", path=ADAPTER) == (404, "model_not_found")
            assert do(client, "base", "sleep") == (200, "sleeping")
            assert do(client, "old", "unload") == (400, "model_asleep")
            assert states(client)["old"] == "sleeping"


def test_an_adapter_that_the_config_names_can_be_loaded_from_its_path(folder: Path) -> None:
    with (
        running(Vllm()) as server,
        admin_of(folder, models_config(sql=own("vllm", server.base_url, "sql"))) as client,
    ):
        assert states(client) == {"sql": "unloaded"}
        response = client.post("/admin/models/sql/load")
        assert (response.status_code, response.json()["error"]["param"]) == (400, "path")
        assert do(client, "sql", "load", path=ADAPTER) == (200, "loaded")


def test_the_models_of_a_server_that_is_away_stay_when_another_gets_an_adapter(folder: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running(Vllm()))
        away = ExitStack()
        ollama = away.enter_context(running(Ollama()))
        config = {"backends": {"vllm": {"url": server.base_url}, "ollama": {"url": ollama.base_url}}}
        client = stack.enter_context(admin_of(folder, config))
        before = ["qwen3:4b", "llama3:latest", "qwen3"]
        assert names(client) == before
        away.close()
        assert do(client, "sql", "load", parent="qwen3", path=ADAPTER) == (200, "loaded")
        assert sorted(names(client)) == sorted([*before, "sql"])


def test_a_server_that_fails(folder: Path) -> None:
    with (
        running(Vllm()) as server,
        admin_of(folder, models_config(m=own("vllm", server.base_url, "qwen3"))) as client,
    ):
        server.broken = (500, {"error": {"message": "CUDA error", "type": "InternalServerError", "code": 500}})
        response = client.post("/admin/models/m/sleep")
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_error")
        assert "vllm/qwen3" in response.json()["error"]["message"]
        assert "CUDA error" in response.json()["error"]["message"]
        assert chat(client, "m").status_code == 200  # it did not go to sleep


def test_a_server_that_repeats_our_credential_does_not_tell_it(folder: Path) -> None:
    with running(Vllm()) as server:
        config = models_config(m=own("vllm", server.base_url, "qwen3", credential="env:OWN_KEY"))
        with admin_of(folder, config, env={"OWN_KEY": "sk-own-secret"}) as client:
            server.broken = (500, {"error": "who is sk-own-secret?"})
            response = client.post("/admin/models/m/sleep")
            assert (response.status_code, "sk-own-secret" in response.text) == (502, False)
            assert "***" in response.text


def test_a_server_that_is_silent_or_not_there(folder: Path) -> None:
    with running(Ollama()) as server:
        silent = own("ollama", server.base_url, "qwen3:4b", timeouts={"total": 0.3})
        dead = own("vllm", f"http://127.0.0.1:{free_port()}/v1", "qwen3")
        with admin_of(folder, models_config(silent=silent, dead=dead)) as client:
            server.hold.clear()
            assert do(client, "silent", "load") == (504, "upstream_timeout")
            assert do(client, "dead", "sleep") == (502, "upstream_unreachable")
            assert states(client) == {"silent": "unloaded", "dead": "unknown"}


CALLS = [("GET", "/admin/models"), *(("POST", f"/admin/models/m/{do}") for do in ("load", "unload", "sleep", "wake"))]


def test_who_may_not_and_what_is_wrong(folder: Path) -> None:
    paid = {"provider": "openai", "model": "gpt", "credential": None, "base_url": "http://127.0.0.1:9/v1"}
    with (
        running(Vllm()) as server,
        admin_of(folder, models_config(m=own("vllm", server.base_url, "qwen3"), paid=paid)) as client,
    ):
        users = admins_key(folder, admin=False)
        for method, path in CALLS:
            url = f"{client.base_url}{path}"
            assert httpx2.request(method, url).status_code == 401
            assert httpx2.request(method, url, headers={"authorization": f"Bearer {users}"}).status_code == 403
        assert do(client, "nobody", "sleep") == (404, "model_not_found")
        assert do(client, "paid", "sleep") == (400, "operation_not_supported")
        assert do(client, "m", "sleep", level=3) == (400, "invalid_value")
        assert do(client, "m", "sleep", depth=1)[0] == 400
        assert client.post("/admin/models/m/sleep", content=b"{}").status_code == 415
        assert client.get("/admin/models/m/sleep").status_code == 405
        assert server.calls == []
        listed = client.get("/admin/models")
        assert (listed.headers["cache-control"], states(client)) == ("no-store", {"m": "loaded"})
