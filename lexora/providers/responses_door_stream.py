"""Chunks of a chat completion as the events of a response, each with its name and its number.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from lexora.core.errors import LexoraError
from lexora.providers.responses_door_answer import Answer
from lexora.providers.responses_door_output import Emit

_encode = msgspec.json.encode


class ResponsesStream:
    """Turns framed chunks into framed events. `answer` makes the response, told where its events go."""

    def __init__(self, answer: Callable[[Emit], Answer]) -> None:
        self._answer = answer(self._emit)
        self._frames: list[bytes] = []
        self._number = 0
        self._begun = False
        self._broken = False

    def start(self) -> bytes:
        """Nothing: a response says which model gives it, and that is known with the first chunk."""
        return b""

    def feed(self, frames: bytes) -> bytes:
        """The events that chunks become; comments stay as they are. Raises UpstreamBroken."""
        for frame in frames.split(b"\n\n"):
            if not frame.startswith(b"data: "):
                if frame:
                    self._frames.append(frame + b"\n\n")
            elif frame != b"data: [DONE]":
                chunk = self._answer.understood(frame[6:])
                self._begin()
                self._answer.add(chunk)
        return self._take()

    def end(self, frames: bytes) -> bytes:
        """The last events of an answer that is whole."""
        events = self.feed(frames)
        self._begin()
        status, response = self._answer.whole()
        self._emit(f"response.{status}", {"response": Raw(response)})
        return events + self._take()

    def error(self, error: LexoraError) -> bytes:
        """The last events of an answer that broke off: no item that was open is said to be done."""
        self._begin()
        # The API's reference has the facts beside the type, its servers have them in an object, which SDKs raise.
        facts = error.envelope()["error"]
        self._emit("error", {"code": error.code, "message": error.message, "param": error.param, "error": facts})
        self._broken = True
        response = self._answer.failed(error)
        self._broken = False
        self._emit("response.failed", {"response": response})
        return self._take()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, {"response": self._answer.begun()})

    def _emit(self, kind: str, fields: dict[str, Any]) -> None:
        if not self._broken:
            data = _encode({"type": kind, "sequence_number": self._number, **fields})
            self._frames.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))
            self._number += 1

    def _take(self) -> bytes:
        taken = b"".join(self._frames)
        self._frames.clear()
        return taken
