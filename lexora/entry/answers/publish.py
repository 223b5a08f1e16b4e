"""Puts what the folder says in force: all of it at once, as a version to which there is a way back."""

import argparse

from lexora.core.versions import Version
from lexora.entry.answers.target import Target, add_changing, agreed, chosen_target
from lexora.entry.answers.wanted import folders_content, shown_changes, summary, warnings
from lexora.entry.publishing import plan, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_changing(parser)
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="what it is for, for people to read")


def run(options: argparse.Namespace) -> int:
    wanted = folders_content(options)
    with chosen_target(options) as target:
        return put(options, target, wanted, options.message)


def put(options: argparse.Namespace, target: Target, wanted: Version, message: str) -> int:
    """Shows what changes, asks, and does it. Raises ConfigError and OSError."""
    target.check(wanted)
    target.keep_what_is_served()
    planned = plan(target.store, wanted, target.user, message)
    before = target.in_force()
    if not planned.is_needed and before is not None and before.says_the_same(wanted):
        say(f"{target.name} has these answers already (version {planned.version.id}); nothing to change")
        return 0
    for line in shown_changes(before, planned.version):
        print(line)
    for warning in warnings(before, planned.version):
        say(f"note: {warning}")
    if planned.seen.begun == planned.version.id:
        say(f"version {planned.version.id} was begun and not finished; this finishes it")
    if not agreed(options, f"{target.name}: {summary(before, planned.version)}. Publish?"):
        say("nothing is changed")
        return 1
    target.put_in_force(planned)
    back = "; back to the one before: lexora answers rollback" + (f" --env {options.env}" if options.env else "")
    say(f"version {planned.version.id} is in force{back if planned.version.before else ''}")
    return 0
