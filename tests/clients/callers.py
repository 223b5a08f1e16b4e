"""Both clients behind one door, so that the same tests hold both."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from lexora_answers import Answer, Answers, Unavailable

_NODE = Path(sys.prefix) / "bin" / "node"


class Caller(Protocol):
    def __call__(self, call: str, prompt: str, times: int = 1) -> list[dict[str, Any]]:
        """Calls `url` or `ask` so many times at once. Gives a `value` or an `error` for each."""


class PythonCaller:
    def __init__(self, base: str, timeout: float) -> None:
        self._answers = Answers(base, timeout=timeout)

    def __call__(self, call: str, prompt: str, times: int = 1) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(lambda _: self._one(call, prompt), range(times)))

    def _one(self, call: str, prompt: str) -> dict[str, Any]:
        try:
            value = getattr(self._answers, call)(prompt)
        except Unavailable as error:
            return {"error": str(error)}
        return {"value": value._asdict() if isinstance(value, Answer) else value}


class NodeCaller:
    """The JavaScript client in a Node of its own. `anew` gives another one in the same Node."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def anew(self, base: str, timeout: float) -> None:
        self._turn({"base": base, "timeout": int(timeout * 1000)})

    def __call__(self, call: str, prompt: str, times: int = 1, **more: Any) -> list[dict[str, Any]]:
        ended: list[dict[str, Any]] = self._turn({"call": call, "prompt": prompt, "times": times, **more})
        return ended

    def normalise(self, prompts: Sequence[str]) -> list[str]:
        made: list[str] = self._turn({"normalise": prompts})
        return made

    def _turn(self, asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def running_node() -> Iterator[NodeCaller]:
    pipe = subprocess.PIPE
    command = [_NODE, Path(__file__).with_name("caller.mjs")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8") as process:
        yield NodeCaller(process)  # it ends when its input does
