"""`lexora answers`: the life of a prepared answer, from the wish for it to what is served."""

import argparse
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from lexora.entry.errors import ConfigError

# What the command can do. Each action is the module of its name here, which has `add_arguments(parser)` and
# `run(options)`: the exit status, or ConfigError for what whoever called it must mend.
ACTIONS = {
    "promote": "find prompts that are asked again and again, and what they cost",
    "add": "add a prompt, or another wording of one",
    "generate": "ask a model for the answers that are missing, as drafts",
    "review": "show the drafts, and ask what becomes of each",
    "accept": "put drafts among the served answers",
    "reject": "remove drafts",
    "check": "look for mistakes in the catalogue, the answers and the drafts",
    "diff": "show what publishing would change for readers",
    "publish": "put the folder's answers in force, here or on AWS (--env), as a version",
    "rollback": "put an earlier version in force again",
    "versions": "list the versions that were published",
}


def add_actions(
    parser: argparse.ArgumentParser, parents: list[argparse.ArgumentParser], names: Iterable[str] = ACTIONS
) -> None:
    """Gives `parser` the actions of these names; with each of them come `parents` and `--folder`."""
    common = argparse.ArgumentParser(add_help=False, parents=parents)
    common.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where catalogue.json is (default: the config's `answers`, else ./static_responses, else the shipped one)",
    )
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    for name in names:
        module = import_module(f"{__name__}.{name}")
        module.add_arguments(actions.add_parser(name, parents=[common], help=ACTIONS[name], description=module.__doc__))


def run(options: argparse.Namespace) -> int:
    """Does what the command line says; `options.config` is the path of the config or None. Raises ConfigError."""
    try:
        status: int = import_module(f"{__name__}.{options.action}").run(options)
    except BrokenPipeError:
        raise
    except OSError as error:  # a folder that may not be read or written, say
        raise ConfigError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None
    return status
