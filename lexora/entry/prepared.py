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
    return _catalogue(read_prompts(file), file)


def read_catalogue(content: bytes, name: object) -> Catalogue:
    """The known prompts, from what a `catalogue.json` holds. Raises ConfigError that begins with `name`."""
    return _catalogue(_decoded(content, _CatalogueFile, name).prompts, name)


def load_prepared(folder: Path) -> tuple[Catalogue, dict[tuple[str, int], str]]:
    """The catalogue and every answer, (prompt, variant) to text. Raises ConfigError that names the file at fault."""
    catalogue = load_catalogue(folder)
    answers = {}
    for entry in catalogue.prompts:
        for variant in range(entry.variants):
            answers[entry.prompt, variant] = read_answer(folder / "responses" / entry.id / f"{variant}.json")
    return catalogue, answers


def read_prompts(file: Path) -> list[PreparedPrompt]:
    """The entries of a catalogue, whatever they share. Raises ConfigError."""
    return read_file(file, _CatalogueFile).prompts


def read_answer(file: Path) -> str:
    """Raises ConfigError."""
    return read_file(file, _AnswerFile).response


def read_file(file: Path, kind: type[_File]) -> _File:
    """A file of JSON. Raises ConfigError that names it."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    return _decoded(content, kind, file)


def _decoded(content: bytes, kind: type[_File], name: object) -> _File:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: {error}") from None


def _catalogue(prompts: list[PreparedPrompt], name: object) -> Catalogue:
    try:
        return Catalogue(prompts)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
