"""GET /metrics, and the application of the metrics port."""

from collections.abc import Awaitable, Callable

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.errors import ErrorLayer
from lexora.api.http import send as send_body


class MetricsEndpoint:
    """Metrics in Prometheus' text format. `allow` raises for whoever must not see them."""

    def __init__(
        self, text: Callable[[], bytes], content_type: str, allow: Callable[[Scope], Awaitable[None]] | None = None
    ) -> None:
        self._text = text
        self._headers = [(b"content-type", content_type.encode())]
        self._allow = allow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._allow is not None:
            await self._allow(scope)
        await send_body(scope, send, 200, self._headers, self._text())


def create_ops_app(metrics: ASGIApp, health: ASGIApp) -> ASGIApp:
    """The application of the metrics port: what watches the gateway, and nothing else."""
    routes = [Route("/metrics", metrics, methods=["GET"]), Route("/health", health, methods=["GET"])]
    return ErrorLayer(Router(routes, redirect_slashes=False).app)
