"""Puts drafts among the answers that are served: from the next reload of the gateway, or publication, on."""

import argparse
import sys

import msgspec

from lexora.core.answer_checks import answer_faults, repeats
from lexora.core.answers import PreparedPrompt, normalise
from lexora.entry.answers.files import AnswerFiles
from lexora.entry.answers.folder import own_folder
from lexora.entry.answers.names import named_drafts
from lexora.entry.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="q1_capital or q1_capital/3")
    parser.add_argument("--all", action="store_true", help="every draft")


def run(options: argparse.Namespace) -> int:
    """Exit status 1 if a draft is refused; the others are accepted all the same."""
    if bool(options.names) == options.all:
        raise ConfigError("name the drafts to accept, or give --all; lexora answers review shows them")
    files = AnswerFiles(own_folder(options))
    accepted = refused = 0
    for entry, number, _ in named_drafts(files, options.names, everything=options.all):
        try:
            print(accept(files, entry, number))
            accepted += 1
        except ConfigError as error:
            print(error, file=sys.stderr)
            refused += 1
    if accepted:
        print("next: lexora reload, or publish them (docs/answers.md)", file=sys.stderr)
    print(f"{accepted} accepted, {refused} refused", file=sys.stderr)
    return 1 if refused else 0


def accept(files: AnswerFiles, entry: PreparedPrompt, number: int) -> str:
    """Serves a draft, checked as it stands there now, and says so. Raises ConfigError if it does not pass.

    The answer is written first, then the catalogue, then the draft is removed: whenever that is cut off, a gateway can
    load what there is.
    """
    draft = files.drafts(entry.id)[number]
    answers = files.answers(entry.id)
    place = draft.replaces
    if place is None or place not in answers:
        place = next(k for k in range(len(answers) + 1) if k not in answers)
    faults = answer_faults(entry.prompt, draft.response)
    if normalise(draft.prompt) != normalise(entry.prompt):
        faults.append(f"it answers '{draft.prompt}', which is no longer the prompt")
    others = ((f"responses/{entry.id}/{k}.json", text) for k, text in answers.items() if k != place)
    faults += repeats(draft.response, others)
    if faults:
        raise ConfigError(
            f"{files.draft_file(entry.id, number)} is refused: {'; '.join(faults)}; mend it there, or: "
            f"lexora answers reject {entry.id}/{number}"
        )
    files.write_answer(entry.id, place, draft.response)
    served = files.served().get(entry.id)
    ready = next(k for k in range(len(answers) + 2) if k != place and k not in answers)
    if served is None or ready > served.variants:
        files.serve(msgspec.structs.replace(served or entry, variants=ready))
    if entry.variants <= ready:
        files.fulfil(entry.id)
    files.drop_draft(entry.id, number)
    return f"{entry.id}/{number} is responses/{entry.id}/{place}.json"
