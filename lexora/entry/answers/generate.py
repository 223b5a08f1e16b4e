"""Asks a model for the variants that are missing, and writes those that pass the checks to drafts/, for review.

What is there already is kept, so to go on after an interruption is to run it again. Exit status 1 if a variant could
not be had.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple

from lexora.core.answer_checks import answer_faults, repeats
from lexora.core.answer_drafts import answer_of, draft_messages
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.entry.answers.add import variants
from lexora.entry.answers.asking import Answer, Asker, NoAnswer
from lexora.entry.answers.files import AnswerFiles, Draft
from lexora.entry.answers.folder import own_folder
from lexora.entry.errors import ConfigError
from lexora.entry.models import address

_WORDS = {
    "length": "it was cut off at the token limit (--max-tokens)",
    "content_filter": "the provider's filter cut it off",
}


class Slot(NamedTuple):
    """A draft that is to be made. `replaces` is the served variant whose place it is to take."""

    entry: PreparedPrompt
    number: int
    replaces: int | None = None

    @property
    def name(self) -> str:
        return f"{self.entry.id}/{self.number}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ids",
        action="extend",
        nargs="+",
        metavar="ID",
        help="prompts (q1_capital), or served variants to replace (q1_capital/3) (default: every prompt)",
    )
    parser.add_argument(
        "--variants", type=variants, metavar="N", help="how many answers a prompt is to have (default: what was wished)"
    )
    parser.add_argument("--again", action="store_true", help="drafts in the place of the served answers as well")
    parser.add_argument("--model", metavar="NAME", help="the model to ask (default: the gateway's)")
    parser.add_argument("--url", help="a gateway that runs (default: the config's, else http://127.0.0.1:8001)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default: 1.0")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="the limit of one answer (default: the model's)")
    parser.add_argument("--tries", type=int, default=4, metavar="N", help="answers for one draft (default: 4)")
    parser.add_argument("--parallel", type=int, default=4, metavar="N", help="prompts at a time (default: 4)")
    parser.add_argument("--json", action="store_true", help="what has become of each draft, as JSON")


def run(options: argparse.Namespace) -> int:
    for name in ("tries", "parallel", "max_tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be 1 or more")
    files = AnswerFiles(own_folder(options))
    slots = missing(files, options.ids, options.variants, again=options.again)
    work = _Work(files, options, sum(map(len, slots.values())))
    try:
        if slots:
            asyncio.run(work.do(slots))
    except (ConfigError, KeyboardInterrupt):
        if work.written:
            work.report()
        raise
    work.report()
    return 1 if work.given_up else 0


def missing(
    files: AnswerFiles, names: list[str] | None, wanted: int | None, *, again: bool = False
) -> dict[str, list[Slot]]:
    """The drafts that are not there yet, by prompt. Raises ConfigError."""
    entries = files.entries()
    chosen = _chosen(entries, names) if names else {name: set[int]() for name in entries}
    slots = {}
    for name, replaced in chosen.items():
        entry, answers, drafts = entries[name], files.answers(name), files.drafts(name)
        for number in replaced - answers.keys():
            raise ConfigError(f"{name}/{number} is not served, so there is nothing to replace")
        replaced = (set(answers) if again else replaced) - {draft.replaces for draft in drafts.values()}
        new = sum(draft.replaces is None for draft in drafts.values())
        more = 0 if names and chosen[name] else (wanted or entry.variants) - len(answers) - new
        free = (number for number in count() if number not in answers and number not in drafts)
        found = [Slot(entry, next(free) if number in drafts else number, number) for number in sorted(replaced)]
        found += [Slot(entry, next(free)) for _ in range(more)]
        if found:
            slots[name] = found
    return slots


def _chosen(entries: dict[str, PreparedPrompt], names: list[str]) -> dict[str, set[int]]:
    """The prompts that are named, and which of their variants, if it is variants that are. Raises ConfigError."""
    catalogue = Catalogue(entries.values())
    chosen: dict[str, set[int]] = {}
    for name in (part for text in names for part in text.split(",") if part):
        prompt_id, slash, number = name.partition("/")
        entry = catalogue.by_id(prompt_id)
        if entry is None or (slash and not number.isdecimal()):
            raise ConfigError(f"--ids: there is no {name}; prompts are {', '.join(entries) or 'none yet'}")
        chosen.setdefault(entry.id, set()).update({int(number)} if slash else ())
    return chosen


class _Work:
    """One run: asks, checks, writes, and tells on stderr how far it is."""

    def __init__(self, files: AnswerFiles, options: argparse.Namespace, all_: int) -> None:
        self._files = files
        self._options = options
        self._all = all_
        self._done = 0
        self._cost = 0.0
        self._unpriced = 0
        self.written: list[str] = []
        self.given_up: dict[str, str] = {}

    async def do(self, slots: dict[str, list[Slot]]) -> None:
        """Raises ConfigError for what is wrong with every request; what was written by then is kept."""
        asker = Asker(self._options.url or address(self._options.config), os.environ.get("LEXORA_API_KEY"))
        free = asyncio.Semaphore(self._options.parallel)
        try:
            await asker.look()
            async with asyncio.TaskGroup() as group:
                for of_one in slots.values():
                    group.create_task(self._one_prompt(asker, of_one, free))
        except ExceptionGroup as errors:  # the first has ended all tasks
            raise errors.exceptions[0] from None
        finally:
            asker.close()

    async def _one_prompt(self, asker: Asker, slots: list[Slot], free: asyncio.Semaphore) -> None:
        """One variant after the other, as each is shown those before it."""
        async with free:
            for slot in slots:
                started = time.monotonic()
                try:
                    draft = await self._draft(asker, slot)
                except NoAnswer as error:
                    self._done += 1
                    self.given_up[slot.name] = str(error)
                    self._tell(slot, f"given up: {error}")
                    continue
                self._files.write_draft(slot.entry.id, slot.number, draft)
                self._done += 1
                self.written.append(slot.name)
                took = time.monotonic() - started
                self._tell(slot, f"written: {len(draft.response)} characters of {draft.deployment}, {took:.1f} s")

    async def _draft(self, asker: Asker, slot: Slot) -> Draft:
        """Asks until an answer passes the checks. Raises NoAnswer."""
        others = {file: text for file, text in self._files.texts(slot.entry.id).items() if text.strip()}
        if slot.replaces is not None:
            others.pop(self._files.answer_file(slot.entry.id, slot.replaces), None)
        body = {
            "model": self._options.model,
            "messages": draft_messages(slot.entry.prompt, list(others.values())),
            "temperature": self._options.temperature,
            "max_tokens": self._options.max_tokens,
        }
        request = {name: value for name, value in body.items() if value is not None}
        known = [(str(file.relative_to(self._files.folder)), text) for file, text in others.items()]
        for attempt in range(1, self._options.tries + 1):
            answer = await asker.chat(request, lambda said: self._tell(slot, said))
            self._cost += answer.cost_usd or 0.0
            self._unpriced += answer.cost_usd is None
            text = answer_of(answer.text)
            faults = _unfinished(answer) or answer_faults(slot.entry.prompt, text) or repeats(text, known)
            if not faults:
                return _draft(slot, text, answer)
            if attempt < self._options.tries:
                self._tell(slot, f"rejected: {'; '.join(faults)}; asks again")
        raise NoAnswer(f"{'; '.join(faults)} (the last of {self._options.tries} tries)")

    def _tell(self, slot: Slot, text: str) -> None:
        print(f"[{self._done:>{len(str(self._all))}}/{self._all}] {slot.name}  {text}", file=sys.stderr, flush=True)

    def report(self) -> None:
        """What has become of it: a line, or with --json all of it."""
        drafts = self._files.folder / "drafts"
        if self._options.json:
            shown = {
                "folder": str(drafts),
                "written": self.written,
                "given_up": self.given_up,
                "cost_usd": self._cost,
                "unpriced": self._unpriced,
            }
            print(json.dumps(shown, ensure_ascii=False, indent=2))
        elif not self._all:
            print("nothing is missing; for more, raise --variants, and for others in their place, use --again")
        else:
            unpriced = f" and {self._unpriced} answers of unknown price" if self._unpriced else ""
            print(
                f"{len(self.written)} of {self._all} drafts written to {drafts}, {len(self.given_up)} given up; "
                f"cost: {self._cost:.6f} USD{unpriced}"
            )
        left = self._all - len(self.written)
        if left:
            other = ", or with another --model" if self.given_up else ""
            print(f"{left} missing: run it again to go on{other}; what is written is kept", file=sys.stderr)
        if self.written:
            print("next: lexora answers review", file=sys.stderr)


def _unfinished(answer: Answer) -> list[str]:
    """How an answer ended, if not by itself."""
    reason = answer.finish_reason
    return [] if reason == "stop" else [_WORDS.get(reason or "", f"it ended with '{reason}' in the place of 'stop'")]


def _draft(slot: Slot, text: str, answer: Answer) -> Draft:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Draft(slot.entry.prompt, text, slot.replaces, answer.model, answer.deployment, now, answer.cost_usd)
