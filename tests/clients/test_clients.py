"""Both clients of prepared answers, in front of a CDN that has them and one that fails."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.callers import Caller, NodeCaller, PythonCaller
from tests.support.cdn import At, Cdn, cdn
from tests.support.recorded import wait_until

CATALOGUE = "/responses/catalogue.json"
SKY = ["Blue.", "It scatters.", "Rayleigh.", "Look up."]
Client = Callable[..., Caller]


def catalogue(variants: int = len(SKY), **more: Any) -> bytes:
    entries = [
        {"id": "q5_sky", "prompt": "空はなぜ青いですか？", "aliases": ["Why is the sky blue?"], "variants": variants},
        {"id": "q6_two", "prompt": "__proto__", "aliases": [], "variants": 1},
    ]
    return json.dumps({"prompts": entries, **more}).encode()


def path(k: int) -> str:
    return f"/responses/q5_sky/{k}.json"


def answer(text: str) -> bytes:
    return json.dumps({"response": text}).encode()


@pytest.fixture
def site() -> Iterator[Cdn]:
    files: dict[str, At] = {path(k): answer(text) for k, text in enumerate(SKY)}
    with cdn({CATALOGUE: catalogue(), **files}) as started:
        yield started


@pytest.fixture(params=["python", "javascript"])
def client(request: pytest.FixtureRequest, node: NodeCaller) -> Client:
    """Makes one for an address, and a timeout in seconds."""

    def made(base: str, timeout: float = 5) -> Caller:
        if request.param == "python":
            return PythonCaller(base, timeout)
        node.anew(base, timeout)
        return node

    return made


def test_a_prompt_becomes_the_url_of_any_variant(site: Cdn, client: Client) -> None:
    call = client(f"{site.url}/")
    urls = {it["value"] for it in call("url", " ＷＨＹ is the  sky blue ?", 100)}
    assert urls == {f"{site.url}{path(k)}" for k in range(len(SKY))}
    assert site.asked == [CATALOGUE]


def test_an_answer_says_where_it_is_from(site: Cdn, client: Client) -> None:
    call = client(site.url)
    answers = [it["value"] for it in call("ask", "空はなぜ青いですか", 8)]
    for it in answers:
        assert it in [{"text": text, "url": f"{site.url}{path(k)}"} for k, text in enumerate(SKY)]
    assert site.asked.count(CATALOGUE) == 1
    assert len(site.asked) == 9


@pytest.mark.parametrize("prompt", ["Why is grass green?", "", "constructor", "toString"])
def test_what_is_not_prepared_is_no_error(site: Cdn, client: Client, prompt: str) -> None:
    call = client(site.url)
    assert call("url", prompt) == call("ask", prompt) == [{"value": None}]
    assert site.asked == [CATALOGUE]


def test_files_may_lie_below_a_path(site: Cdn, client: Client) -> None:
    site.files = {f"/some/where{name}": content for name, content in site.files.items()}
    call = client(f"{site.url}/some/where")
    (asked,) = call("ask", "Why is the sky blue?")
    assert asked["value"]["url"].startswith(f"{site.url}/some/where/responses/q5_sky/")


@pytest.mark.parametrize(
    "broken",
    [404, 403, 500, 503, None, b"", b'{"response": "cut o', b'{"response": 5}', b"[]", b"null"],
    ids=str,
)
def test_another_variant_is_tried(site: Cdn, client: Client, broken: At) -> None:
    site.files |= {path(0): broken, path(1): broken}
    call = client(site.url)
    answers = [it["value"]["text"] for it in call("ask", "Why is the sky blue?", 16)]
    assert set(answers) <= {SKY[2], SKY[3]}
    assert len(site.asked) > 17, "a broken one was chosen first, some time"


def test_where_none_can_be_had_the_catalogue_is_read_again(site: Cdn, client: Client) -> None:
    site.files |= {path(k): 503 for k in range(4)}
    call = client(site.url)
    (failed,) = call("ask", "Why is the sky blue?")
    tried = site.asked[1:]
    assert len(set(tried)) == len(tried) == 3, "each but once"
    assert failed["error"].startswith("No variant could be fetched. ")
    for it in tried:
        assert f"{site.url}{it}: status 503" in failed["error"]
    site.files |= {CATALOGUE: catalogue(1), path(0): answer("New.")}
    assert call("ask", "Why is the sky blue?") == [{"value": {"text": "New.", "url": f"{site.url}{path(0)}"}}]


def test_whoever_asks_at_once_shares_one_catalogue(site: Cdn, client: Client) -> None:
    site.open.clear()
    call = client(site.url)
    releasing(site)
    answers = call("ask", "Why is the sky blue?", 20)
    assert all(it["value"]["text"] in SKY for it in answers)
    assert site.asked.count(CATALOGUE) == 1


@pytest.mark.parametrize("broken", [503, None, b'{"prompts": [{"id": "q1"}]}'], ids=str)
def test_a_catalogue_that_failed_is_fetched_again(site: Cdn, client: Client, broken: At) -> None:
    site.files[CATALOGUE] = broken
    site.open.clear()
    call = client(site.url)
    releasing(site)
    failed = call("ask", "Why is the sky blue?", 10)
    assert {it["error"] for it in failed} == {failed[0]["error"]}
    assert failed[0]["error"].startswith(f"The catalogue could not be fetched. {site.url}{CATALOGUE}: ")
    assert site.asked == [CATALOGUE], "once for all ten"
    site.files[CATALOGUE] = catalogue()
    assert call("ask", "Why is the sky blue?")[0]["value"]["text"] in SKY


def test_nobody_waits_for_ever(site: Cdn, client: Client) -> None:
    site.open.clear()
    call = client(site.url, 0.2)
    (failed,) = call("ask", "Why is the sky blue?")
    assert f"{site.url}{CATALOGUE}: " in failed["error"]
    site.open.set()
    assert call("ask", "Why is the sky blue?")[0]["value"]["text"] in SKY


def test_nobody_is_there(client: Client) -> None:
    with cdn({}) as gone:
        pass
    call = client(gone.url)
    (failed,) = call("url", "Why is the sky blue?")
    assert f"{gone.url}{CATALOGUE}: " in failed["error"]


def test_who_calls_it_off_takes_nobody_along(site: Cdn, node: NodeCaller) -> None:
    node.anew(site.url, 5)
    first, second = node("ask", "Why is the sky blue?", 2, abort=True)
    assert first == {"error": "called off"}
    assert second["value"]["text"] in SKY


def test_python_takes_web_addresses_only() -> None:
    with pytest.raises(ValueError, match="'file:///etc' does not begin with https:// or http://"):
        PythonCaller("file:///etc", 1)


def releasing(site: Cdn) -> None:
    """Lets the CDN answer, a moment after the first has asked: the others have asked by then."""

    def release() -> None:
        wait_until(lambda: site.asked, "a request")
        time.sleep(0.2)
        site.open.set()

    threading.Thread(target=release, daemon=True).start()
