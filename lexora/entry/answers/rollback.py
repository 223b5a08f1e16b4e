"""Puts an earlier version in force again. What is published afterwards goes on from that one."""

import argparse

from lexora.core.versions import Version
from lexora.entry.answers.publish import put
from lexora.entry.answers.target import Target, add_changing, chosen_target
from lexora.entry.answers.wanted import named_version
from lexora.entry.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_changing(parser)
    parser.add_argument(
        "version", nargs="?", metavar="VERSION", help="its id or the beginning of it (default: the one before)"
    )


def run(options: argparse.Namespace) -> int:
    with chosen_target(options) as target:
        wanted = named_version(target.store, options.version) if options.version else _the_one_before(target)
        return put(options, target, wanted, "")


def _the_one_before(target: Target) -> Version:
    target.keep_what_is_served()
    state = target.store.in_force()
    now = state.version
    version = target.store.get(now) if now else None
    was = target.store.get(state.was) if state.was else None
    if version is not None and was is not None and was.before == now:
        return version  # somebody was about to do this, and has died
    before = target.store.get(version.before) if version and version.before else None
    if before is None:
        raise ConfigError(f"{target.name} has no version before {now}" if now else f"{target.name} has no version")
    return before
