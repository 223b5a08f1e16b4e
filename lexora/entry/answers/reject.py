"""Removes drafts. The next `generate` asks for others."""

import argparse
import sys

from lexora.entry.answers.files import AnswerFiles
from lexora.entry.answers.folder import own_folder
from lexora.entry.answers.names import named_drafts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="q1_capital or q1_capital/3")


def run(options: argparse.Namespace) -> int:
    files = AnswerFiles(own_folder(options))
    for entry, number, _ in named_drafts(files, options.names):
        files.drop_draft(entry.id, number)
        print(f"rejected {entry.id}/{number}")
    print("next: lexora answers generate", file=sys.stderr)
    return 0
