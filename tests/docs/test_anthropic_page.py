"""docs/anthropic.md: what it shows runs."""

import re

import pytest

from tests.support.gateway import ROOT, RunningGateway

PAGE = (ROOT / "docs" / "anthropic.md").read_text()


def test_the_sdks_example(gateway: RunningGateway, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for written, here in (
        ("http://127.0.0.1:8001", gateway.url),
        ("sk-lexora-…", "none"),
        ('"chat"', '"tiny"'),
        ("500", "12"),
    ):
        assert written in code
        code = code.replace(written, here)
    names: dict[str, object] = {}
    exec(code, names)
    assert capsys.readouterr().out
    assert names["message"].usage.output_tokens == 12  # type: ignore[attr-defined]
