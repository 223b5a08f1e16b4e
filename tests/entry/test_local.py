"""The gateway as it is started, reloaded and stopped."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lexora import __version__
from lexora.entry.prepared import SHIPPED
from tests.support.client import sdk
from tests.support.collector import attributes, running_collector
from tests.support.command import LEXORA, make_command, refusal, run
from tests.support.fake_server import fake_server
from tests.support.gateway import (
    ROOT,
    TINY_CHAT,
    RunningGateway,
    clean_environment,
    free_port,
    models_config,
    running_gateway,
    serving,
)
from tests.support.recorded import (
    DONE,
    STREAM_HEAD,
    Reset,
    Sleep,
    completion,
    finish,
    json_response,
    piece,
    recorded_upstream,
    stream,
    token,
)

CAPITAL = {"messages": [{"role": "user", "content": "日本の首都は？"}]}
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
USUAL_PORTS = (8000, 8080, 11434)


def taken(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return True
    return False


# Whoever runs the tests may run a model server as well.
needs_usual_ports = pytest.mark.skipif(any(map(taken, USUAL_PORTS)), reason="port 8000, 8080 or 11434 is taken")


def test_what_it_keeps_is_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with running_gateway(tmp_path, {"models": {}, "responses": {"store": True}}):
            modes = {
                path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data", *(tmp_path / "data").iterdir())
            }
    finally:
        os.umask(before)
    assert {"data", "lexora.db", "responses.db", "journal.jsonl"} <= modes.keys()
    assert not any(modes.values()), modes


def wait_for(condition: Callable[[], Any], seconds: float = 5, step: float = 0.02) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(step)
    return found


def chat(gateway: RunningGateway, **fields: Any) -> httpx2.Response:
    return httpx2.post(f"{gateway.url}/v1/chat/completions", json={**HELLO, **fields}, timeout=10)


def deployment(url: str, **fields: Any) -> dict[str, Any]:
    return {"provider": "vllm", "base_url": url, "model": "up", **fields}


# --- starting ---------------------------------------------------------------------------------------------------------


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = " ".join(re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))
    assert targets == set(phony.split())
    for command in (make_command("help"), make_command()):
        status, out, err = run(*command)
        assert (status, err) == (0, "")
        listed = dict(re.findall(r"^  make ([a-z-]+) +(\S.+)$", out, re.MULTILINE))
        assert set(listed) == targets
        assert len(out.splitlines()) == len(listed)


def test_make_run_hands_its_variables_on(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    model = folder / "my model.gguf"
    model.symlink_to(TINY_CHAT)
    config = folder / "my config.yaml"
    config.write_text(yaml.safe_dump({"server": {"port": 1}, **models_config(m=deployment("http://127.0.0.1:9/v1"))}))
    variables = (f"PORT={port}", f"CONFIG={config}", f"MODEL={model}", f"DATA={folder / 'my data'}", "HOST=127.0.0.1")
    with serving(make_command("run", *variables), port, tmp_path) as gateway:
        models = [model["id"] for model in httpx2.get(f"{gateway.url}/v1/models").json()["data"]]
        assert models == ["my model", "m"]
        assert (folder / "my data" / "lexora.db").exists()
        assert f"Lexora {__version__}  {gateway.url}" in gateway.stderr
        assert httpx2.post(f"{gateway.url}/v1/chat/completions", json=CAPITAL).status_code == 200
        wait_for(gateway.log_lines)  # nothing but the log on stdout, make's own words included
        gateway.stop(signal.SIGTERM)
        wait_for(lambda: not taken(port))


def test_make_run_ends_with_the_status_of_the_gateway(tmp_path: Path) -> None:
    status, _, err = run(*make_command("run", "CONFIG=/nowhere.yaml", f"DATA={tmp_path}"))
    assert status == 2
    assert "lexora: /nowhere.yaml: cannot be read: No such file or directory\n" in err


def test_the_module_starts_the_service_of_lexora_config(tmp_path: Path) -> None:
    port = free_port()
    config = {"server": {"port": port}, "data": "kept here", **models_config(m=deployment("http://127.0.0.1:9/v1"))}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {"LEXORA_CONFIG": str(tmp_path / "config.yaml")}
    with serving((sys.executable, "-m", "lexora.main"), port, tmp_path, env=environment) as gateway:
        assert [model["id"] for model in httpx2.get(f"{gateway.url}/v1/models").json()["data"]] == ["m"]
        assert (tmp_path / "kept here" / "lexora.db").exists()
        assert gateway.stop(signal.SIGTERM) == 0


def test_the_command_line_goes_before_the_config_and_the_config_before_the_environment(tmp_path: Path) -> None:
    for name in ("file", "environment"):
        config = {"server": {"host": "192.0.2.1", "port": 1}, "data": "unused"}
        config |= models_config(**{name: deployment("http://127.0.0.1:9/v1")})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [str(LEXORA), "serve", "--config", str(tmp_path / "file.yaml"), "--host", "localhost"]
    command += ["--port", str(port), "--data", str(tmp_path / "used")]
    environment = {"LEXORA_CONFIG": str(tmp_path / "environment.yaml")}
    with serving(command, port, tmp_path, env=environment) as gateway:
        assert httpx2.get(f"http://localhost:{port}/health").json()["model"] == "file"
        assert gateway.process.poll() is None
    assert (tmp_path / "used" / "lexora.db").exists()
    assert not (tmp_path / "unused").exists()


def test_without_a_data_folder_data_lies_in_data(tmp_path: Path) -> None:
    port = free_port()
    command = (str(LEXORA), "serve", "--port", str(port), "--config", "/dev/null")
    with serving(command, port, tmp_path, working_folder=tmp_path) as gateway:
        assert (tmp_path / "data" / "lexora.db").exists()
        assert str(tmp_path / "data" / "lexora.db") in gateway.stderr


def test_the_command_explains_itself() -> None:
    assert run(LEXORA, "--version") == (0, f"lexora {__version__}\n", "")
    for command, flags in (("serve", ("--host", "--port", "--config", "--model", "--data")), ("reload", ("--data",))):
        status, out, _ = run(LEXORA, command, "--help")
        assert status == 0
        assert all(flag in out for flag in flags)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: command"),
        (("run",), "invalid choice: 'run'"),
        (("serve", "--prot", "80"), "unrecognized arguments: --prot 80"),
        (("serve", "--port", "0"), "'0' is not a port; give a number from 1 to 65535"),
        (("serve", "--port", "65536"), "'65536' is not a port; give a number from 1 to 65535"),
        (("serve", "--port", "http"), "'http' is not a port; give a number from 1 to 65535"),
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: tuple[str, ...], said: str) -> None:
    status, out, err = run(LEXORA, *arguments)
    assert (status, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


# --- what must be mended first ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("server:\n  prot: 80\n", ":2: server.prot: unknown key; did you mean 'port'?"),
        ("server:\n  port: eighty\n", ":2: server.port: input should be a valid integer"),
        ("server: {port: 80\n", ":2: not valid YAML: expected ',' or '}'"),
        (
            "models:\n  chat:\n    deployments:\n      - {provider: vlm, model: x}\n",
            ":4: models.chat.deployments[0].provider: unknown provider 'vlm'; did you mean 'vllm'?",
        ),
        ("backends:\n  vlm: {url: 'http://a'}\n", ":2: backends.vlm: unknown provider 'vlm'; a backend is one of"),
        (
            "models: {a: &a {deployments: [{provider: vllm, model: x}]}, b: {<<: *a, aliases: [a]}}\n",
            ": models.b.aliases[0]: 'a' already names model 'a'",
        ),
    ],
)
def test_a_wrong_config_is_one_line_and_status_2(tmp_path: Path, config: str, said: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(config)
    assert refusal("--config", file, "--data", tmp_path / "data").startswith(f"{file}{said}")
    assert not (tmp_path / "data").exists()


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nope.yaml"
    assert refusal("--config", file) == f"{file}: cannot be read: No such file or directory"
    assert refusal(env={"LEXORA_CONFIG": str(file)}) == f"{file}: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"models": {"a": {"deployments": [{"provider": "openai", "model": "gpt-5"}]}}},
            "models.a.deployments[0].credential: the environment variable OPENAI_API_KEY is not set; set it to ",
        ),
        ({"model_map": "maps/none.json"}, "{folder}/maps/none.json: cannot be read: No such file or directory"),
        (
            {"model_map": "bad.json"},
            "{folder}/bad.json: models.a.deployments[0].weight: input should be greater than 0",
        ),
        ({"model_map": "config.yaml"}, "{folder}/config.yaml: not valid JSON: Expecting value: line 1 column 1"),
        ({"answers": "none"}, "{folder}/none/catalogue.json: cannot be read: No such file or directory"),
    ],
)
def test_what_a_config_leads_to_is_checked_as_well(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    bad = {"models": {"a": {"deployments": [{"provider": "vllm", "model": "x", "weight": 0}]}}}
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    arguments = ("--config", tmp_path / "config.yaml", "--data", tmp_path / "data", "--port", str(free_port()))
    assert refusal(*arguments).startswith(said.format(folder=tmp_path))


def test_a_port_in_use_is_named_with_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refusal("--port", str(port), "--data", tmp_path, "--config", "/dev/null") == (
            f"port {port} on 127.0.0.1 is in use; stop what listens there, or choose another port: PORT={port + 1}"
        )


def test_of_two_gateways_that_start_at_once_one_is_refused(tmp_path: Path) -> None:
    """Both may bind the port, as long as neither listens."""
    port = free_port()
    command = [str(LEXORA), "serve", "--port", str(port), "--config", str(tmp_path / "config.yaml")]
    with recorded_upstream([Sleep(float("inf"))]) as silent, contextlib.ExitStack() as files:
        # They look for it for a second, having bound the port and not listening yet.
        (tmp_path / "config.yaml").write_text(f"backends: {{vllm: {{url: '{silent.base_url}'}}}}")
        both = [
            subprocess.Popen(
                [*command, "--data", str(tmp_path / f"data of {name}")],
                stdout=subprocess.DEVNULL,
                stderr=files.enter_context((tmp_path / name).open("w")),
                env=clean_environment(),
            )
            for name in ("a", "b")
        ]
        try:
            loser = wait_for(lambda: next((process for process in both if process.poll() is not None), None), 20)
            (winner,) = (process for process in both if process is not loser)
            assert loser.returncode == 2
            said = [(tmp_path / name).read_text() for name in ("a", "b")]
            assert said[both.index(loser)].startswith(f"lexora: port {port} on 127.0.0.1 is in use; ")
            wait_for(lambda: taken(port))
            winner.terminate()
            assert winner.wait(20) == 0
        finally:
            for process in both:
                process.kill()
                process.wait()


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "cannot listen on 192.0.2.1:"), ("nobody.invalid", "cannot listen on nobody.invalid:")],
)
def test_a_host_that_is_not_this_one_is_named(tmp_path: Path, host: str, said: str) -> None:
    line = refusal("--host", host, "--data", tmp_path, "--config", "/dev/null")
    assert line.startswith(said)
    assert line.endswith("; choose another HOST or PORT")


@pytest.mark.parametrize("case", ["below a file", "no database"])
def test_a_data_folder_that_cannot_be_used_is_named(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "data"
    if case == "below a file":
        folder.write_text("a file")
    else:
        folder.mkdir()
        (folder / "lexora.db").write_text("This is a text that is long enough to be looked at as a database." * 20)
    line = refusal("--data", folder, "--port", str(free_port()), "--config", "/dev/null")
    assert line.startswith("the data cannot be kept: ")
    assert str(folder) in line
    assert line.endswith("; choose another folder with DATA=dir")


def test_a_model_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    arguments = ("--data", tmp_path / "data", "--config", "/dev/null")
    missing, text, cut = tmp_path / "none.gguf", tmp_path / "text.gguf", tmp_path / "cut.gguf"
    text.write_text("This is no model.")
    cut.write_bytes(TINY_CHAT.read_bytes()[:500_000])
    for model, said in (
        (missing, "the model cannot be read: No such file or directory"),
        (text, "is not a GGUF model; give a file that ends in .gguf"),
        (cut, "llama.cpp could not load the model; the file may be cut or too new"),
    ):
        assert refusal("--model", model, "--port", str(free_port()), *arguments) == f"{model}: {said}"


# --- without a config -------------------------------------------------------------------------------------------------


@needs_usual_ports
def test_with_nothing_found_prepared_answers_work_and_anything_else_says_how_to_connect(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        assert "none connected: prepared answers only" in gateway.stderr
        assert httpx2.get(f"{gateway.url}/health").json()["models"] == 0
        answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=CAPITAL)
        assert (answer.status_code, answer.headers["x-lexora-origin"]) == (200, "fixed")
        for fields in ({}, {"model": "gpt-5"}, {"stream": True}):
            refused = chat(gateway, **fields)
            assert refused.status_code == 503
            error = refused.json()["error"]
            assert (error["type"], error["code"]) == ("service_unavailable", "no_model_connected")
            for way in ("8000", "11434", "8080", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MODEL=", "CONFIG="):
                assert way in error["message"]
        assert gateway.record_of(refused.headers["x-request-id"])["status"] == 503


@needs_usual_ports
@pytest.mark.parametrize(("provider", "port"), [("vllm", 8000), ("ollama", 11434), ("llamacpp", 8080)])
def test_a_server_on_its_usual_port_is_found(tmp_path: Path, provider: str, port: int) -> None:
    with fake_server("my-model", port=port, text="found") as server, running_gateway(tmp_path) as gateway:
        assert f"my-model  ->  {provider} http://localhost:{port}/v1 (own)" in gateway.stderr
        answer = chat(gateway)
        assert answer.json()["choices"][0]["message"]["content"] == "found"
        assert answer.headers["x-lexora-deployment"] == f"{provider}/my-model"
        assert [request["model"] for request in server.chats] == ["my-model"]


@needs_usual_ports
def test_keys_in_the_environment_connect_their_providers(tmp_path: Path) -> None:
    with fake_server("gpt-5", "whisper-1") as openai, fake_server("claude-sonnet-5-5") as anthropic:
        environment = {
            "OPENAI_API_KEY": "sk-openai",
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "ANTHROPIC_API_KEY": "sk-ant",
            "ANTHROPIC_BASE_URL": anthropic.url,
        }
        with running_gateway(tmp_path, env=environment) as gateway:
            assert f"gpt-5  ->  openai {openai.url}/v1 (paid)" in gateway.stderr
            assert f"claude-sonnet-5-5  ->  anthropic {anthropic.url}/v1 (paid)" in gateway.stderr
            answer = chat(gateway, model="gpt-5")
            assert (answer.headers["x-lexora-origin"], answer.json()["model"]) == ("paid", "gpt-5")
            # 7 tokens at the list's $1.25 a million, 3 at $10
            assert answer.headers["x-lexora-cost-usd"] == "0.000038750"
            assert gateway.record_of(answer.headers["x-request-id"])["cost_usd"] == pytest.approx(0.00003875)
            unlisted = chat(gateway, model="gpt-99")
            assert "x-lexora-cost-usd" not in unlisted.headers
            assert gateway.record_of(unlisted.headers["x-request-id"])["cost_usd"] is None
            assert chat(gateway, model="claude-sonnet-5-5").status_code == 502  # the fake is no Anthropic
            assert [(path, headers["authorization"]) for path, headers in openai.asked] == [
                ("/v1/models", "Bearer sk-openai"),
                ("/v1/chat/completions", "Bearer sk-openai"),
                ("/v1/chat/completions", "Bearer sk-openai"),
            ]
            assert [(path, headers["x-api-key"]) for path, headers in anthropic.asked] == [
                ("/v1/models", "sk-ant"),
                ("/v1/messages", "sk-ant"),
            ]
            assert "sk-openai" not in gateway.stderr + gateway.stdout
            assert "sk-ant" not in gateway.stderr + gateway.stdout


# --- with a config ----------------------------------------------------------------------------------------------------

SAMPLE = (ROOT / "tests" / "recorded" / "lexora_config.yaml").read_text()


@pytest.mark.skipif(taken(8000), reason="port 8000 is taken")
def test_the_sample_serves_its_vllm_as_it_stands(tmp_path: Path) -> None:
    """To the letter, but for the port, which the command line gives."""
    by_path = {"id": "/models/qwen3-32b", "object": "model", "owned_by": "vllm", "root": "/models/qwen3-32b"}
    with fake_server(by_path, port=8000) as vllm, running_gateway(tmp_path, SAMPLE) as gateway:
        assert "qwen3-32b  ->  vllm http://localhost:8000/v1 (own)" in gateway.stderr
        assert "a model needs one: lexora keys create" in gateway.stderr  # host 0.0.0.0
        assert [model["id"] for model in httpx2.get(f"{gateway.url}/v1/models").json()["data"]] == ["qwen3-32b"]
        assert chat(gateway).json()["error"]["code"] == "invalid_api_key"
        make_key = (sys.executable, "-m", "lexora.main", "keys", "create", "--user", "takahito")
        made = subprocess.run([*make_key, "--data", str(tmp_path / "data")], capture_output=True, text=True, check=True)
        key = {"authorization": f"Bearer {made.stdout.strip()}"}
        for fields in ({}, {"model": "qwen3-32b"}):
            answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json={**HELLO, **fields}, headers=key)
            assert answer.headers["x-lexora-origin"] == "own"
            assert answer.headers["x-ratelimit-limit-requests"] == "60"  # the sample's, for this user
            assert answer.headers["x-ratelimit-limit-tokens"] == "100000"
            assert gateway.record_of(answer.headers["x-request-id"])["user_id"] == "takahito"
        metrics = httpx2.get("http://127.0.0.1:9090/metrics").text
        assert 'lexora_requests_total{deployment="vllm//models/qwen3-32b"' in metrics
        assert httpx2.get(f"{gateway.url}/metrics").status_code == 401
        assert [request["model"] for request in vllm.chats] == ["/models/qwen3-32b"] * 2


def sample_gateway(folder: Path) -> AbstractContextManager[RunningGateway]:
    """The sample where no key is needed."""
    return running_gateway(folder / "b", SAMPLE, arguments=("--host", "127.0.0.1"))


def found(gateway: RunningGateway) -> list[str]:
    return [line["message"] for line in gateway.log_lines() if line["message"].startswith("found")]


def test_where_others_come_through_a_proxy_models_need_a_key(tmp_path: Path) -> None:
    with fake_server("up") as server:
        models = models_config(m=deployment(f"{server.url}/v1"))
        config = {**models, "server": {"allowed_hosts": ["llm.example"]}}
        with running_gateway(tmp_path / "gateway", config) as gateway:
            assert "a model needs one: lexora keys create" in gateway.stderr
            assert chat(gateway).status_code == 401
            assert chat(gateway, **CAPITAL).status_code == 200
            # The names are read at the start only, and so they hold.
            (gateway.folder / "config.yaml").write_text(yaml.safe_dump(models))
            gateway.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "reloaded" in gateway.stdout)
            assert chat(gateway).status_code == 401
            (gateway.folder / "config.yaml").write_text(yaml.safe_dump({**config, "auth": {"required": False}}))
            gateway.process.send_signal(signal.SIGHUP)
            wait_for(lambda: gateway.stdout.count("reloaded") == 2)
            assert chat(gateway).status_code == 200


@needs_usual_ports
def test_a_server_that_comes_up_later_is_found_within_seconds(tmp_path: Path) -> None:
    """By a gateway without a config, and by one with the sample, whose model is there and unreachable meanwhile."""
    with running_gateway(tmp_path / "a") as without, sample_gateway(tmp_path) as sample:
        assert chat(without).json()["error"]["code"] == "no_model_connected"
        assert chat(sample).json()["error"]["code"] == "upstream_unreachable"
        with fake_server({"id": "served", "root": "/models/qwen3-32b"}, port=8000) as vllm:
            wait_for(lambda: found(without) and found(sample), 7, 0.1)
            assert found(without) == ["found upstreams: served"]
            assert found(sample) == ["found upstreams: qwen3-32b"]
            assert [chat(gateway).status_code for gateway in (without, sample)] == [200, 200]
            assert [request["model"] for request in vllm.chats] == ["served", "served"]
            circuits = httpx2.get(f"{sample.url}/stats").json()["circuits"]
            assert list(circuits) == ["vllm/served"]  # and no more under the path, by which nobody goes


def test_weights_prices_and_fallbacks_are_those_of_the_model_map(tmp_path: Path) -> None:
    with fake_server(text="a") as first, fake_server(text="b") as second:
        priced = {"price": {"input": 2, "output": 8}}
        deployments = [
            deployment("http://127.0.0.1:9/v1", name="down", weight=1),
            deployment(f"{first.url}/v1", name="first", weight=3, **priced),
            deployment(f"{second.url}/v1", name="second", weight=1),
            deployment("http://127.0.0.1:9/v1", name="spare"),
        ]
        (tmp_path / "model_map.json").write_text(json.dumps({"models": {"m": {"deployments": deployments}}}))
        with running_gateway(tmp_path, {"model_map": "model_map.json"}) as gateway:
            with httpx2.Client(base_url=gateway.url) as client:
                answers = [client.post("/v1/chat/completions", json=HELLO) for _ in range(300)]
            shares = Counter(answer.headers["x-lexora-deployment"] for answer in answers)
            costs = {answer.headers["x-lexora-deployment"]: answer.headers["x-lexora-cost-usd"] for answer in answers}
            records = {record["request_id"]: record for record in wait_for(lambda: _when_all(gateway, 300))}
    assert {answer.status_code for answer in answers} == {200}
    # Of `down` it is known that it is, and `first` takes its place: 4 to 1 in the end.
    assert set(shares) == {"first", "second"}
    assert 210 <= shares["first"] <= 270  # five standard deviations from 240
    assert costs == {"first": "0.000038000", "second": "0"}  # 7 tokens in, 3 out
    for answer in answers:
        record = records[answer.headers["x-request-id"]]
        assert record["cost_usd"] == pytest.approx(float(answer.headers["x-lexora-cost-usd"]))
        assert (record["tokens_in"], record["tokens_out"], record["usage_estimated"]) == (7, 3, 0)


def _when_all(gateway: RunningGateway, count: int) -> list[dict[str, Any]]:
    records = gateway.records()
    return records if len(records) >= count else []


def test_the_log_holds_the_users_words_or_not_as_configured(tmp_path: Path) -> None:
    config = {"logging": {"message_text": False}, **models_config(m=deployment("http://127.0.0.1:9/v1"))}
    with running_gateway(tmp_path, config) as gateway:
        for request in (CAPITAL, HELLO, {**HELLO, "n": 0}):
            response = httpx2.post(f"{gateway.url}/v1/chat/completions", json=request)
            line = gateway.log_line_of(response.headers["x-request-id"])
            assert "latestUserMessage" not in line
            assert "contextTailPreview" not in line
        gateway.stop()
        written = gateway.stdout + gateway.stderr.partition("try it")[0]
        assert "首都" not in written
        assert "Hello" not in written
        assert b"Hello" not in b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())


def test_the_log_has_the_configured_level(tmp_path: Path) -> None:
    config = {"logging": {"level": "ERROR"}, **models_config(m=deployment("http://127.0.0.1:9/v1"))}
    with running_gateway(tmp_path, config) as gateway:
        httpx2.post(f"{gateway.url}/v1/chat/completions", json=CAPITAL)
        httpx2.post(f"{gateway.url}/v1/chat/completions", json={})
        failed = chat(gateway)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log_line_of(failed.headers["x-request-id"])
        gateway.stop()
        assert [line["level"] for line in gateway.log_lines()] == ["ERROR"]


# --- reloading --------------------------------------------------------------------------------------------------------


@contextmanager
def with_answers(folder: Path) -> Iterator[RunningGateway]:
    """A gateway with answers of its own in `folder`/answers."""
    shutil.copytree(SHIPPED, folder / "answers")
    with running_gateway(folder, {"answers": "answers", "data": "data"}) as gateway:
        yield gateway


def answer_of(gateway: RunningGateway) -> tuple[str, set[str]]:
    """The first variant's text by its path, and what chats are answered."""
    path = httpx2.get(f"{gateway.url}/responses/q1_capital/0.json").json()["response"]
    with httpx2.Client(base_url=gateway.url) as client:
        chats = [client.post("/v1/chat/completions", json=CAPITAL).json() for _ in range(60)]
    return path, {answer["choices"][0]["message"]["content"] for answer in chats}


