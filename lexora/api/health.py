"""GET /health."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from lexora import __version__
from lexora.api.http import send_json
from lexora.core.gateway import Gateway


class HealthFacts(NamedTuple):
    """What is known: of each deployment whether it can answer, whether vLLM can (both None while nobody knows, or if
    there is none), used and total bytes of the GPUs' memory, and how many deployments sleep.
    """

    up: Mapping[str, bool | None] = {}
    vllm: bool | None = None
    gpu_memory: tuple[int, int] | None = None
    asleep: int = 0


class HealthEndpoint:
    """Says whether the gateway can answer, since when it is up, and with what.

    `unhealthy`, with status 503, when every deployment is known to be down, or when there is nothing to answer with at
    all; `degraded` when some are down, or sleep. Prepared answers may work all the same: `prepared_prompts` says how
    many. `started_at` is in seconds that never go back.
    """

    def __init__(self, gateway: Gateway, started_at: float, facts: Callable[[], HealthFacts] = HealthFacts) -> None:
        self._gateway = gateway
        self._started_at = started_at
        self._facts = facts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        routes = self._gateway.routes()
        facts = self._facts()
        prompts = len(self._gateway.setup.catalogue.prompts)
        down = [up is False for up in facts.up.values()]
        status = "degraded" if any(down) or facts.asleep else "healthy"
        if all(down) if down else not (prompts or routes.names or routes.wildcards):
            status = "unhealthy"
        body: dict[str, Any] = {
            "status": status,
            "version": __version__,
            "model": routes.default_model,
            "models": len(routes.names),
            "prepared_prompts": prompts,
            "uptime": _duration(time.monotonic() - self._started_at),
        }
        if facts.asleep:
            body["asleep"] = facts.asleep
        if facts.gpu_memory is not None:
            body["gpu_memory_used"], body["gpu_memory_total"] = map(_gigabytes, facts.gpu_memory)
        if facts.vllm is not None:
            body["vllm_status"] = "connected" if facts.vllm else "disconnected"
        await send_json(scope, send, 503 if status == "unhealthy" else 200, body)


def _gigabytes(size: int) -> str:
    """As in "24GB"; drivers count in powers of two."""
    return f"{size / 2**30:.3g}GB"


def _duration(seconds: float) -> str:
    """As in "3d 4h 12m"."""
    minutes = int(seconds) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    return " ".join([f"{days}d"] * bool(days) + [f"{hours}h"] * bool(days or hours) + [f"{minutes % 60}m"])
