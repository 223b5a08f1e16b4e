"""The folder that an action works on."""

import argparse
from pathlib import Path

from lexora.entry.config import load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.prepared import SHIPPED

_INSTALLED = {"site-packages", "dist-packages"}


def chosen_folder(options: argparse.Namespace) -> Path:
    """What the command line says, else the config, else ./static_responses, else what comes with Lexora.

    Raises ConfigError if it holds no catalogue.
    """
    here = Path("static_responses")
    folder: Path = options.folder or load_settings(options.config).answers or (here if here.is_dir() else SHIPPED)
    if not (folder / "catalogue.json").is_file():
        raise ConfigError(
            f"{folder} holds no catalogue.json; name the folder of one with --folder, "
            f"or begin one: mkdir -p {folder} && echo '{{\"prompts\": []}}' > {folder}/catalogue.json"
        )
    return folder


def own_folder(options: argparse.Namespace) -> Path:
    """The same, to write to. Raises ConfigError if it is part of an installed package."""
    folder = chosen_folder(options)
    if _INSTALLED & set(folder.resolve().parts):
        raise ConfigError(
            f"{folder} belongs to the installed package, and the next upgrade would undo what is written there; "
            f"copy it (cp -r {folder} static_responses), and name the copy with --folder or in the config: "
            "answers: static_responses"
        )
    return folder
