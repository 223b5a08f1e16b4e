"""`lexora models`: what operators do with models on their own servers, by asking the gateway that runs."""

import argparse
import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lexora.entry.columns import print_columns
from lexora.entry.config import load_settings
from lexora.entry.errors import ConfigError

KEY = "LEXORA_API_KEY"

_COLUMNS = ("model", "state", "deployment", "server", "parent")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to ask where a gateway listens on all addresses


def run(options: argparse.Namespace, config: Path | None) -> None:
    """Does what the command line says, and prints the state of the deployments. Raises ConfigError."""
    base = options.url.rstrip("/") if options.url else address(config)
    if options.action == "list":
        found = _ask(f"{base}/admin/models", None)["models"]
    else:
        wanted = {name: getattr(options, name, None) for name in ("path", "parent", "level")}
        body = {name: value for name, value in wanted.items() if value is not None}
        model = options.model
        answer = _ask(f"{base}/admin/models/{quote(model, safe='/')}/{options.action}", body)
        found = [{"model": model, **deployment} for deployment in answer["deployments"]]
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [[str(each.get(column) or "-") for column in _COLUMNS] for each in found]
    print_columns([[column.upper() for column in _COLUMNS], *rows])


def address(config: Path | None) -> str:
    """Where the gateway of a config listens."""
    server = load_settings(config).server
    host = _EVERYWHERE.get(server.host, server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"


def _ask(url: str, body: dict[str, Any] | None) -> Any:
    """What the gateway says; it takes as long as the server does. Raises ConfigError."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url} is no web address; give the gateway's with --url")
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    if key := os.environ.get(KEY):
        headers["authorization"] = f"Bearer {key}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as response:  # noqa: S310 - checked above
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise ConfigError(f"{_said(error)} (the environment variable {KEY} holds it)") from None
        raise ConfigError(_said(error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConfigError(
            f"no gateway answers at {url}; name its config with --config, or its address with --url ({error})"
        ) from None


def _said(error: urllib.error.HTTPError) -> str:
    try:
        message: str = json.load(error)["error"]["message"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"status {error.code}"
    return message
