"""Finds prompts that were asked again and again, shows what each cost and what a prepared answer would have saved.

Counted are completed requests that a prepared answer could have answered: a lone message of a user, asked plainly.
They would all have been free, so what is saved is what they cost, less what making the variants costs, were each to
cost what one of the answers did. Those accepted are added to the catalogue of drafts, for `generate`.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from lexora.adapters.sqlite_prompts import asked_prompts
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.promotion import Asked, Proposal, Proposals, propose
from lexora.entry.answers.add import add_alias, add_prompt, variants
from lexora.entry.answers.files import AnswerFiles
from lexora.entry.answers.folder import chosen_folder, own_folder
from lexora.entry.config import load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.folders import data_folder

_UNITS = {"m": 60, "h": 3600, "d": 86400}


class _Line(msgspec.Struct, rename="camel"):
    """What counts of a log line."""

    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    lone_prompt: bool
    outcome: str
    user_id: str | None
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    latest_user_message: str | None = None


_decode = msgspec.json.Decoder(_Line).decode
_TITLES = ("REF", "ASKED", "USERS", "TOKENS", "COST USD", "SAVED USD", "PROMPT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=_seconds, default="30d", metavar="TIME", help="90m, 12h, 30d (default: 30d)")
    parser.add_argument("--min-count", type=_count, default=3, metavar="N", help="asked so often or more (default: 3)")
    parser.add_argument(
        "--users", type=_count, metavar="N", help="by so many users or more (default: 2, where requests have users)"
    )
    parser.add_argument("--limit", type=_count, default=20, metavar="N", help="show so many (default: 20)")
    parser.add_argument("--variants", type=variants, default=5, metavar="N", help="of each prompt (default: 5)")
    parser.add_argument("--log", metavar="FILE", help="read log lines in place of the records; - for stdin")
    parser.add_argument("--json", action="store_true", help="the proposals as JSON")
    parser.add_argument("--accept", metavar="REF[,REF]", help="add these proposals")
    parser.add_argument("--id", metavar="ID", help="the id of the one accepted; a known one makes it an alias of that")


def run(options: argparse.Namespace) -> int:
    files = AnswerFiles(own_folder(options) if options.accept else chosen_folder(options))
    try:
        catalogue = Catalogue(files.entries().values())
    except ValueError as error:
        raise ConfigError(f"{error}; lexora answers check says more") from None
    proposals = propose(
        _asked(options, time.time() - options.since),
        catalogue,
        min_count=options.min_count,
        min_users=options.users,
        variants=options.variants,
    )
    if options.accept:
        _accept(files, catalogue, proposals.found, options)
    elif options.json:
        print(msgspec.json.format(msgspec.json.encode(proposals.found[: options.limit])).decode())
    else:
        _show(proposals, catalogue, options.limit)
    return 0


def _accept(files: AnswerFiles, catalogue: Catalogue, proposals: list[Proposal], options: argparse.Namespace) -> None:
    found = {proposal.ref: proposal for proposal in proposals}
    refs = list(dict.fromkeys(filter(None, options.accept.split(","))))
    if options.id and len(refs) != 1:
        raise ConfigError("--id names the one proposal that --accept names; accept the others by themselves")
    for ref in refs:
        if ref not in found:
            raise ConfigError(f"there is no proposal {ref}; give --since, --min-count and --users as where you saw it")
        near = catalogue.by_id(found[ref].near or "")
        if near is not None and not options.id:
            raise ConfigError(
                f"{ref} ({found[ref].prompt}) is close to {near.id} ({near.prompt}): if it asks the same, accept it "
                f"with --id {near.id}, else with an id of its own: --id {found[ref].suggested_id}"
            )
    new = []
    for ref in refs:
        proposal = found[ref]
        name = options.id or proposal.suggested_id
        if (known := catalogue.by_id(name)) is not None:
            print(add_alias(files, known.id, proposal.prompt))
        else:
            print(add_prompt(files, PreparedPrompt(name, proposal.prompt, [], options.variants)))
            new.append(name)
    if new:
        print(f"next: lexora answers generate --ids {' '.join(new)}", file=sys.stderr)


def _show(proposals: Proposals, catalogue: Catalogue, limit: int) -> None:
    shown = proposals.found[:limit]
    rows = [_TITLES, *map(_row, shown)]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    for place, row in enumerate(rows if shown else ()):
        ref, *numbers, prompt = row
        cells = [ref.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))]
        print("  ".join((*cells, prompt)))
        near = catalogue.by_id(shown[place - 1].near or "") if place else None
        if near is not None:
            print(f"{'':{widths[0]}}  close to {near.id} ({near.prompt}): an alias? then --id {near.id}")
    found = len(proposals.found)
    notes = [f"{found} {'prompt' if found == 1 else 'prompts'}, {len(shown)} of them shown"]
    if proposals.of_few:
        notes.append(f"{proposals.of_few} more were asked by too few users to be shown (--users 1 shows them)")
    if any(proposal.unpriced for proposal in shown):
        notes.append("+: some of its requests have no known price, and are not in its cost")
    if shown:
        notes.append("next: lexora answers promote --accept REF[,REF]")
    print("\n".join(notes), file=sys.stderr)


def _row(proposal: Proposal) -> tuple[str, ...]:
    prompt = " ".join(proposal.prompt.split())
    return (
        proposal.ref,
        f"{proposal.count:,}",
        f"{proposal.users:,}",
        f"{proposal.tokens:,}",
        f"{proposal.cost_usd:.6f}{'+' if proposal.unpriced else ''}",
        f"{proposal.saved_usd:.6f}",
        prompt if len(prompt) <= 80 else f"{prompt[:79]}…",
    )


def _asked(options: argparse.Namespace, since: float) -> Iterator[Asked]:
    """The requests, of the records or a log. Raises ConfigError and OSError."""
    if options.log is None:
        path = data_folder(options.data, load_settings(options.config)) / "lexora.db"
        if not path.exists():
            raise ConfigError(f"there are no records in {path.parent}; name the gateway's folder with --data")
        yield from asked_prompts(path, since)
    elif options.log == "-":
        yield from asked_in_log(sys.stdin.buffer, since)
    else:
        with Path(options.log).open("rb") as lines:
            yield from asked_in_log(lines, since)


def asked_in_log(lines: Iterable[bytes], since: float) -> Iterator[Asked]:
    """The same from a gateway's log lines, whatever stands before them, as in `make logs`.

    What is no line of a request for a lone prompt is passed over; a log without the users' words is of no use.
    """
    wordless = False
    for line in lines:
        if b'"lonePrompt"' not in line:
            continue
        try:
            asked = _decode(line[line.find(b"{") :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if not asked.lone_prompt or asked.outcome != "completed" or asked.timestamp.timestamp() < since:
            continue
        if asked.latest_user_message is None:
            wordless = True
            continue
        yield Asked(asked.latest_user_message, asked.user_id, asked.tokens_in + asked.tokens_out, asked.cost_usd)
    if wordless:
        print("note: lines without the users' words are passed over (`message_text: false`)", file=sys.stderr)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no time; write a number and a unit: 90m, 12h, 30d")
    return float(match[1]) * _UNITS[match[2]]


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no count; give 1 or more")
    return int(text)
