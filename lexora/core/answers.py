"""Prepared answers: known prompts, recognised however they are written, and their variants."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Self

import msgspec

# What may close a prompt without changing it; NFKC has already made full-width forms ASCII ("？" is "?").
_TRAILING_MARKS = "?!.。、,…~〜 "


def normalise(prompt: str) -> str:
    """The form in which prompts are compared: NFKC, case-folded, one space between words, no trailing mark."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split()).rstrip(_TRAILING_MARKS)


class PreparedPrompt(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of the catalogue. `aliases` are other wordings of the same question, `variants` how many answers."""

    id: str
    prompt: str
    aliases: list[str] = []
    variants: Annotated[int, msgspec.Meta(ge=1)] = 5


class Catalogue:
    """The known prompts. Raises ValueError if two entries share an id or a wording."""

    def __init__(self, prompts: Iterable[PreparedPrompt]) -> None:
        self.prompts = list(prompts)
        self._by_wording: dict[str, PreparedPrompt] = {}
        self._by_id: dict[str, PreparedPrompt] = {}
        for entry in self.prompts:
            # As in the CDN's paths, `q1` is short for `q1_capital`.
            for name in (entry.id, entry.id.partition("_")[0]):
                if self._by_id.setdefault(name, entry) is not entry:
                    raise ValueError(f"'{entry.id}' and '{self._by_id[name].id}' share the id '{name}'")
            for wording in (entry.prompt, *entry.aliases):
                known = self._by_wording.setdefault(normalise(wording), entry)
                if known is not entry:
                    raise ValueError(f"'{wording}' stands for both '{known.id}' and '{entry.id}'")
        # The same prompts are asked again and again, and written the same way.
        self._find = lru_cache(maxsize=1024)(lambda prompt: self._by_wording.get(normalise(prompt)))
        # Longer texts cannot match, so they need not be normalised: NFKC at most halves a Japanese text.
        self._longest = 2 * max(map(len, self._by_wording), default=0) + 8

    @classmethod
    def empty(cls) -> Self:
        return cls(())

    def match(self, prompt: str) -> PreparedPrompt | None:
        """The entry that `prompt` is a wording of."""
        prompt = prompt.strip()
        if len(prompt) > self._longest:
            return None
        return self._find(prompt)

    def by_id(self, prompt_id: str) -> PreparedPrompt | None:
        return self._by_id.get(prompt_id)
