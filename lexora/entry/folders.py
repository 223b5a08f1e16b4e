"""Where a gateway keeps its data."""

from pathlib import Path

from lexora.entry.config import Settings


def data_folder(chosen: Path | None, settings: Settings) -> Path:
    """What the command line says, else the config, else `./data`."""
    return chosen or settings.data or Path("data")