def _by_signal(gateway: RunningGateway) -> None:
    gateway.process.send_signal(signal.SIGHUP)


def _by_command(gateway: RunningGateway) -> None:
    assert run(LEXORA, "reload", "--data", gateway.folder / "data") == (0, "", "")


def _by_make(gateway: RunningGateway) -> None:
    assert run(*make_command("reload", f"DATA={gateway.folder / 'data'}")) == (0, "", "")


def _by_its_config(gateway: RunningGateway) -> None:
    assert run(*make_command("reload", f"CONFIG={gateway.folder / 'config.yaml'}")) == (0, "", "")


@pytest.mark.parametrize("reload", [_by_signal, _by_command, _by_make, _by_its_config])
def test_a_changed_answer_is_served_after_a_reload_without_a_restart(
    tmp_path: Path, reload: Callable[[RunningGateway], None]
) -> None:
    with with_answers(tmp_path) as gateway:
        before, chats = answer_of(gateway)
        assert before in chats
        file = tmp_path / "answers" / "responses" / "q1_capital" / "0.json"
        file.write_text(json.dumps({"response": "東京。新しい答え。"}))
        time.sleep(0.2)
        assert answer_of(gateway)[0] == before  # not before it is told to
        reload(gateway)
        wait_for(lambda: answer_of(gateway)[0] == "東京。新しい答え。")
        _, chats = answer_of(gateway)
        assert "東京。新しい答え。" in chats
        assert before not in chats
        with closing(sqlite3.connect(tmp_path / "data" / "lexora.db")) as database:
            kept = database.execute(
                "SELECT response FROM answers WHERE prompt = '日本の首都はどこですか？' AND variant = 0"
            )
            assert kept.fetchall() == [("東京。新しい答え。",)]
        assert gateway.process.poll() is None


