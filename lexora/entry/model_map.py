"""The model map's file, and mistakes in it (or in any other config) told by their exact path."""

import json
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lexora.core.model_map import ModelMap, parse_model_map
from lexora.entry.errors import ConfigError
from lexora.providers.table import PROVIDERS

Location = tuple[int | str, ...]


def load_model_map(path: Path) -> ModelMap:
    """Reads a model map (JSON). Raises ConfigError with the exact path of the first mistake."""
    return read_model_map(read_text(path), str(path))


def read_model_map(text: str | bytes, source: str) -> ModelMap:
    """The model map in `text`, which came from `source`. Raises ConfigError as `load_model_map` does."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid JSON: {error}") from None
    try:
        return parse_model_map(data, PROVIDERS)
    except ValidationError as error:
        raise ConfigError(first_problem(error, ModelMap, lambda _: source)) from None


def read_text(path: Path) -> str:
    """A file's text. Raises ConfigError."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a text file in UTF-8") from None


def first_problem(error: ValidationError, model: type[BaseModel], place_of: Callable[[Location], str]) -> str:
    """The first mistake in one line: where it stands (`place_of` its location), its path in the data, the mend."""
    problem = error.errors(include_url=False)[0]
    location = problem["loc"]
    place = place_of(location)
    dotted = _dotted(location)
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(str(location[-1]), sorted(_known_keys(model)), 1)
        what = "unknown key" + (f"; did you mean '{close[0]}'?" if close else "; remove it")
    else:
        what = problem["msg"].removeprefix("Value error, ").partition(" or instance of")[0]
        what = what[:1].lower() + what[1:]
        given = problem.get("input")
        if isinstance(given, str | int | float) and problem["type"] != "value_error":
            what += f" (found {given!r})"
    return f"{place}: {dotted}: {what}" if dotted else f"{place}: {what}"


def _dotted(location: Location) -> str:
    """`("models", "chat", "deployments", 0, "price")` as `models.chat.deployments[0].price`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]")
    return text.lstrip(".")


def _known_keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key that a config file may hold, at any depth."""
    definitions = model.model_json_schema().get("$defs", {})
    yield from model.model_fields
    for definition in definitions.values():
        yield from definition.get("properties", {})
