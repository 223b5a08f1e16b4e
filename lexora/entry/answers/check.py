"""Looks for mistakes in the catalogue, the answers and the drafts. Exit status 1 if there are any."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from lexora.core.answer_checks import answer_faults, catalogue_faults, repeats
from lexora.core.answers import PreparedPrompt, normalise
from lexora.entry.answers.files import AnswerFiles, Draft, is_numbered
from lexora.entry.answers.folder import chosen_folder
from lexora.entry.errors import ConfigError
from lexora.entry.prepared import read_answer, read_file, read_prompts

_Read = TypeVar("_Read")
# Hidden files are no answers: those of file managers, and what a write that was cut off has left.
_SEEN = "[!.]*"


class Finding(NamedTuple):
    """A mistake, and what to do about it."""

    file: Path
    problem: str
    mend: str


class Report(NamedTuple):
    findings: list[Finding]
    prompts: int
    answers: int
    drafts: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(options: argparse.Namespace) -> int:
    folder = chosen_folder(options)
    report = check(AnswerFiles(folder))
    counted = f"{report.answers} answers to {report.prompts} prompts, {report.drafts} drafts"
    if options.json:
        findings = [{"file": str(file), "problem": problem, "mend": mend} for file, problem, mend in report.findings]
        shown = {"folder": str(folder), **report._asdict(), "findings": findings}
        print(json.dumps(shown, ensure_ascii=False, indent=2))
    else:
        for file, problem, mend in report.findings:
            print(f"{file}: {problem}; {mend}")
        many = f"{len(report.findings)} {'mistake' if len(report.findings) == 1 else 'mistakes'}"
        print(f"{folder}: {counted}: {many if report.findings else 'no mistakes'}", file=sys.stderr)
    return 1 if report.findings else 0


def check(files: AnswerFiles) -> Report:
    """Everything that is wrong in a folder, and how much there is in it."""
    findings: list[Finding] = []
    served = _read(findings, read_prompts, files.catalogue) or []
    wished = (_read(findings, read_prompts, files.wishes) or []) if files.wishes.exists() else []
    ids = {entry.id for entry in served}
    new = [entry for entry in wished if entry.id not in ids]
    known = catalogue_faults(served)
    findings += [_fault(files.catalogue, fault) for fault in known]
    findings += [_fault(files.wishes, fault) for fault in catalogue_faults([*served, *new]) if fault not in known]
    answers = drafts = 0
    for entry in (*served, *new):
        texts = _answers(files, entry, findings) if entry.id in ids else {}
        waiting = _drafts(files, entry, findings)
        answers, drafts = answers + len(texts), drafts + len(waiting)
        findings += _unfit(files.folder, entry, texts | waiting)
    findings += _strangers(files.folder / "responses", ids, f"nothing serves it: {files.catalogue} has no such id")
    findings += _strangers(
        files.folder / "drafts", ids | {entry.id for entry in new}, "no catalogue has a prompt of that id"
    )
    return Report(findings, len(served), answers, drafts)


def _read(findings: list[Finding], read: Callable[[Path], _Read], file: Path) -> _Read | None:
    """What is in a file; None, and a finding, if that cannot be told."""
    try:
        return read(file)
    except ConfigError as error:
        problem = str(error).removeprefix(f"{file}: ")
        findings.append(Finding(file, problem, "mend it by hand, or take an earlier version"))
        return None


def _answers(files: AnswerFiles, entry: PreparedPrompt, findings: list[Finding]) -> dict[Path, str]:
    """What is served to a prompt, by file."""
    texts = {}
    for number in range(entry.variants):
        file = files.answer_file(entry.id, number)
        if not file.exists():
            mend = f"set `variants` of {entry.id} to {number}, or: lexora answers generate --ids {entry.id}"
            findings.append(Finding(file, "is missing, and no gateway starts without it", mend))
        elif (text := _read(findings, read_answer, file)) is not None:
            texts[file] = text
    wanted = {files.answer_file(entry.id, number) for number in range(entry.variants)}
    for file in sorted(set(files.answer_file(entry.id, 0).parent.glob(_SEEN)) - wanted):
        mend = f"the catalogue gives {entry.id} {entry.variants} variants: remove it, or give it more"
        findings.append(Finding(file, "is not served", mend))
    return texts


def _drafts(files: AnswerFiles, entry: PreparedPrompt, findings: list[Finding]) -> dict[Path, str]:
    """What waits for review, by file."""
    texts = {}
    for file in sorted(files.draft_file(entry.id, 0).parent.glob(_SEEN)):
        if not is_numbered(file):
            findings.append(Finding(file, "is no draft", "remove it, or name it by a number, as in 0.json"))
            continue
        draft = _read(findings, lambda file: read_file(file, Draft), file)
        if draft is None:
            continue
        texts[file] = draft.response
        if normalise(draft.prompt) != normalise(entry.prompt):
            findings.append(Finding(file, f"answers '{draft.prompt}', which is no longer the prompt", _again(file)))
    return texts


def _unfit(folder: Path, entry: PreparedPrompt, texts: dict[Path, str]) -> Iterator[Finding]:
    before: list[tuple[str, str]] = []
    for file, text in texts.items():
        for fault in answer_faults(entry.prompt, text) or repeats(text, before):
            yield Finding(file, fault, _again(file))
        before.append((str(file.relative_to(folder)), text))


def _again(file: Path) -> str:
    name = f"{file.parent.name}/{file.stem}"
    if file.parent.parent.name == "drafts":
        return f"rewrite it, or ask for another: lexora answers reject {name} && lexora answers generate"
    return f"rewrite it, or ask for another: lexora answers generate --ids {name}"


def _strangers(folder: Path, known: set[str], problem: str) -> Iterator[Finding]:
    for path in sorted(folder.glob("*/")):
        if path.name not in known and any(path.glob(_SEEN)):
            yield Finding(path, problem, f"remove it, or add the prompt: lexora answers add '…' --id {path.name}")


def _fault(file: Path, fault: str) -> Finding:
    problem, _, mend = fault.partition("; ")
    return Finding(file, problem, mend)
