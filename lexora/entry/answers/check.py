"""Looks for mistakes in the catalogue and the answers. Exit status 1 if there are any."""

import argparse
import sys

from lexora.entry.answers.folder import chosen_folder
from lexora.entry.errors import ConfigError
from lexora.entry.prepared import load_prepared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    folder = chosen_folder(options)
    try:
        catalogue, answers = load_prepared(folder)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(answers)} answers to {len(catalogue.prompts)} prompts in {folder}: no mistakes")
    return 0
