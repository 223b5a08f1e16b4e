"""Versions of the prepared answers: what is published as a whole, and what differs between two of them."""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import NamedTuple, Self

import msgspec

from lexora.core.answers import Catalogue, PreparedPrompt

CATALOGUE_PATH = "/responses/catalogue.json"
_HASH_CHARACTERS = 12


class Version(msgspec.Struct, frozen=True):
    """A catalogue and all of its answers, as somebody published them.

    `id` sorts by time; `at` is seconds since the epoch, `before` the version that was in force then. `answers` are the
    variants of each prompt, by its id.
    """

    id: str
    at: float
    by: str
    message: str
    before: str | None
    prompts: list[PreparedPrompt]
    answers: dict[str, list[str]]

    @classmethod
    def of(cls, catalogue: Catalogue, answers: Mapping[tuple[str, int], str]) -> Self:
        """The content alone, as it was loaded: (prompt, variant) to text."""
        by_id = {it.id: [answers[it.prompt, k] for k in range(it.variants)] for it in catalogue.prompts}
        return cls("", 0.0, "", "", None, catalogue.prompts, by_id)

    def says_the_same(self, other: Self) -> bool:
        """Whether nobody who reads could tell one from the other."""
        return self.prompts == other.prompts and self.answers == other.answers

    def items(self) -> dict[tuple[str, int], str]:
        """(prompt, variant) to text, as an AnswerStore has them."""
        return {(it.prompt, k): text for it in self.prompts for k, text in enumerate(self.answers[it.id])}

    def catalogue(self) -> bytes:
        """The content of `catalogue.json`."""
        return msgspec.json.encode({"prompts": self.prompts})

    def catalogue_hash(self) -> str:
        return _hash(self.catalogue())

    def answers_hash(self, prompt_id: str) -> str:
        """The same for the same variants of this prompt, whatever else has changed."""
        return _hash(msgspec.json.encode(self.answers[prompt_id]))

    def files(self) -> dict[str, bytes]:
        """Every public path and what is to be read there."""
        answers = {
            path: msgspec.json.encode({"response": text})
            for id_, texts in self.answers.items()
            for path, text in zip(_paths(id_, len(texts)), texts, strict=True)
        }
        return {CATALOGUE_PATH: self.catalogue(), **answers}


class Change(NamedTuple):
    """What becomes of one prompt: `before` is None if it is new, `after` if it goes. `texts` are the variants that
    change, by number: before, after.
    """

    before: PreparedPrompt | None
    after: PreparedPrompt | None
    texts: dict[int, tuple[str | None, str | None]]

    @property
    def id(self) -> str:
        entry = self.after or self.before
        assert entry is not None
        return entry.id

    @property
    def asks_something_else(self) -> bool:
        """Whether readers that still hold the old catalogue would get an answer to another question."""
        return self.before is not None and self.after is not None and self.before.prompt != self.after.prompt


def changes(before: Version | None, after: Version) -> list[Change]:
    """What is different, in the order of the catalogue; what goes comes last."""
    old = {it.id: it for it in before.prompts} if before else {}
    new = {it.id: it for it in after.prompts}
    found = []
    for id_ in (*new, *(id_ for id_ in old if id_ not in new)):
        texts = zip_longest(
            before.answers[id_] if before and id_ in old else [], after.answers[id_] if id_ in new else []
        )
        differing = {k: (one, other) for k, (one, other) in enumerate(texts) if one != other}
        if differing or old.get(id_) != new.get(id_):
            found.append(Change(old.get(id_), new.get(id_), differing))
    return found


def changed_paths(before: Version | None, after: Version) -> list[str]:
    """The public paths at which something else is to be read than before."""
    old, new = before.files() if before else {}, after.files()
    return sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))


def _paths(prompt_id: str, variants: int) -> Iterator[str]:
    return (f"/responses/{prompt_id}/{variant}.json" for variant in range(variants))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH_CHARACTERS]
