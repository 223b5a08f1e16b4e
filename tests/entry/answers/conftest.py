"""Whoever looks after prepared answers."""

from pathlib import Path

import pytest

from tests.support.answers import Operator


@pytest.fixture
def answers(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    """`lexora answers`, with a folder of its own that is empty yet."""
    for name in ("LEXORA_CONFIG", "LEXORA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "answers"
    folder.mkdir()
    return Operator(folder, capsys)
