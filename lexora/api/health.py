"""GET /health."""

import time

from starlette.types import Receive, Scope, Send

from lexora import __version__
from lexora.api.http import send_json
from lexora.core.gateway import Gateway


class HealthEndpoint:
    """Says that the gateway is up, since when, and what it can answer with."""

    def __init__(self, gateway: Gateway, started_at: float) -> None:
        self._gateway = gateway
        self._started_at = started_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        routes = self._gateway.routes()
        await send_json(
            scope,
            send,
            200,
            {
                "status": "healthy",
                "version": __version__,
                "model": routes.default_model,
                "models": len(routes.names),
                "prepared_prompts": len(self._gateway.setup.catalogue.prompts),
                "uptime": _duration(time.time() - self._started_at),
            },
        )


def _duration(seconds: float) -> str:
    """As in "3d 4h 12m"."""
    minutes = int(seconds) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    return " ".join([f"{days}d"] * bool(days) + [f"{hours}h"] * bool(days or hours) + [f"{minutes % 60}m"])
