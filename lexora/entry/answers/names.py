"""The drafts that a command line names."""

from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.entry.answers.files import AnswerFiles, Draft
from lexora.entry.errors import ConfigError

Waiting = list[tuple[PreparedPrompt, int, Draft]]


def named_drafts(files: AnswerFiles, names: list[str], *, everything: bool = False) -> Waiting:
    """The drafts of the prompts (q1_capital) or by the names (q1_capital/3). Raises ConfigError if there is none."""
    entries = files.entries()
    all_ = [(entry, number, draft) for entry in entries.values() for number, draft in files.drafts(entry.id).items()]
    if everything:
        return all_
    catalogue = Catalogue(entries.values())
    chosen = set()
    for name in names:
        prompt_id, slash, number = name.partition("/")
        entry = catalogue.by_id(prompt_id)
        found = {
            (other.id, k)
            for other, k, _ in all_
            if entry is not None and other.id == entry.id and (not slash or number == str(k))
        }
        if not found:
            waiting = ", ".join(f"{entry.id}/{k}" for entry, k, _ in all_) or "none"
            raise ConfigError(f"there is no draft {name}; those that wait for review: {waiting}")
        chosen |= found
    return [draft for draft in all_ if (draft[0].id, draft[1]) in chosen]
