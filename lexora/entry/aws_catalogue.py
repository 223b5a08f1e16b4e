"""The catalogue of an environment on AWS: the one that was published last, read again from time to time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from lexora.entry.errors import ConfigError
from lexora.entry.prepared import read_catalogue

if TYPE_CHECKING:
    from lexora.adapters.dynamodb_versions import PublishedCatalogue
    from lexora.core.gateway import Gateway

# What is published is known within half a minute, and at once by whoever asks for an answer that is gone.
LOOK_AGAIN_SECONDS = 30.0
SOON_SECONDS = 1.0

log = logging.getLogger("lexora")


class CatalogueInForce:
    """Keeps the catalogue of `gateway` at what was published; where nothing was, or it cannot be read, as it is."""

    gateway: Gateway

    def __init__(self, published: PublishedCatalogue) -> None:
        self._published = published
        self._known: bytes | None = None
        self._looked_at = float("-inf")

    def renew(self, must: bool) -> None:
        """Looks whether another one was published, if that has not just been done. Never raises."""
        now = time.monotonic()
        if now < self._looked_at + (SOON_SECONDS if must else LOOK_AGAIN_SECONDS):
            return
        self._looked_at = now
        try:
            content = self._published.read()
            if content is not None and content != self._known:
                catalogue = read_catalogue(content, "the published catalogue")
                self.gateway.setup = self.gateway.setup._replace(catalogue=catalogue)
                self._known = content
        except (OSError, ConfigError) as error:
            log.error("the catalogue of prepared answers cannot be read: %s", error)  # noqa: TRY400 - not a bug
