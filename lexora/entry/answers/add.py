"""Adds a prompt, to be served once it has accepted answers, or another wording of one."""

import argparse
import sys

from lexora.core.answer_checks import catalogue_faults
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.entry.answers.files import AnswerFiles
from lexora.entry.answers.folder import own_folder
from lexora.entry.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the new prompt, as people ask it")
    parser.add_argument("--id", required=True, metavar="ID", help="its id and folder, such as q11_capital")
    parser.add_argument("--alias", action="append", default=[], metavar="TEXT", help="another wording; repeatable")
    parser.add_argument("--variants", type=variants, default=5, metavar="N", help="how many answers (default: 5)")


def variants(text: str) -> int:
    """A number of variants, from the command line."""
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of variants; give one from 1 to 100")
    return int(text)


def run(options: argparse.Namespace) -> int:
    files = AnswerFiles(own_folder(options))
    if options.prompt is not None:
        print(add_prompt(files, PreparedPrompt(options.id, options.prompt, options.alias, options.variants)))
        print(f"next: lexora answers generate --ids {options.id}", file=sys.stderr)
    elif options.alias:
        for alias in options.alias:
            print(add_alias(files, options.id, alias))
    else:
        raise ConfigError("nothing to add; give a prompt, or another wording of a known one with --alias")
    return 0


def add_prompt(files: AnswerFiles, new: PreparedPrompt) -> str:
    """Adds a prompt and says so. Raises ConfigError if it cannot be told from those that are there."""
    known = files.entries()
    if new.id in known:
        raise ConfigError(
            f"{new.id} is there: {known[new.id].prompt}; to give it another wording: "
            f"lexora answers add --id {new.id} --alias '{new.prompt}'"
        )
    _require_sound([*known.values()], [*known.values(), new])
    files.wish(new)
    return f"added {new.id}: {new.prompt}"


def add_alias(files: AnswerFiles, name: str, alias: str) -> str:
    """Gives a prompt another wording and says so. Raises ConfigError."""
    known = files.entries()
    entry = Catalogue(known.values()).by_id(name)
    if entry is None:
        raise ConfigError(f"there is no prompt {name}; ids are {', '.join(known) or 'none yet'}")
    changed = PreparedPrompt(entry.id, entry.prompt, [*entry.aliases, alias])
    _require_sound([*known.values()], [changed if other is entry else other for other in known.values()])
    files.add_alias(entry.id, alias)
    return f"added to {entry.id}: {alias}"


def _require_sound(before: list[PreparedPrompt], after: list[PreparedPrompt]) -> None:
    """Raises ConfigError for what a change would make wrong, and for nothing that was wrong already."""
    old = catalogue_faults(before)
    new = next((fault for fault in catalogue_faults(after) if fault not in old), None)
    if new is not None:
        raise ConfigError(f"not added: {new}")
