"""How much is measured: what --quick shortens."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Rounds, and seconds per run."""

    gateway: Path
    rounds: int = 5
    plain_s: int = 5
    single_s: int = 3
    stream_rounds: int = 3
    stream_s: int = 10
    held_tokens: int = 10
