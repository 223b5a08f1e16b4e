"""The prepared answers' files: `catalogue.json` and `responses/<id>/<k>.json`."""

from pathlib import Path
from typing import TypeVar

import msgspec

from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.entry.errors import ConfigError

_ROOT = Path(__file__).resolve().parents[2]
SHIPPED = _ROOT / "static_responses"
PAGE = _ROOT / "clients" / "web"  # to try them in a browser


class _CatalogueFile(msgspec.Struct, forbid_unknown_fields=True):
    prompts: list[PreparedPrompt]


class _AnswerFile(msgspec.Struct, forbid_unknown_fields=True):
    response: str


_File = TypeVar("_File")


def load_catalogue(folder: Path) -> Catalogue:
    """The known prompts. Raises ConfigError that names the file at fault."""
    file = folder / "catalogue.json"
    try:
        return Catalogue(_read(file, _CatalogueFile).prompts)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None


def load_prepared(folder: Path) -> tuple[Catalogue, dict[tuple[str, int], str]]:
    """The catalogue and every answer, (prompt, variant) to text. Raises ConfigError that names the file at fault."""
    catalogue = load_catalogue(folder)
    answers = {}
    for entry in catalogue.prompts:
        for variant in range(entry.variants):
            file = folder / "responses" / entry.id / f"{variant}.json"
            answers[entry.prompt, variant] = _read(file, _AnswerFile).response
    return catalogue, answers


def _read(file: Path, kind: type[_File]) -> _File:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
