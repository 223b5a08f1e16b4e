"""The start-up screen: calm, complete, and with a line that works when pasted."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from lexora import __version__
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.gateway import Setup
from lexora.core.model_map import Deployment, parse_model_map
from lexora.core.routing import Routes, Wildcard
from lexora.entry.screen import start_screen
from lexora.providers.table import PROVIDERS
from tests.support.gateway import RunningGateway, running_gateway

CAPITAL = PreparedPrompt("q1_capital", "日本の首都はどこですか？")


class Listener:
    """As much of a socket as the screen looks at."""

    def __init__(self, host: str) -> None:
        self._name = (host, 8001)

    def getsockname(self) -> tuple[str, int]:
        return self._name


def screen(
    host: str = "127.0.0.1",
    *,
    models: dict[str, Any] | None = None,
    wildcards: tuple[Wildcard, ...] = (),
    prompts: tuple[PreparedPrompt, ...] = (CAPITAL,),
    key_needed: bool = False,
    exposed: bool = False,
) -> str:
    routes = Routes(parse_model_map({"models": models or {}}, PROVIDERS).models, wildcards=wildcards)
    setup = Setup(routes, Catalogue(prompts), cast(Any, None))
    return start_screen(
        cast(Any, Listener(host)), setup, Path("data/lexora.db"), key_needed=key_needed, exposed=exposed
    )


def curl_of(text: str) -> str:
    """The line to paste."""
    (line,) = re.findall(r"^ +(curl .+)$", text, re.MULTILINE)
    return str(line)


def deployment(provider: str = "vllm", **fields: Any) -> dict[str, Any]:
    return {"provider": provider, "model": "up", **fields}


def test_the_screen_says_everything_once(gateway: RunningGateway) -> None:
    said = gateway.stderr
    upstream = re.search(r"http://127\.0\.0\.1:\d+/v1", (gateway.folder / "config.yaml").read_text())
    assert upstream
    assert said.startswith(f"\nLexora {__version__}  {gateway.url}\n")
    assert said.count(f"tiny-chat, tiny  ->  llamacpp {upstream[0]} (own)\n") == 1
    assert said.count("50 prepared answers to 10 prompts") == 1
    assert said.count(f"in a browser: {gateway.url}/try/\n") == 1
    assert said.count(str(gateway.folder / "data" / "lexora.db")) == 1
    assert said.count(f"{gateway.url}/docs") == 1
    assert said.count("curl ") == 1
    assert "note" not in said
    assert len(said.splitlines()) < 15
    # People read stderr, programs stdout.
    assert gateway.log_lines() is not None


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_printed_line_works_when_pasted(gateway: RunningGateway) -> None:
    pasted = subprocess.run(["sh", "-c", curl_of(gateway.stderr)], capture_output=True, timeout=20, check=True)
    answer = json.loads(pasted.stdout)
    assert answer["object"] == "chat.completion"
    assert "東京" in answer["choices"][0]["message"]["content"]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_line_works_in_any_locale_and_for_any_prompt(tmp_path: Path, locale: str) -> None:
    answers = tmp_path / "answers"
    (answers / "responses" / "q").mkdir(parents=True)
    prompt = """What's "quoted" $HOME `id` \\ !, 日本?"""
    (answers / "catalogue.json").write_text(json.dumps({"prompts": [{"id": "q", "prompt": prompt, "variants": 1}]}))
    (answers / "responses" / "q" / "0.json").write_text('{"response": "Found."}')
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0"}
    with running_gateway(tmp_path / "gateway", {"answers": str(answers)}, env=environment) as gateway:
        pasted = subprocess.run(["sh", "-c", curl_of(gateway.stderr)], capture_output=True, timeout=20, check=True)
    assert json.loads(pasted.stdout)["choices"][0]["message"]["content"] == "Found."


def test_every_model_is_shown_with_where_it_goes() -> None:
    openai = Deployment.model_validate({"provider": "openai", "model": "*"}, context=PROVIDERS)
    wildcards = (Wildcard("gpt-[0-9]*", openai), Wildcard("o[0-9]*", openai))
    said = screen(
        models={
            "chat": {"aliases": ["default"], "deployments": [deployment(), deployment("anthropic")]},
            "code": {"deployments": [deployment("ollama", base_url="https://gpu.example/v1", origin="paid")]},
        },
        wildcards=wildcards,
    )
    models = re.findall(r"^  (?:models  |        ) (\S.*->.*)$", said, re.MULTILINE)
    assert models == [
        "chat, default  ->  vllm http://localhost:8000/v1 (own), then anthropic https://api.anthropic.com/v1 (paid)",
        "code  ->  ollama https://gpu.example/v1 (paid)",
        "gpt-[0-9]*, o[0-9]*  ->  openai https://api.openai.com/v1 (paid)",
    ]


def test_many_models_do_not_fill_the_screen() -> None:
    said = screen(models={f"m{i}": {"deployments": [deployment()]} for i in range(40)})
    assert "m11  ->" in said
    assert "m12  ->" not in said
    assert "… and 28 more: GET /v1/models" in said


def test_with_no_model_the_screen_says_how_to_connect_one() -> None:
    said = screen()
    assert "none connected: prepared answers only" in said
    for way in ("8000", "11434", "8080", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MODEL=", "CONFIG="):
        assert way in said
    assert max(map(len, said.splitlines()[:-3])) <= 100


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("0.0.0.0", "http://127.0.0.1:8001"),
        ("::1", "http://[::1]:8001"),
        ("::", "http://[::1]:8001"),
        ("192.168.1.5", "http://192.168.1.5:8001"),
        ("fd00::5", "http://[fd00::5]:8001"),
    ],
)
def test_the_url_can_be_opened_as_it_stands(host: str, url: str) -> None:
    said = screen(host)
    assert f"Lexora {__version__}  {url}\n" in said
    line = curl_of(said)
    # Brackets mean something to shells.
    assert line.startswith(f"curl '{url}/v1/chat" if "[" in url else f"curl {url}/v1/chat")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_where_a_key_is_needed_the_way_to_one_is_said(host: str) -> None:
    said = screen(host, key_needed=True, exposed=True)
    assert "lexora keys create --user NAME" in said
    assert "whoever can reach" not in said


@pytest.mark.parametrize("exposed", [True, False])
def test_where_others_may_come_without_a_key_that_is_said(exposed: bool) -> None:
    assert ("whoever can reach this gateway can use these models" in screen(exposed=exposed)) == exposed


def test_without_prompts_there_is_still_a_line_to_try() -> None:
    assert '"content":"Hello"' in curl_of(screen(prompts=()))
    assert "0 prepared answers to 0 prompts" in screen(prompts=())
