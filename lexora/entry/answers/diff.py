"""Shows what publishing the folder would change for readers. Exit status 1 with --exit-code if it would anything."""

import argparse

from lexora.entry.answers.target import add_target, chosen_target
from lexora.entry.answers.wanted import folders_content, named_version, shown_changes, summary
from lexora.entry.publishing import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--against", metavar="VERSION", help="compare with this version, not with what is in force")
    parser.add_argument("--exit-code", action="store_true", help="end with 1 if there is a difference")


def run(options: argparse.Namespace) -> int:
    wanted = folders_content(options)
    with chosen_target(options) as target:
        before = named_version(target.store, options.against) if options.against else target.in_force()
        if before is not None and before.says_the_same(wanted):
            say(f"{options.against or target.name} has the same answers")
            return 0
        for line in shown_changes(before, wanted):
            print(line)
        say(f"{target.name}: {summary(before, wanted)}")
    return 1 if options.exit_code else 0
