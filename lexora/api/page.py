"""/try/: the page to try prepared answers, beside the module that other pages import, as the CDN serves them."""

from pathlib import Path

from starlette.responses import RedirectResponse
from starlette.routing import Route

from lexora.api.openapi import Static

_TYPES = {".html": b"text/html; charset=utf-8", ".css": b"text/css", ".js": b"text/javascript"}
_HEADERS = [
    # As at the CDN: the page runs its own script, asks its own host, and stands in no frame.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def page_routes(folder: Path) -> list[Route]:
    """A route for each file of `folder`, and for the page itself."""
    served = {file.name: Static(_TYPES[file.suffix], file.read_bytes, _HEADERS) for file in sorted(folder.iterdir())}
    return [
        Route("/try", RedirectResponse("try/"), methods=["GET"]),  # relative, as in app.py
        Route("/try/", served["index.html"], methods=["GET"]),
        *(Route(f"/try/{name}", file, methods=["GET"]) for name, file in served.items()),
    ]
