"""/try/: the page's files as the gateway serves them. tests/clients opens it in a browser."""

from pathlib import Path

import httpx2
import pytest

from lexora.entry.prepared import PAGE
from tests.support.gateway import RunningGateway

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}


@pytest.mark.parametrize("file", sorted(PAGE.iterdir()), ids=lambda file: file.name)
def test_each_file_is_there_with_its_type(web: httpx2.Client, file: Path) -> None:
    for name in ("", "index.html") if file.name == "index.html" else (file.name,):
        response = web.get(f"/try/{name}")
        assert (response.status_code, response.content) == (200, file.read_bytes())
        assert response.headers["content-type"] == TYPES[file.suffix]
        assert "default-src 'none'; script-src 'self'; " in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["", "/", "/try"])
def test_the_front_door_leads_to_the_page(site: RunningGateway, path: str) -> None:
    response = httpx2.get(f"{site.url}{path}", follow_redirects=True)
    assert (response.status_code, response.url.path) == (200, "/try/")


@pytest.mark.parametrize("path", ["/try/nothing.js", "/try/../answers.py", "/try/%2e%2e/lexora_answers.py", "/try//"])
def test_there_is_nothing_else(web: httpx2.Client, path: str) -> None:
    response = web.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
