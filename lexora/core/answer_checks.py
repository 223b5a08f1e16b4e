"""What is wrong with prepared answers and their catalogue: drafts are held to the same as what is served."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from lexora.core.answers import PreparedPrompt, normalise

SHORTEST, LONGEST = 2, 4_000  # characters of an answer
MOST_ALIKE = 0.5  # of any two of the 50 answers that come with Lexora, the closest are at 0.14; one less a sentence of
# itself is at 0.6 or more, one with its sentences in another order or with other endings at 0.84 or more
_ALIKE_LENGTH = 3

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*")
_PAIRS = {"「": "」", "『": "』", "（": "）", "【": "】", "《": "》"}
_GOES_ON = set("、,，:：;；・-–—(（「『【《/=＝+＋")

# The writing that the first word of a letter's name in Unicode stands for.
_SCRIPTS = {
    **dict.fromkeys(("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA"), "kana"),
    **dict.fromkeys(("CJK", "IDEOGRAPHIC"), "han"),
    "HANGUL": "hangul",
}
# How much of a text's letters are at least of its language's scripts, and of Japanese that is no mere name, kana.
# Of the 50 answers that come with Lexora, at the least 0.8 and 0.3 are.
_OWN_SHARE, _KANA_SHARE, _NAME_LETTERS = 0.3, 0.1, 8
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def catalogue_faults(prompts: Sequence[PreparedPrompt]) -> list[str]:
    """Every reason for which no gateway could tell these prompts apart, or a wording does nothing; with its mend."""
    faults = []
    ids: dict[str, PreparedPrompt] = {}
    wordings: dict[str, tuple[PreparedPrompt, str]] = {}
    for entry in prompts:
        if not _ID.fullmatch(entry.id):
            faults.append(f"'{entry.id}' is no id; make it of letters, digits and - with _ between, as in q1_capital")
        for name in dict.fromkeys((entry.id, entry.id.partition("_")[0])):
            other = ids.setdefault(name, entry)
            if other is not entry:
                faults.append(f"'{entry.id}' and '{other.id}' share the id '{name}'; give one of them another")
        for wording in (entry.prompt, *entry.aliases):
            form = normalise(wording)
            owner, first = wordings.get(form, (None, ""))
            if not form:
                faults.append(f"{entry.id}: the wording '{wording}' is empty; remove it")
            elif owner is None:
                wordings[form] = entry, wording
            elif owner is entry:
                faults.append(f"{entry.id}: the alias '{wording}' says the same as '{first}'; remove it")
            else:
                faults.append(f"'{wording}' stands for both '{owner.id}' and '{entry.id}'; take it from one of them")
    return faults


def answer_faults(prompt: str, answer: str) -> list[str]:
    """What makes an answer unfit for the prompt, whatever else is answered to it."""
    text = answer.strip()
    if not text:
        return ["it is empty"]
    faults = []
    if text != answer:
        faults.append("it begins or ends with blanks")
    if not SHORTEST <= len(text) <= LONGEST:
        faults.append(f"it has {len(text)} characters, and an answer has {SHORTEST} to {LONGEST:,}")
    if any(char == "\ufffd" or (unicodedata.category(char) == "Cc" and char not in "\n\t") for char in text):
        faults.append("it holds characters that no text has")
    if _is_cut(text):
        faults.append("it breaks off")
    wanted, found = language(prompt), _scripts(_CODE.sub("", text))
    if wanted and not _is_in(wanted, found):
        said = ", ".join(name for name, _ in found.most_common(2)) or "no letters"
        faults.append(f"it is not in the prompt's language: {wanted} is wanted, and it is written in {said}")
    return faults


def alike(one: str, other: str, length: int = _ALIKE_LENGTH) -> float:
    """How much two texts have in common, from 0 to 1: runs of letters and digits (Jaccard), in whatever form."""
    first, second = _runs(one, length), _runs(other, length)
    return len(first & second) / len(first | second) if first | second else 1.0


def repeats(answer: str, others: Iterable[tuple[str, str]]) -> list[str]:
    """Which of the others, name and text, an answer nearly repeats: the closest, as a fault."""
    degree, name = max(((alike(answer, text), name) for name, text in others), default=(0.0, ""))
    return [f"it says nearly the same as {name} ({degree:.0%} alike)"] if degree >= MOST_ALIKE else []


def language(text: str) -> str:
    """The language that a text's writing tells, or the writing itself where several languages share it; else empty."""
    scripts = _scripts(text)
    if not scripts:
        return ""
    if scripts["kana"]:
        return "Japanese"
    if scripts["hangul"]:
        return "Korean"
    if scripts["han"] and 2 * scripts["han"] >= scripts.total():
        return "Chinese or Japanese"
    return f"{scripts.most_common(1)[0][0]} writing"


def _is_in(wanted: str, found: Counter[str]) -> bool:
    letters = found.total()
    if not letters:
        return True  # a number, say
    match wanted:
        case "Japanese":
            kana = letters <= _NAME_LETTERS or found["kana"] >= _KANA_SHARE * letters
            return kana and found["kana"] + found["han"] >= _OWN_SHARE * letters
        case "Korean":
            return found["hangul"] >= _OWN_SHARE * letters
        case "Chinese or Japanese":
            return found["kana"] + found["han"] >= _OWN_SHARE * letters
    return found[wanted.removesuffix(" writing")] >= _OWN_SHARE * letters


def _scripts(text: str) -> Counter[str]:
    """How many letters there are of each script."""
    return Counter(map(_script, filter(str.isalpha, unicodedata.normalize("NFKC", text))))


def _script(letter: str) -> str:
    if letter.isascii():
        return "Latin"
    name = unicodedata.name(letter, "").partition("-")[0]
    first = name.partition(" ")[0]
    return _SCRIPTS.get(first, first.capitalize())


def _is_cut(text: str) -> bool:
    if text[-1] in _GOES_ON or text.count("```") % 2:
        return True
    return any(text.count(left) > text.count(right) for left, right in _PAIRS.items())


@lru_cache(maxsize=512)  # each text is compared with many
def _runs(text: str, length: int) -> frozenset[str]:
    letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))
    return frozenset(letters[start : start + length] for start in range(max(1, len(letters) - length + 1))) - {""}
