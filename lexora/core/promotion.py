"""Which prompts are worth a prepared answer: those that were asked again and again, by what they cost."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from lexora.core.answer_checks import alike
from lexora.core.answers import Catalogue, PreparedPrompt, normalise

LONGEST_PROMPT = 1_000  # characters; what is longer is nothing to prepare an answer for
# In runs of two letters, "日本の首都はどこですか" and the same of another country are at 0.67, and wordings of one
# question at 0.15 to 0.9: whether it is the same question is for a person to say, who is shown both.
MOST_ALIKE = 0.5
_ALIKE_LENGTH = 2
_WORDS_IN_ID = 3


class Asked(NamedTuple):
    """One completed request for a lone prompt. `cost_usd` is None where the price is not known."""

    prompt: str
    user_id: str | None
    tokens: int
    cost_usd: float | None


class Proposal(msgspec.Struct):
    """A prompt, in the wording that was used most, and all its requests.

    `cost_usd` and `tokens` are what they have used: with the prompt in the catalogue beforehand, nothing of it.
    `making_usd` is what its variants cost, were each to cost what one of these answers did (if it cost anything).
    `near` is the id of a known prompt that may ask the same. `ref` names the proposal, whatever place it has.
    """

    ref: str
    prompt: str
    suggested_id: str
    count: int
    users: int
    tokens: int
    cost_usd: float
    unpriced: int
    making_usd: float
    saved_usd: float
    near: str | None = None


class _Tally:
    def __init__(self) -> None:
        self.wordings: Counter[str] = Counter()
        self.users: set[str | None] = set()
        self.tokens = 0
        self.cost_usd = 0.0
        self.unpriced = 0
        self.charged = 0


class Proposals(NamedTuple):
    """Dearest first. `of_few` counts the prompts that are left out as too few users have asked them."""

    found: list[Proposal]
    of_few: int


def propose(
    requests: Iterable[Asked], catalogue: Catalogue, *, min_count: int, min_users: int | None, variants: int
) -> Proposals:
    """Prompts that were asked `min_count` times or more, by `min_users` users or more, and are not known.

    What just one user asks may hold what is nobody else's business, so without `min_users` it takes two; where no
    request has a user, nobody can be told apart, and then it takes one.
    """
    tallies: dict[str, _Tally] = {}
    named = False
    for asked in requests:
        named = named or asked.user_id is not None
        form = normalise(asked.prompt) if len(asked.prompt) <= LONGEST_PROMPT else ""
        if not form or catalogue.match(asked.prompt) is not None:
            continue
        tally = tallies.setdefault(form, _Tally())
        tally.wordings[asked.prompt.strip()] += 1
        tally.users.add(asked.user_id)
        tally.tokens += asked.tokens
        tally.cost_usd += asked.cost_usd or 0.0
        tally.unpriced += asked.cost_usd is None
        tally.charged += bool(asked.cost_usd)
    often = {form: tally for form, tally in tallies.items() if tally.wordings.total() >= min_count}
    least = min_users if min_users is not None else 1 + named
    enough = {form: tally for form, tally in often.items() if len(tally.users) >= least}
    found = [_proposal(form, tally, catalogue, variants) for form, tally in enough.items()]
    found.sort(key=lambda proposal: (-proposal.cost_usd, -proposal.tokens, -proposal.count, proposal.prompt))
    for place, proposal in enumerate(found):
        proposal.suggested_id = _new_id(proposal.prompt, catalogue.prompts, place)
    return Proposals(found, len(often) - len(enough))


def _proposal(form: str, tally: _Tally, catalogue: Catalogue, variants: int) -> Proposal:
    making = variants * tally.cost_usd / tally.charged if tally.charged else 0.0
    return Proposal(
        hashlib.sha256(form.encode()).hexdigest()[:6],
        tally.wordings.most_common(1)[0][0],
        "",
        tally.wordings.total(),
        len(tally.users),
        tally.tokens,
        tally.cost_usd,
        tally.unpriced,
        making,
        tally.cost_usd - making,
        _near(form, catalogue),
    )


def _near(form: str, catalogue: Catalogue) -> str | None:
    wordings = ((wording, entry.id) for entry in catalogue.prompts for wording in (entry.prompt, *entry.aliases))
    degree, name = max(((alike(form, wording, _ALIKE_LENGTH), name) for wording, name in wordings), default=(0.0, ""))
    return name if degree >= MOST_ALIKE else None


def _new_id(prompt: str, known: list[PreparedPrompt], place: int) -> str:
    """An id in the manner of q1_capital: the next number, and words where they are ASCII."""
    numbers = [int(match[1]) for entry in known if (match := re.match(r"q(\d+)(_|$)", entry.id))]
    words = re.findall(r"[a-z0-9]+", normalise(prompt))[:_WORDS_IN_ID] if prompt.isascii() else []
    return "_".join((f"q{max(numbers, default=0) + 1 + place}", *words))