def test_a_broken_answer_is_refused_and_the_old_stays(tmp_path: Path) -> None:
    with with_answers(tmp_path) as gateway:
        before = answer_of(gateway)[0]
        answers = tmp_path / "answers" / "responses"
        (answers / "q1_capital" / "0.json").write_text('{"response": "new and good"}')
        (answers / "q9_bmi" / "3.json").write_text('{"response": 5}')
        _by_signal(gateway)
        line = wait_for(lambda: [line for line in gateway.log_lines() if line["message"].startswith("reload refused")])[
            0
        ]
        assert line["level"] == "ERROR"
        assert str(answers / "q9_bmi" / "3.json") in line["message"]
        assert "Expected `str`, got `int`" in line["message"]
        # Not even the good half of it is taken.
        assert answer_of(gateway)[0] == before
        (answers / "q9_bmi" / "3.json").write_text('{"response": "mended"}')
        _by_signal(gateway)
        wait_for(lambda: answer_of(gateway)[0] == "new and good")


def test_a_new_prompt_is_known_after_a_reload_and_an_old_one_forgotten(tmp_path: Path) -> None:
    with with_answers(tmp_path) as gateway:
        (tmp_path / "answers" / "catalogue.json").write_text(
            '{"prompts": [{"id": "q1_x", "prompt": "X?", "variants": 1}]}'
        )
        (tmp_path / "answers" / "responses" / "q1_x").mkdir()
        (tmp_path / "answers" / "responses" / "q1_x" / "0.json").write_text('{"response": "Y."}')
        known = httpx2.get(f"{gateway.url}/responses/catalogue.json")
        _by_signal(gateway)
        wait_for(lambda: httpx2.get(f"{gateway.url}/health").json()["prepared_prompts"] == 1)
        tag = {"if-none-match": known.headers["etag"]}
        assert httpx2.get(f"{gateway.url}/responses/catalogue.json", headers=tag).json() == {
            "prompts": [{"id": "q1_x", "prompt": "X?", "aliases": [], "variants": 1}]
        }
        assert (
            chat(gateway, messages=[{"role": "user", "content": "x"}]).headers["x-lexora-deployment"] == "fixed/q1_x/0"
        )
        assert chat(gateway, **CAPITAL).status_code == 503
        assert httpx2.get(f"{gateway.url}/responses/q1_capital/0.json").status_code == 404


