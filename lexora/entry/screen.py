"""What the gateway prints when it starts."""

import shlex
import socket
import textwrap
from itertools import groupby
from pathlib import Path

import msgspec

from lexora import __version__
from lexora.core.gateway import Setup
from lexora.core.model_map import Deployment
from lexora.core.routing import HOW_TO_CONNECT

_MOST_LISTED = 12


def start_screen(listener: socket.socket, setup: Setup, database: Path, *, key_needed: bool, exposed: bool) -> str:
    """The start-up screen: address, models and where each goes, data, who may ask, a request to try.

    `exposed` says that others than those on this machine may reach it.
    """
    url = _url(listener)
    prompts = setup.catalogue.prompts
    answers = sum(prompt.variants for prompt in prompts)
    lines = [
        f"Lexora {__version__}  {url}",
        "",
        *_section("models", _models(setup)),
        *_section(
            "answers",
            [f"{answers} prepared answers to {len(prompts)} prompts, free of charge", f"in a browser: {url}/try/"],
        ),
        *_section("data", [str(database.resolve())]),
        *_section("docs", [f"{url}/docs"]),
    ]
    if key_needed:
        lines += _section("keys", ["a model needs one: lexora keys create --user NAME"])
    elif exposed:
        lines += _section("note", ["whoever can reach this gateway can use these models"])
    body = msgspec.json.encode({"messages": [{"role": "user", "content": prompts[0].prompt if prompts else "Hello"}]})
    curl = ["curl", f"{url}/v1/chat/completions", "-H", "content-type: application/json", "-d", body.decode()]
    return "\n".join(["", *lines, "  try it", f"    {shlex.join(curl)}", ""])


def _section(name: str, lines: list[str]) -> list[str]:
    return [f"  {name if not i else '':<9}{line}" for i, line in enumerate(lines)]


def _models(setup: Setup) -> list[str]:
    models = setup.routes.models
    if not models and not setup.routes.wildcards:
        return ["none connected: prepared answers only", *textwrap.wrap(HOW_TO_CONNECT, 88)]
    shown = list(models.items())[:_MOST_LISTED]
    lines = []
    for name, route in shown:
        names = ", ".join((name, *route.aliases))
        lines.append(f"{names}  ->  {', then '.join(_where(deployment) for deployment in route.deployments)}")
    if len(models) > len(shown):
        lines.append(f"… and {len(models) - len(shown)} more: GET /v1/models")
    for _, wildcards in groupby(setup.routes.wildcards, lambda wildcard: wildcard.deployment.label):
        group = list(wildcards)
        lines.append(f"{', '.join(wildcard.pattern for wildcard in group)}  ->  {_where(group[0].deployment)}")
    return lines


def _where(deployment: Deployment) -> str:
    return f"{deployment.provider} {deployment.base_url} ({deployment.origin})"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - shown, not bound
    return f"http://{shown}:{port}"
