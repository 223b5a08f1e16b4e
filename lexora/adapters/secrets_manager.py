"""Secrets Manager: credentials, read when they are needed for the first time."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

# How long an answer holds that somebody doubts (or that was: there is none), so that a wrong credential does not cost
# a call for every request.
REST_SECONDS = 30.0


class _Known(NamedTuple):
    value: str | None
    read_at: float


class SecretsManager:
    """The secrets whose names begin with `prefix`.

    A value is kept for good: who learns that it no longer holds asks for a fresh one. The client is made by the caller;
    it has no static type, as boto3 makes it at run time.
    """

    def __init__(self, client: Any, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def get(self, name: str, *, fresh: bool = False) -> str | None:
        """The secret `<prefix><name>`, None if there is none or it is empty. Blocks when it has to be read.

        `fresh` has it read again, unless it was read less than REST_SECONDS ago. Raises OSError if AWS fails.
        """
        known = self._known.get(name)
        if known is not None:
            holds = known.value is not None and not fresh
            if holds or self._clock() - known.read_at < REST_SECONDS:
                return known.value
        value = self._read(self._prefix + name)
        self._known[name] = _Known(value, self._clock())
        return value

    def _read(self, secret: str) -> str | None:
        try:
            found = self._client.get_secret_value(SecretId=secret)
        except ClientError as error:
            # Said of a secret without a value as well as of one that is not there.
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return None
            raise OSError(f"secret {secret}: {error}") from None
        except BotoCoreError as error:
            raise OSError(f"secret {secret}: {error}") from None
        return found.get("SecretString", "").strip() or None
