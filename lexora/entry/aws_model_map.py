"""The model map of an environment on AWS: read again when it has changed, and never worse than the last good one."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lexora.core.errors import InvalidRequest
from lexora.core.routing import Routes
from lexora.entry.errors import ConfigError

if TYPE_CHECKING:
    from lexora.adapters.emf import EmfMetrics
    from lexora.adapters.s3 import S3Object
    from lexora.core.gateway import Gateway

# A map that was changed is in force within a minute.
LOOK_AGAIN_SECONDS = 30.0
SOON_SECONDS = 1.0  # where there is none to serve by

_UNREADABLE = "The model map cannot be read at the moment. Try again soon."

log = logging.getLogger("lexora")


class ModelMapFile:
    """Keeps the routes of `gateway` at what the file says, or said when it was last valid; the bucket keeps versions.

    `file` gives the file when it is first needed. While it is broken or gone, each look at it is counted and logged.
    """

    gateway: Gateway

    def __init__(self, file: Callable[[], S3Object], metrics: EmfMetrics, environment: str) -> None:
        self._file = file
        self._metrics = metrics
        how = f"make config-push ENV={environment} FILE=model_map.json"
        self._how_to_connect = f"No model is connected. Put a model map with deployments in force: {how}"
        self._look_again_at = 0.0
        self._loaded = False
        self._unread = False
        self._refused: Exception | None = None

    def none(self) -> Routes:
        """The routes while there is no model map."""
        return Routes({}, how_to_connect=self._how_to_connect)

    def refresh(self) -> None:
        """Looks whether the file has changed, if it has not just been done. Never raises."""
        if time.monotonic() < self._look_again_at:
            return
        rest = LOOK_AGAIN_SECONDS
        try:
            data = self._file().read()
        except FileNotFoundError as error:
            self._refuse(error)
        except OSError as error:
            log.error("the model map cannot be read: %s", error)  # noqa: TRY400 - not a bug
            self._unread = True
            if not self._loaded:
                rest = SOON_SECONDS
                self._serve(Routes({}, how_to_connect=_UNREADABLE))
        else:
            self._unread = False
            if data is not None:
                self._take(data)
        if self._refused is not None:
            serves = "the last good one serves" if self._loaded else "and none before it is good"
            log.error("the model map is refused, %s: %s", serves, self._refused)
            self._metrics.count("ModelMapRefused")
        self._look_again_at = time.monotonic() + rest

    async def reload(self) -> str:
        """Looks now; other copies of the function do so within LOOK_AGAIN_SECONDS. Raises InvalidRequest."""
        self._look_again_at = 0.0
        self.refresh()
        if self._refused is not None or self._unread:
            problem = f"is refused: {self._refused}" if self._refused else "cannot be read at the moment"
            raise InvalidRequest(f"The model map {problem}. The last good one serves.", code="reload_refused")
        models = len(self.gateway.setup.routes.names)
        return f"{models} models here, and in every copy of the function within {LOOK_AGAIN_SECONDS:g} s"

    def _take(self, data: bytes) -> None:
        try:
            self._load(data)
            self._refused = None
        except ConfigError as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        self._refused = error
        if self._loaded:
            return
        self._serve(self.none())
        try:
            for data in self._file().earlier():
                with contextlib.suppress(ConfigError):
                    self._load(data)
                    return
        except OSError as error:
            log.error("earlier model maps cannot be read: %s", error)  # noqa: TRY400 - not a bug

    def _load(self, data: bytes) -> None:
        from lexora.entry.model_map import read_model_map  # pydantic: a prepared answer does not need it

        models = read_model_map(data, "model_map.json").models
        self._serve(Routes(models, how_to_connect=self._how_to_connect))
        self._loaded = True
        log.info("model map loaded: %s", ", ".join(models) or "no models")

    def _serve(self, routes: Routes) -> None:
        self.gateway.setup = self.gateway.setup._replace(routes=routes)
