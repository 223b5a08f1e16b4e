"""Lexora's prepared answers, straight from the CDN. One file without dependencies, to copy: see docs/clients.md."""

import json
import random
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPException
from typing import Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

_TRAILING_MARKS = "?!.。、,…~〜 "
_TRIES = 3
_Wordings = dict[str, dict[str, Any]]  # normalised, and the catalogue's entry
_Read = TypeVar("_Read")


class Unavailable(Exception):
    """The catalogue, or every variant that was tried, could not be fetched; the message says why."""


class Answer(NamedTuple):
    text: str
    url: str


def normalise(prompt: str) -> str:
    """The form in which prompts are compared: NFKC, case-folded, one space between words, no mark at the end."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split()).rstrip(_TRAILING_MARKS)


class Answers:
    """The prepared answers below `base`, such as `https://cdn.example.com`; `timeout` is of each fetch, in seconds.

    Threads may share one; in asyncio, call it by `asyncio.to_thread`. Raises ValueError unless `base` is a web address.
    """

    def __init__(self, base: str, *, timeout: float = 5.0) -> None:
        if not base.startswith(("https://", "http://")):
            raise ValueError(f"'{base}' does not begin with https:// or http://")
        self._folder = f"{base.rstrip('/')}/responses"
        self._timeout = timeout
        self._lock = threading.Lock()
        self._known: Future[_Wordings] | None = None

    def url(self, prompt: str) -> str | None:
        """The URL of a random variant, or None if nothing is prepared for the prompt. Raises Unavailable."""
        urls = self._shuffled(self._catalogue().result(), prompt)
        return urls[0] if urls else None

    def ask(self, prompt: str) -> Answer | None:
        """A random variant, or None if nothing is prepared for the prompt.

        A variant that cannot be had gives way to another, up to three. Raises Unavailable.
        """
        known = self._catalogue()
        urls = self._shuffled(known.result(), prompt)
        if not urls:
            return None
        failed = []
        for url in urls[:_TRIES]:
            try:
                return Answer(self._fetch(url, _text), url)
            except Unavailable as error:
                failed.append(str(error))
        self._forget(known)  # perhaps there are other variants now
        raise Unavailable(f"No variant could be fetched. {'; '.join(failed)}")

    def _shuffled(self, known: _Wordings, prompt: str) -> list[str]:
        """The URLs of all variants, in random order; none if nothing is prepared."""
        entry = known.get(normalise(prompt))
        if entry is None:
            return []
        folder = f"{self._folder}/{quote(entry['id'], safe='')}"
        return [f"{folder}/{k}.json" for k in random.sample(range(entry["variants"]), entry["variants"])]

    def _catalogue(self) -> Future[_Wordings]:
        """Fetched once, whoever asks meanwhile waits for the same fetch; if that fails, again."""
        with self._lock:
            known = self._known
            if known is not None:
                return known
            known = self._known = Future()
        try:
            known.set_result(self._fetch(f"{self._folder}/catalogue.json", _wordings))
        except BaseException as error:
            self._forget(known)
            known.set_exception(Unavailable(f"The catalogue could not be fetched. {error}"))
            if not isinstance(error, Unavailable):  # Ctrl-C, and nobody is left waiting
                raise
        return known

    def _forget(self, known: Future[_Wordings]) -> None:
        with self._lock:
            if self._known is known:
                self._known = None

    def _fetch(self, url: str, read: Callable[[Any], _Read]) -> _Read:
        try:
            with urlopen(url, timeout=self._timeout) as response:  # noqa: S310 - a web address, see above
                return read(json.load(response))
        except HTTPError as error:
            error.close()
            raise Unavailable(f"{url}: status {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(f"{url}: {getattr(error, 'reason', None) or error}") from error
        except (LookupError, TypeError, AttributeError) as error:
            raise Unavailable(f"{url}: not what Lexora serves there") from error


def _wordings(catalogue: Any) -> _Wordings:
    return {
        normalise(wording): entry for entry in catalogue["prompts"] for wording in (entry["prompt"], *entry["aliases"])
    }


def _text(answer: Any) -> str:
    text = answer["response"]
    if not isinstance(text, str):
        raise TypeError
    return text
