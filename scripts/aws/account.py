"""One environment of Lexora, by the settings in this checkout."""

import json
import os
import sys
from pathlib import Path

from infra.settings import read_settings
from lexora.entry.aws_account import AwsAccount
from lexora.entry.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


class Problem(ConfigError):
    """What whoever called must mend, in one line."""


class Account(AwsAccount):
    """The environment's settings come from cdk.json."""

    def __init__(self, environment: str) -> None:
        """Raises SettingsError or Problem if the environment's name or settings cannot be used."""
        try:
            context = json.loads((ROOT / "cdk.json").read_bytes()).get("context", {})
        except ValueError as error:
            raise Problem(f"cdk.json: not valid JSON: {error}") from None
        self.settings = read_settings({**context, "environment": environment}.get, os.environ)
        super().__init__(self.settings.environment, self.settings.prefix)


def say(text: str) -> None:
    """Tells people something; stdout is for what programs read."""
    print(text, file=sys.stderr, flush=True)
