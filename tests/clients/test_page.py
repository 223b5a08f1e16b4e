"""The page to try prepared answers, and the module on a page of another origin, in a real Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.browser import foreign_page, opened, running_browser
from tests.support.cdn import cdn
from tests.support.gateway import RunningGateway, models_config, running_gateway

CATALOGUE, ANSWERS = load_prepared(SHIPPED)
CAPITAL = "日本の首都はどこですか？"
CAPITALS = {text for (prompt, _), text in ANSWERS.items() if prompt == CAPITAL}
UNKNOWN = "No answer to this prompt is prepared."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser({"else.example": "127.0.0.1"}) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    nobody = {"provider": "vllm", "base_url": "http://127.0.0.1:9/v1", "model": "up"}
    with running_gateway(tmp_path_factory.mktemp("gateway"), models_config(m=nobody)) as running:
        yield running


def test_a_person_types_a_prompt_and_reads_an_answer(browser: Browser, gateway: RunningGateway) -> None:
    with opened(browser, f"{gateway.url}/") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        assert page.url == f"{gateway.url}/try/"
        page.get_by_label("Prompt").press_sequentially("  日本の首都は、どこですか ?")
        page.keyboard.press("Enter")
        status = page.get_by_role("status")
        expect(status).to_have_text(UNKNOWN)
        page.get_by_label("Prompt").fill(f" {CAPITAL.rstrip('？')} ?! ")
        page.get_by_role("button", name="Ask").click()
        expect(status.get_by_role("paragraph")).to_have_attribute("lang", "ja")
        assert status.get_by_role("paragraph").inner_text() in CAPITALS
        where = status.get_by_role("link")
        assert json.loads(page.request.get(where.get_attribute("href") or "").text())["response"] in CAPITALS
        assert [url for url in asked if not url.startswith(f"{gateway.url}/responses/q1_capital/")] == []


def test_the_page_shows_the_catalogue(browser: Browser, gateway: RunningGateway) -> None:
    with opened(browser, f"{gateway.url}/try/") as page:
        prompts = page.locator("#prompts").get_by_role("button")
        expect(prompts).to_have_text([entry.prompt for entry in CATALOGUE.prompts])
        page.locator("summary").first.click()
        expect(page.get_by_text(CATALOGUE.prompts[0].aliases[0], exact=True)).to_be_visible()
        files = [link.get_attribute("href") for link in page.get_by_role("link", name="q5_sky/").all()]
        assert files == [f"{gateway.url}/responses/q5_sky/{k}.json" for k in range(5)]
        prompts.nth(1).press("Enter")  # by the keyboard
        answer = page.get_by_role("status").get_by_role("paragraph")
        expect(answer).to_be_visible()
        second = CATALOGUE.prompts[1].prompt
        assert answer.inner_text() in {text.strip() for (prompt, _), text in ANSWERS.items() if prompt == second}
        assert page.get_by_label("Prompt").input_value() == second
        page.get_by_role("link", name="What the API takes").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Lexora")
        assert page.url == f"{gateway.url}/docs"


def test_it_speaks_japanese(browser: Browser, gateway: RunningGateway) -> None:
    with opened(browser, f"{gateway.url}/try/", locale="ja-JP") as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("用意された答え")
        page.get_by_label("プロンプト").fill("東京は？")
        page.get_by_role("button", name="聞く").click()
        expect(page.get_by_role("status")).to_have_text("このプロンプトの答えは用意されていません。")
        assert page.locator("html").get_attribute("lang") == "ja"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_readable_day_and_night(browser: Browser, gateway: RunningGateway, scheme: str) -> None:
    phone = {"viewport": {"width": 320, "height": 568}, "color_scheme": scheme, "has_touch": True}
    with opened(browser, f"{gateway.url}/try/", **phone) as page:
        page.locator("#prompts").get_by_role("button").first.tap()
        expect(page.get_by_role("status").get_by_role("link")).to_be_visible()
        for details in page.locator("summary").all():
            details.tap()
        assert page.evaluate("document.documentElement.scrollWidth") == 320, "nothing is cut off"
        assert [box for box in page.evaluate(_BOXES) if box["height"] < 24] == [], "too small for a finger"
        for text in ("#answer p", "#answer a", "#prompts button", "summary", "h1"):
            assert page.evaluate(_CONTRAST, text) >= 4.5, text


def test_a_page_of_another_origin_asks(browser: Browser, gateway: RunningGateway) -> None:
    with (
        cdn({"/page.html": foreign_page(gateway.url, "日本の首都は?").encode()}) as other,
        opened(browser, f"http://else.example:{other.port}/page.html") as page,
    ):
        expect(page.locator("#answer")).not_to_be_empty()
        answer = json.loads(page.locator("#answer").inner_text())
    assert answer["text"] in CAPITALS
    assert answer["url"].startswith(f"{gateway.url}/responses/q1_capital/")


def test_what_fails_is_told(browser: Browser, gateway: RunningGateway, tmp_path: Path) -> None:
    with opened(browser, f"{gateway.url}/try/") as page:
        expect(page.locator("#prompts").get_by_role("button")).to_have_count(10)
        page.route("**/responses/q1_capital/*", lambda route: route.fulfill(status=200, body="{"))
        page.get_by_label("Prompt").fill(CAPITAL)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("No variant could be fetched.")


_BOXES = """[...document.querySelectorAll('a, button, input, summary')].map((it) => {
    const { height } = it.getBoundingClientRect();
    return { height, text: it.textContent };
})"""
# As WCAG reckons it, against what the page itself is painted with.
_CONTRAST = """(selector) => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const luminance = (colour) => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((it) => it / 255)
            .map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const probe = document.body.appendChild(document.createElement('i'));
    probe.style.color = 'canvas';
    const both = [getComputedStyle(document.querySelector(selector)).color, getComputedStyle(probe).color];
    probe.remove();
    const [dark, light] = both.map(luminance).sort((one, other) => one - other);
    return (light + 0.05) / (dark + 0.05);
}"""