def test_a_changed_config_is_in_force_after_a_reload(tmp_path: Path) -> None:
    def config(url: str, **others: Any) -> dict[str, Any]:
        return {"models": {"m": {"deployments": [deployment(f"{url}/v1")]}}, **others}

    with (
        fake_server(text="a") as first,
        fake_server(text="b") as second,
        running_gateway(tmp_path, config(first.url)) as gateway,
    ):
        assert chat(gateway).json()["choices"][0]["message"]["content"] == "a"
        assert [chat(gateway, x_cache=True).headers["x-lexora-cache"] for _ in range(2)] == ["miss", "hit"]
        file = tmp_path / "config.yaml"
        file.write_text(
            yaml.safe_dump(
                config(second.url, cache={"by_request": False}, logging={"message_text": False}, default_model="m")
            )
        )
        _by_signal(gateway)
        wait_for(lambda: chat(gateway).json()["choices"][0]["message"]["content"] == "b")
        assert "x-lexora-cache" not in chat(gateway, x_cache=True).headers
        wait_for(lambda: "latestUserMessage" not in gateway.log_line_of(chat(gateway).headers["x-request-id"]))
        assert [line["message"] for line in gateway.log_lines() if line["message"].startswith("reload")] == [
            "reloaded: 1 models, 10 prompts"
        ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "config.yaml",
            "model_map: model_map.json\nsever: {}\n",
            "config.yaml:2: sever: unknown key; did you mean 'server'?",
        ),
        ("config.yaml", "models: {", "config.yaml:1: not valid YAML"),
        ("model_map.json", "{", "model_map.json: not valid JSON"),
        (
            "model_map.json",
            '{"models": {"m": {"deployments": [{"provider": "vllm", "model": "x", "price": {"input": "free"}}]}}}',
            "model_map.json: models.m.deployments[0].price.input: input should be a valid number",
        ),
        (
            "model_map.json",
            '{"models": {"m": {"deployments": [{"provider": "vllm", "model": "x", "credential": "env:NO_KEY"}]}}}',
            "models.m.deployments[0].credential: the environment variable NO_KEY is not set",
        ),
    ],
)
def test_a_bad_config_or_model_map_is_refused_by_its_path_and_the_old_stays(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    with fake_server(text="old") as server:
        model_map = {"models": {"m": {"deployments": [deployment(f"{server.url}/v1")]}}}
        (tmp_path / "model_map.json").write_text(json.dumps(model_map))
        with running_gateway(tmp_path, {"model_map": "model_map.json"}) as gateway:
            (tmp_path / name).write_text(content)
            _by_signal(gateway)
            (line,) = wait_for(lambda: [line for line in gateway.log_lines() if line["message"].startswith("reload")])
            assert line["message"].startswith("reload refused, the old configuration stays: ")
            assert said in line["message"]
            assert chat(gateway).json()["choices"][0]["message"]["content"] == "old"


def test_a_reload_disturbs_nobody(tmp_path: Path) -> None:
    with with_answers(tmp_path) as gateway:
        stop = threading.Event()
        statuses: Counter[int] = Counter()

        def ask() -> None:
            with httpx2.Client(base_url=gateway.url, timeout=10) as client:
                while not stop.is_set():
                    statuses[client.post("/v1/chat/completions", json=CAPITAL).status_code] += 1

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            file = tmp_path / "answers" / "responses" / "q1_capital" / "0.json"
            file.write_text(json.dumps({"response": f"version {number}"}))
            _by_signal(gateway)
            wait_for(lambda text=f"version {number}": _first(gateway) == text)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200}
        assert gateway.process.poll() is None


