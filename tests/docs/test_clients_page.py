"""docs/clients.md: its programs run as they stand, against a gateway instead of the CDN."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lexora.entry.prepared import PAGE, SHIPPED, load_prepared
from tests.support.browser import opened, running_browser
from tests.support.cdn import cdn
from tests.support.gateway import ROOT, RunningGateway, models_config, running_gateway

TEXT = (ROOT / "docs" / "clients.md").read_text()
CAPITALS = {text for (prompt, _), text in load_prepared(SHIPPED)[1].items() if prompt == "日本の首都はどこですか？"}
NODE = Path(sys.prefix) / "bin" / "node"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    nobody = {"provider": "vllm", "base_url": "http://127.0.0.1:9/v1", "model": "up"}
    with running_gateway(tmp_path_factory.mktemp("gateway"), models_config(m=nobody)) as running:
        yield running


def snippet(language: str, gateway: RunningGateway) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert "https://cdn.example.com" in found
    return found.replace("https://cdn.example.com", gateway.url)


def test_the_python_program(gateway: RunningGateway, tmp_path: Path) -> None:
    shutil.copy(ROOT / "clients" / "python" / "lexora_answers.py", tmp_path)
    (tmp_path / "program.py").write_text(snippet("python", gateway))
    # Nothing else is there for it to import.
    ran = subprocess.run([sys.executable, "-S", "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert ran.stdout.removesuffix("\n") in CAPITALS, ran.stderr


def test_the_node_program(gateway: RunningGateway, tmp_path: Path) -> None:
    shutil.copy(PAGE / "lexora-answers.js", tmp_path / "lexora-answers.mjs")
    (tmp_path / "program.mjs").write_text(snippet("js", gateway))
    ran = subprocess.run([NODE, "program.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert re.fullmatch(rf"{gateway.url}/responses/q1_capital/[0-4]\.json\n", ran.stdout)


def test_the_web_page(gateway: RunningGateway) -> None:
    page_of = f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">{snippet("html", gateway)}'
    with (
        cdn({"/page.html": page_of.encode()}) as other,
        running_browser({"else.example": f"127.0.0.1:{other.port}"}) as browser,
        opened(browser, "http://else.example/page.html") as page,
    ):
        expect(page.locator("#answer")).not_to_have_text("…")
        # The paragraph of the example shows the answer's lines as one.
        assert page.locator("#answer").inner_text() in {" ".join(text.split()) for text in CAPITALS}
