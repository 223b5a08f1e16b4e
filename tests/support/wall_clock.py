"""A wall clock that tests can set, for a process of its own (libfaketime). What counts seconds is not touched."""

import time
from datetime import datetime
from pathlib import Path

import pytest


class WallClock:
    """The clock of every process that is started with `environment`. It goes on from what it was set to last."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where there is no libfaketime."""
        libraries = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
        if not libraries:
            pytest.skip("a clock that can be set takes libfaketime (Debian: apt-get install libfaketime)")
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": libraries[0],
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        }

    def set(self, to: datetime, *, stopped: bool = False) -> None:
        """All at once, as an operator or NTP does it; `stopped` clocks stay at their second."""
        said = f"{to:%Y-%m-%d %H:%M:%S}" if stopped else f"{to.timestamp() - time.time():+.3f}"
        new = self._file.with_suffix(".new")
        new.write_text(said)
        new.replace(self._file)