def _first(gateway: RunningGateway) -> str:
    return str(httpx2.get(f"{gateway.url}/responses/q1_capital/0.json").json()["response"])


def test_a_reload_without_a_gateway_is_one_line_and_status_2(tmp_path: Path) -> None:
    said = (
        f"lexora: no gateway is running with its data in {tmp_path}; name its folder with --data (DATA=dir), "
        "or its config with --config (CONFIG=file.yaml)\n"
    )
    assert run(LEXORA, "reload", "--data", tmp_path) == (2, "", said)
    with running_gateway(tmp_path, {}):
        pass
    # Its file is still there, but nobody holds it.
    assert run(LEXORA, "reload", "--data", tmp_path) == (2, "", said)
    assert run(LEXORA, "reload", "--data", tmp_path / "data")[0] == 2


def test_a_gateway_that_was_killed_is_not_mistaken_for_one_that_runs(tmp_path: Path) -> None:
    with running_gateway(tmp_path, {}) as gateway:
        gateway.stop(signal.SIGKILL)
    assert "no gateway is running" in run(LEXORA, "reload", "--data", tmp_path / "data").err
    with running_gateway(tmp_path, {}) as gateway:
        _by_command(gateway)


# --- records ----------------------------------------------------------------------------------------------------------


def flood(gateway: RunningGateway, seconds: float, end: Callable[[], object]) -> list[tuple[float, str]]:
    """Asks from several threads until `end` has run and the gateway is gone; when each answer came, and its id."""
    answered: list[tuple[float, str]] = []

    def ask() -> None:
        with contextlib.suppress(httpx2.TransportError), httpx2.Client(base_url=gateway.url, timeout=10) as client:
            while True:
                response = client.post("/v1/chat/completions", json=CAPITAL)
                assert response.status_code == 200
                answered.append((time.time(), response.headers["x-request-id"]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    end()
    for thread in threads:
        thread.join()
    assert len(answered) > 100
    return answered


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_end_under_load_loses_no_record(tmp_path: Path, how: signal.Signals) -> None:
    with running_gateway(tmp_path, {}) as gateway:
        answered = flood(gateway, 0.7, lambda: gateway.stop(how))
        assert gateway.process.returncode == 0
    told = {request_id for _, request_id in answered}
    records = {record["request_id"] for record in gateway.records()}
    lines = {line["requestId"] for line in gateway.log_lines() if "requestId" in line}
    assert told <= records == lines
    assert len(records - told) <= 4  # answers that were still under way to their clients
    assert "Traceback" not in gateway.stderr


def test_a_kill_under_load_loses_the_last_second_at_most(tmp_path: Path) -> None:
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.time())
        gateway.stop(signal.SIGKILL)

    with running_gateway(tmp_path, {}) as gateway:
        answered = flood(gateway, 1.6, kill)
    older = {request_id for when, request_id in answered if when < killed[0] - 1}
    assert older
    records = {record["request_id"] for record in gateway.records()}
    lines = [line for line in gateway.stdout.splitlines() if '"requestId"' in line]
    assert older <= records
    assert older <= {json.loads(line)["requestId"] for line in lines[:-1]} | {older.pop()}
    # The next one takes it from there.
    with running_gateway(tmp_path, {}) as again:
        assert {record["request_id"] for record in again.records()} >= records


def test_a_database_that_is_held_for_a_while_holds_up_nobody_and_catches_up(tmp_path: Path) -> None:
    with running_gateway(tmp_path, {}) as gateway, httpx2.Client(base_url=gateway.url, timeout=10) as client:
        with closing(sqlite3.connect(tmp_path / "data" / "lexora.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            ids = [client.post("/v1/chat/completions", json=CAPITAL).headers["x-request-id"] for _ in range(50)]
            assert time.monotonic() - started < 2
            wait_for(lambda: "cannot write to SqliteRecords and will try again: database is locked" in gateway.stdout)
            # The log goes on without it.
            gateway.log_line_of(ids[-1])
            assert gateway.records() == []
            other.rollback()
        wait_for(lambda: _when_all(gateway, 50))
        assert [record["request_id"] for record in gateway.records()] == ids
        wait_for(lambda: "the ledger writes to SqliteRecords again" in gateway.stdout)


def test_a_reload_while_the_database_is_held_is_refused_and_can_be_repeated(tmp_path: Path) -> None:
    with with_answers(tmp_path) as gateway:
        before = _first(gateway)
        (tmp_path / "answers" / "responses" / "q1_capital" / "0.json").write_text('{"response": "new"}')
        with closing(sqlite3.connect(tmp_path / "data" / "lexora.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            _by_signal(gateway)
            (line,) = wait_for(lambda: [line for line in gateway.log_lines() if line["message"].startswith("reload")])
            assert "the prepared answers cannot be written: database is locked" in line["message"]
            other.rollback()
        assert _first(gateway) == before
        _by_signal(gateway)
        wait_for(lambda: _first(gateway) == "new")


def test_a_request_is_one_record_and_one_line_with_the_same_facts(gateway: RunningGateway) -> None:
    with sdk(gateway) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="tiny",
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}],
            max_tokens=4,
            extra_body={"x_user_id": "takahito"},
        )
    usage = raw.parse().usage
    assert usage is not None
    request_id = raw.headers["x-request-id"]
    record, line = gateway.record_of(request_id), gateway.log_line_of(request_id)
    assert line["message"] == "chat_completion"
    assert line["latestUserMessage"] == "Say hello."
    assert line["latestUserMessageLength"] == 10
    assert line["contextTailPreview"] == "Be brief.\nSay hello."
    shared = {
        "user_id": ("userId", "takahito"),
        "origin": ("origin", "own"),
        "model": ("model", "tiny"),
        "upstream_model": ("upstreamModel", "tiny-chat"),
        "deployment": ("deployment", "llamacpp/tiny-chat"),
        "attempts": ("attempts", 1),
        "tokens_in": ("tokensIn", usage.prompt_tokens),
        "tokens_out": ("tokensOut", usage.completion_tokens),
        "cost_usd": ("costUsd", 0),
        "outcome": ("outcome", "completed"),
        "status": ("status", 200),
    }
    for column, (field, value) in shared.items():
        assert record[column] == line[field] == value, column
    assert 0 < line["ttftMs"] <= line["durationMs"]
    assert record["duration_ms"] == pytest.approx(line["durationMs"], abs=0.001)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_that_cannot_be_read_or_written_are_said_once_a_minute(tmp_path: Path) -> None:
    assert run(LEXORA, "keys", "create", "--user", "ann", "--data", tmp_path / "data").status == 0
    made = run(LEXORA, "keys", "create", "--user", "root", "--admin", "--data", tmp_path / "data")
    root = {"authorization": f"Bearer {made.out.strip()}"}
    unknown = {"authorization": f"Bearer sk-lexora-{'0' * 12}-{'a' * 43}"}
    with running_gateway(tmp_path, {**models_config(), "auth": {"required": True}}) as gateway:
        assert httpx2.get(f"{gateway.url}/admin/keys", headers=root).status_code == 200
        with closing(sqlite3.connect(tmp_path / "data" / "lexora.db")) as other, other:
            other.execute("ALTER TABLE keys RENAME TO elsewhere")
        for headers in (unknown, root) * 3:
            response = httpx2.get(f"{gateway.url}/admin/keys", headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "auth_unavailable")
            assert "elsewhere" not in response.text
            assert "no such table" not in response.text
        lines = wait_for(lambda: [line for line in gateway.log_lines() if line["level"] == "ERROR"])
        assert [line["message"] for line in lines] == [
            "keys cannot be looked up: the keys cannot be read: no such table: keys",
            "keys cannot be administered: the keys cannot be read: no such table: keys",
        ]


# --- traces -----------------------------------------------------------------------------------------------------------


def test_traces_of_a_running_gateway_reach_their_collector(tmp_path: Path) -> None:
    """A span a request and one for its calls: their ids are the answer's, and what the upstream is told."""
    broken = [STREAM_HEAD, piece(token("one ", id="chatcmpl-first")), Reset()]
    rest = stream(token("two", id="chatcmpl-second"), finish(), DONE)
    whole = [[json_response(completion(id=id_))] for id_ in ("cmpl-plain", 7)]
    with (
        running_collector() as collector,
        recorded_upstream(broken) as first,
        recorded_upstream(rest, *whole) as second,
    ):
        both = [deployment(first.base_url, name="first"), deployment(second.base_url, name="second")]
        models = {"m": {"deployments": both}, "plain": {"deployments": both[1:]}}
        with running_gateway(tmp_path, {"models": models, "tracing": {"endpoint": collector.url}}) as gateway:
            streamed = chat(gateway, model="m", stream=True)
            plain = chat(gateway, model="plain")
            strange = chat(gateway, model="plain")
            prepared = httpx2.post(f"{gateway.url}/v1/chat/completions", json=CAPITAL, timeout=10)
            wait_for(lambda: len(collector.spans()) >= 3, 10)  # while it runs
            assert gateway.stop() == 0  # and the rest when it ends
        spans: dict[str, list[Span]] = {}
        for span in collector.spans():
            spans.setdefault(attributes(span)["lexora.request_id"], []).append(span)
    ids = {
        streamed: "chatcmpl-first",
        plain: "cmpl-plain",
        strange: None,
        prepared: prepared.json()["id"],
    }
    for response, response_id in ids.items():
        server, *calls = spans.pop(response.headers["x-request-id"])
        assert server.kind == Span.SPAN_KIND_SERVER
        for span in (server, *calls):
            assert attributes(span).get("gen_ai.response.id") == response_id
        assert len(calls) == (response is not prepared)
        for call in calls:
            assert attributes(call)["server.address"] == "127.0.0.1"
            told = [
                received.headers["traceparent"]
                for received in (*first.received, *second.received)
                if received.headers["x-request-id"] == response.headers["x-request-id"]
            ]
            assert len(told) == (2 if response is streamed else 1)
            assert set(told) == {f"00-{call.trace_id.hex()}-{call.span_id.hex()}-01"}
    assert not spans
    assert "chatcmpl-second" not in streamed.text
