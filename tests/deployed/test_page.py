"""The page at the CDN, and the module that pages of other origins import from it, in a real Chromium."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.browser import foreign_page, opened, running_browser
from tests.support.cdn import Cdn, cdn
from tests.support.deployment import Environment

pytestmark = pytest.mark.timeout(600)
CAPITAL = "日本の首都はどこですか？"
CAPITALS = {text for (prompt, _), text in load_prepared(SHIPPED)[1].items() if prompt == CAPITAL}


@pytest.fixture(scope="module")
def other() -> Iterator[Cdn]:
    """Where somebody else's page stands."""
    with cdn({}) as started:
        yield started


@pytest.fixture(scope="module")
def browser(dev: Environment, other: Cdn) -> Iterator[Browser]:
    names = {dev.cdn_host: f"127.0.0.1:{dev.emulator.port}", "else.example": f"127.0.0.1:{other.port}"}
    with running_browser(names) as running:
        yield running


def test_a_person_types_a_prompt_and_reads_an_answer(browser: Browser, dev: Environment) -> None:
    with opened(browser, f"http://{dev.cdn_host}/") as page:
        assert page.url == f"http://{dev.cdn_host}/try/"
        expect(page.locator("#prompts").get_by_role("button")).to_have_count(10)
        page.get_by_label("Prompt").press_sequentially(" 日本の首都はどこですか ?!")
        page.keyboard.press("Enter")
        answer = page.get_by_role("status").get_by_role("paragraph")
        expect(answer).to_have_attribute("lang", "ja")
        assert answer.inner_text() in CAPITALS
        link = page.get_by_role("status").get_by_role("link").get_attribute("href") or ""
        assert link.startswith(f"http://{dev.cdn_host}/responses/q1_capital/")


def test_a_page_of_another_origin_asks(browser: Browser, dev: Environment, other: Cdn) -> None:
    other.files["/page.html"] = foreign_page(f"http://{dev.cdn_host}", "日本の首都はどこですか").encode()
    with opened(browser, "http://else.example/page.html") as page:
        expect(page.locator("#answer")).not_to_be_empty()
        answer = json.loads(page.locator("#answer").inner_text())
    assert answer["text"] in CAPITALS
    assert answer["url"].startswith(f"http://{dev.cdn_host}/responses/q1_capital/")


@pytest.mark.parametrize("path", ["/", "/try"])
def test_the_front_door_leads_to_the_page(dev: Environment, path: str) -> None:
    with dev.client("cdn") as client:
        response = client.get(path)
    assert (response.status_code, response.headers["location"]) == (307, "/try/")


def test_the_page_is_its_own_and_the_module_everybodys(dev: Environment) -> None:
    with dev.client("cdn") as client:
        page = client.get("/try/")
        module = client.get("/try/lexora-answers.js", headers={"origin": "https://any.example"})
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; script-src 'self'; " in page.headers["content-security-policy"]
    assert module.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert module.headers["access-control-allow-origin"] == "*"
    assert module.headers["cache-control"] == "public, max-age=300, stale-while-revalidate=86400"


def test_the_catalogue_is_that_of_the_gateway(dev: Environment) -> None:
    """Both say the same, byte for byte. tests/deployed/test_publish.py has it change with the answers."""
    with dev.client("cdn") as at_the_edge, dev.client("chat") as at_the_door:
        path = "/responses/catalogue.json"
        assert at_the_edge.get(path).content == at_the_door.get(path).content
