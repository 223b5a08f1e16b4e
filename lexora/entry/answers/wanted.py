"""What is to be published: the content of a folder, or a version that there was; and what it changes, for people."""

import argparse
import sys
import time
from collections.abc import Iterator

from lexora.core.ports import VersionStore
from lexora.core.versions import Change, Version, changes
from lexora.entry.answers.check import check
from lexora.entry.answers.files import AnswerFiles
from lexora.entry.answers.folder import chosen_folder
from lexora.entry.errors import ConfigError
from lexora.entry.prepared import load_prepared


def folders_content(options: argparse.Namespace) -> Version:
    """What the folder says. Raises ConfigError if `lexora answers check` finds fault with it; drafts do not count."""
    folder = chosen_folder(options)
    faults = [it for it in check(AnswerFiles(folder)).findings if folder / "drafts" not in it.file.parents]
    for file, problem, mend in faults:
        print(f"{file}: {problem}; {mend}", file=sys.stderr)
    if faults:
        raise ConfigError(f"{folder} has mistakes, see above; nothing is published")
    return Version.of(*load_prepared(folder))


def named_version(store: VersionStore, name: str) -> Version:
    """A version by its id or the beginning of it. Raises ConfigError."""
    found = [id_ for id_ in store.ids() if id_.startswith(name)]
    exact = [id_ for id_ in found if id_ == name] or found
    version = store.get(exact[0]) if len(exact) == 1 else None
    if version is None:
        problem = f"'{name}' is {len(found)} versions" if found else f"there is no version '{name}'"
        raise ConfigError(f"{problem}; see: lexora answers versions")
    return version


def shown_changes(before: Version | None, after: Version) -> Iterator[str]:
    """The lines that say what is different, a patch to read."""
    found = changes(before, after)
    for change in found:
        yield from _shown(change)
    if not found and before is not None and not before.says_the_same(after):
        yield "~ the order of the catalogue"


def summary(before: Version | None, after: Version) -> str:
    found = changes(before, after)
    new = sum(change.before is None for change in found)
    gone = sum(change.after is None for change in found)
    texts = sum(len(change.texts) for change in found)
    return f"{new} new, {len(found) - new - gone} changed and {gone} removed prompts, {texts} answers"


def warnings(before: Version | None, after: Version) -> Iterator[str]:
    for change in changes(before, after):
        if change.asks_something_else:
            yield (
                f"{change.id} asks something else than before: pages that still hold the old catalogue (5 minutes) "
                "show its new answers to the old question; if it is another question, give it an id of its own"
            )


def described(version: Version) -> str:
    """One line of a list: id, when, who, why."""
    at = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(version.at))
    return f"{version.id}  {at}  {version.by}  {version.message}".rstrip()


def _shown(change: Change) -> Iterator[str]:
    before, after = change.before, change.after
    sign = "+" if before is None else "-" if after is None else "~"
    entry = after or before
    assert entry is not None
    yield f"{sign} {entry.id}  {entry.prompt}"
    if before and after and before.prompt != after.prompt:
        yield f"    - prompt: {before.prompt}"
        yield f"    + prompt: {after.prompt}"
    old, new = (it.aliases if it else [] for it in (before, after))
    yield from (f"    - alias: {alias}" for alias in old if alias not in new)
    yield from (f"    + alias: {alias}" for alias in new if alias not in old)
    for number, (one, other) in sorted(change.texts.items()):
        for mark, text in (("-", one), ("+", other)):
            if text is not None:
                first, *rest = text.splitlines() or [""]
                yield f"    {mark} {number}.json: {first}"
                yield from (f"    {mark}   {line}" for line in rest)
