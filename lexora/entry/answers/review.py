"""Shows the drafts that wait for review. On a terminal it asks what becomes of each."""

import argparse
import json
import sys
from collections.abc import Iterator

import msgspec

from lexora.core.answer_checks import answer_faults, repeats
from lexora.core.answers import PreparedPrompt
from lexora.entry.answers.accept import accept
from lexora.entry.answers.files import AnswerFiles, Draft
from lexora.entry.answers.folder import chosen_folder, own_folder
from lexora.entry.answers.names import Waiting, named_drafts
from lexora.entry.errors import ConfigError

_QUESTION = "  [a]ccept, [r]eject, [s]kip, [q]uit? "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="q1_capital or q1_capital/3 (default: every draft)")
    parser.add_argument("--json", action="store_true", help="the drafts as JSON")


def run(options: argparse.Namespace) -> int:
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not options.json
    files = AnswerFiles(own_folder(options) if asks else chosen_folder(options))
    drafts = named_drafts(files, options.names, everything=not options.names)
    if options.json:
        shown = [{"name": f"{entry.id}/{number}", **msgspec.to_builtins(draft)} for entry, number, draft in drafts]
        print(json.dumps(shown, ensure_ascii=False, indent=2))
    elif asks:
        _ask(files, drafts)
    else:
        for entry, number, draft in drafts:
            print(_shown(files, entry, number, draft))
        then = "; then lexora answers accept NAME … (or --all), lexora answers reject NAME …" if drafts else ""
        print(f"{len(drafts)} {'draft waits' if len(drafts) == 1 else 'drafts wait'} for review{then}", file=sys.stderr)
    return 0


def _ask(files: AnswerFiles, drafts: Waiting) -> None:
    for place, (entry, number, draft) in enumerate(drafts, 1):
        print(f"({place} of {len(drafts)}) {_shown(files, entry, number, draft)}")
        answer = ""
        while answer not in ("a", "r", "s", "q"):
            try:
                answer = input(_QUESTION).strip().lower()[:1]
            except EOFError:
                answer = "q"
        if answer == "q":
            return
        try:
            if answer == "a":
                print(f"  {accept(files, entry, number)}")
            elif answer == "r":
                files.drop_draft(entry.id, number)
                print("  rejected")
        except ConfigError as error:
            print(f"  {error}")
    print("no more drafts" if drafts else "no draft waits for review")


def _shown(files: AnswerFiles, entry: PreparedPrompt, number: int, draft: Draft) -> str:
    """A draft, and what is wrong with it: what `accept` would refuse, and whether it repeats an earlier draft."""
    facts = ", ".join(filter(None, (draft.deployment or draft.model, draft.generated_at)))
    place = f", in the place of variant {draft.replaces}" if draft.replaces is not None else ""
    lines = [f"{entry.id}/{number}  {entry.prompt}", f"  {facts or 'written by hand'}{place}", ""]
    lines += [f"    {line}" for line in draft.response.splitlines()]
    faults = answer_faults(entry.prompt, draft.response) or repeats(
        draft.response, _others(files, entry, number, draft)
    )
    lines += [f"  ! {fault}" for fault in faults]
    return "\n".join((*lines, ""))


def _others(files: AnswerFiles, entry: PreparedPrompt, number: int, draft: Draft) -> Iterator[tuple[str, str]]:
    """The answers that it would be served beside, by their file."""
    for k, text in files.answers(entry.id).items():
        if k != draft.replaces:
            yield f"responses/{entry.id}/{k}.json", text
    for k, other in files.drafts(entry.id).items():
        if k < number:
            yield f"drafts/{entry.id}/{k}.json", other.response
