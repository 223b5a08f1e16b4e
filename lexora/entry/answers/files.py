"""The files of a folder of prepared answers: what is served, and in `drafts/` what waits for a reviewer.

catalogue.json                    the prompts that are served
responses/<id>/<k>.json           their answers
drafts/catalogue.json             prompts that are to be served, once they have accepted answers
drafts/<id>/<k>.json              answers that nobody has accepted yet
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from lexora.core.answers import PreparedPrompt
from lexora.core.versions import Version
from lexora.entry.errors import ConfigError
from lexora.entry.prepared import read_answer, read_file, read_prompts

_USUAL_VARIANTS = 5


class Draft(msgspec.Struct, forbid_unknown_fields=True):
    """An answer for review, and where it comes from. `replaces` is the served variant whose place it is to take."""

    prompt: str
    response: str
    replaces: int | None = None
    model: str = ""
    deployment: str = ""
    generated_at: str = ""
    cost_usd: float | None = None


class AnswerFiles:
    """Reads what is there anew at each call; writes file by file, each of them whole or not at all.

    Everything raises ConfigError that names the file at fault.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalogue = folder / "catalogue.json"
        self.wishes = folder / "drafts" / "catalogue.json"

    def served(self) -> dict[str, PreparedPrompt]:
        return {entry.id: entry for entry in read_prompts(self.catalogue)}

    def wished(self) -> dict[str, PreparedPrompt]:
        """Prompts that are not served, or not with as many variants as somebody wants."""
        return {entry.id: entry for entry in read_prompts(self.wishes)} if self.wishes.exists() else {}

    def entries(self) -> dict[str, PreparedPrompt]:
        """All prompts, with as many variants as are wanted."""
        served, wished = self.served(), self.wished()
        for name in served.keys() & wished.keys():
            most = max(served[name].variants, wished[name].variants)
            served[name] = msgspec.structs.replace(served[name], variants=most)
        return served | {name: entry for name, entry in wished.items() if name not in served}

    def answer_file(self, name: str, number: int) -> Path:
        return self.folder / "responses" / name / f"{number}.json"

    def draft_file(self, name: str, number: int) -> Path:
        return self.folder / "drafts" / name / f"{number}.json"

    def answers(self, name: str) -> dict[int, str]:
        """The accepted answers to a prompt, by number."""
        return {number: read_answer(file) for number, file in _numbered(self.answer_file(name, 0).parent)}

    def drafts(self, name: str) -> dict[int, Draft]:
        return {number: read_file(file, Draft) for number, file in _numbered(self.draft_file(name, 0).parent)}

    def texts(self, name: str) -> dict[Path, str]:
        """Every answer to a prompt, accepted or not, by its file."""
        answers = {self.answer_file(name, number): text for number, text in self.answers(name).items()}
        return answers | {self.draft_file(name, number): draft.response for number, draft in self.drafts(name).items()}

    def write_draft(self, name: str, number: int, draft: Draft) -> None:
        write_json(self.draft_file(name, number), msgspec.to_builtins(draft))

    def drop_draft(self, name: str, number: int) -> None:
        file = self.draft_file(name, number)
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()

    def write_answer(self, name: str, number: int, text: str) -> None:
        write_json(self.answer_file(name, number), {"response": text})

    def wish(self, entry: PreparedPrompt) -> None:
        self._change(self.wishes, entry.id, _plain(entry))

    def fulfil(self, name: str) -> None:
        """Forgets a wish."""
        if name in self.wished():
            self._change(self.wishes, name, None)

    def serve(self, entry: PreparedPrompt) -> None:
        """Puts a prompt into the catalogue, in the place of what is there under its id. Its answers must be there."""
        self._change(self.catalogue, entry.id, _plain(entry))

    def replace(self, version: Version) -> None:
        """Makes the folder say just what this version says. Drafts stay."""
        for name, texts in version.answers.items():
            for number, text in enumerate(texts):
                self.write_answer(name, number, text)
        write_json(self.catalogue, {"prompts": [_plain(entry) for entry in version.prompts]})
        for folder in sorted((self.folder / "responses").glob("*/")):
            for number, file in _numbered(folder):
                if number >= len(version.answers.get(folder.name, ())):
                    file.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()

    def add_alias(self, name: str, alias: str) -> None:
        file, entries = self.catalogue, self.served()
        if name not in entries:
            file, entries = self.wishes, self.wished()
        entry = entries[name]
        self._change(file, name, _plain(msgspec.structs.replace(entry, aliases=[*entry.aliases, alias])))

    def _change(self, file: Path, name: str, entry: dict[str, Any] | None) -> None:
        """Changes one entry of a catalogue and leaves all others, and their order, as they are."""
        prompts: list[dict[str, Any]] = []
        if file.exists():
            read_prompts(file)
            prompts = json.loads(file.read_text(encoding="utf-8"))["prompts"]
        place = next((place for place, known in enumerate(prompts) if known["id"] == name), len(prompts))
        prompts[place : place + 1] = [entry] if entry is not None else []
        if prompts or file != self.wishes:
            write_json(file, {"prompts": prompts})
        else:
            file.unlink(missing_ok=True)


def write_json(file: Path, content: object) -> None:
    """Writes a file as people read it, all at once: whoever reads it meanwhile sees the old one. Raises ConfigError."""
    new = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        new.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None


def _plain(entry: PreparedPrompt) -> dict[str, Any]:
    """An entry as catalogue.json has it."""
    plain = {"id": entry.id, "prompt": entry.prompt, "aliases": entry.aliases}
    return plain if entry.variants == _USUAL_VARIANTS else {**plain, "variants": entry.variants}


def is_numbered(file: Path) -> bool:
    """Whether it has the name of an answer or a draft."""
    return file.stem.isdecimal() and file.name == f"{int(file.stem)}.json"


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    return sorted((int(file.stem), file) for file in folder.glob("*.json") if is_numbered(file))
