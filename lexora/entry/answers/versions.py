"""Lists the versions that were published, newest first; `*` is in force."""

import argparse
import json

import msgspec

from lexora.entry.answers.target import add_target, chosen_target
from lexora.entry.answers.wanted import described
from lexora.entry.publishing import say

_MOST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--all", action="store_true", help=f"not just the last {_MOST}")
    parser.add_argument("--json", action="store_true", help="as JSON, with everything in them")


def run(options: argparse.Namespace) -> int:
    with chosen_target(options) as target:
        state = target.store.in_force()
        ids = target.store.ids()
        shown = ids if options.all else ids[:_MOST]
        versions = [version for version in map(target.store.get, shown) if version is not None]
        if options.json:
            facts = [{**msgspec.to_builtins(it), "in_force": it.id == state.version} for it in versions]
            print(json.dumps(facts, ensure_ascii=False, indent=2))
            return 0
        for version in versions:
            print(f"{'*' if version.id == state.version else ' '} {described(version)}")
        if len(shown) < len(ids):
            say(f"and {len(ids) - len(shown)} older ones: --all")
        if state.begun:
            say(f"version {state.begun} was begun and is not finished")
        served = target.in_force()
        known = target.store.get(state.version) if state.version else None
        if served is not None and (known is None or not known.says_the_same(served)):
            say("what is served came by a start or a reload and was never published")
    return 0
