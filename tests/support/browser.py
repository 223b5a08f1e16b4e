"""The Chromium of this machine, driven by playwright, which brings none of its own."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")

_FOREIGN = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><p id="answer"></p>
<script type="module">
import { Answers } from %s;
const answer = await new Answers(%s).ask(%s);
document.getElementById('answer').textContent = JSON.stringify(answer);
</script>"""


@contextmanager
def running_browser(hosts: Mapping[str, str] | None = None) -> Iterator[Browser]:
    """Chromium without a window, and with a folder of its own; skips where there is none.

    `hosts` says where names lead: `{"cdn.example": "127.0.0.1:8000"}`. No other name leads anywhere.
    """
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    rules = [*(f"MAP {name} {to}" for name, to in (hosts or {}).items()), "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"]
    arguments = ["--disable-gpu", f"--host-resolver-rules={', '.join(rules)}"]
    with sync_playwright() as playwright:
        # Tests may be run by root, for whom Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=False, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **settings: Any) -> Iterator[Page]:
    """A page as a visitor has it, in English unless told. Fails if anything went wrong in it that a console tells."""
    context = browser.new_context(**{"locale": "en-US", **settings})
    page = context.new_page()
    page.set_default_timeout(10_000)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        page.goto(url)
        yield page
    except AssertionError as error:
        error.add_note(f"console: {wrong}")
        raise
    finally:
        context.close()
    assert wrong == [], wrong


def foreign_page(site: str, prompt: str) -> str:
    """A page of somebody else's that asks a site, and has the answer as JSON in `#answer`."""
    return _FOREIGN % (json.dumps(f"{site}/try/lexora-answers.js"), json.dumps(site), json.dumps(prompt))
