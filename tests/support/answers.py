"""`lexora answers` as operators type it, in this process: most tests need no other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lexora.entry.prepared import SHIPPED, load_prepared
from lexora.main import main
from tests.support.command import Ended

CAPITAL = "日本の首都はどこですか？"
# Five good answers to it.
CAPITALS = [text for (prompt, _), text in load_prepared(SHIPPED)[1].items() if prompt == CAPITAL]


class Operator:
    """Someone with a folder of prepared answers at hand."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Ended:
        self._capsys.readouterr()
        try:
            status = main(["answers", *map(str, arguments), "--folder", str(self.folder)])
        except SystemExit as ended:  # argparse's
            status = int(ended.code or 0)
        return Ended(status, *self._capsys.readouterr())

    def copy_shipped(self) -> None:
        shutil.copytree(SHIPPED, self.folder, dirs_exist_ok=True)

    def begin(self) -> None:
        """An empty catalogue."""
        self.write("catalogue.json", {"prompts": []})

    def write(self, name: str, content: Any) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
        return file

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def draft(self, name: str, text: str, **facts: Any) -> None:
        self.write(f"drafts/{name}.json", {"prompt": CAPITAL, "response": text, **facts})

    def files(self) -> list[str]:
        """All files, by their path in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
