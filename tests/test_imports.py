"""The direction of imports: core ← providers ← adapters ← api ← entry, and what the core must not know."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import ROOT

LAYERS = ("core", "providers", "adapters", "api", "entry")
MODULES = sorted((ROOT / "lexora").rglob("*.py"))
CORE = [path for path in MODULES if path.parent.name == "core"]
ADAPTERS = [path for path in MODULES if path.parent.name == "adapters"]
# One adapter in two files: the HTTP client is the wire of those that call upstreams.
SAME_ADAPTER = {"upstream": {"http_client"}, "model_servers": {"http_client"}}
# What the core may use of the standard library: nothing that reaches out of the process, or asks it for anything.
PURE = {
    *(
        "__future__",
        "asyncio",
        "collections",
        "dataclasses",
        "difflib",
        "enum",
        "fnmatch",
        "functools",
        "hashlib",
        "hmac",
        "itertools",
        "json",
        "math",
    ),
    *("random", "re", "typing", "unicodedata", "urllib.parse"),
}
# Data types and their validation; Turn's loop is handed to it, and asyncio is there for its type.
LIBRARIES = {"msgspec", "pydantic"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def layer_of(path: Path) -> str:
    """The folder below `lexora`, however deep the module is in it; `lexora` of what is in none."""
    return path.relative_to(ROOT).parts[1] if path.parent.name != "lexora" else "lexora"


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside a function; `from a import b` counts as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def attributes(path: Path) -> set[str]:
    """Every `a.b` in a file, and `from a import b` as the same."""
    found = set(imported(path))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", [path for path in MODULES if layer_of(path) in LAYERS], ids=name_of)
def test_a_layer_imports_only_those_below(path: Path) -> None:
    allowed = LAYERS[: LAYERS.index(layer_of(path)) + 1]
    ours = [name.split(".") for name in imported(path) if name.startswith("lexora.")]
    above = {".".join(name) for name in ours if name[1] in LAYERS and name[1] not in allowed}
    assert not above
    assert "main" not in {name[1] for name in ours}


@pytest.mark.parametrize("path", ADAPTERS, ids=name_of)
def test_adapters_do_not_import_each_other(path: Path) -> None:
    others = {name.split(".")[2] for name in imported(path) if name.startswith("lexora.adapters.")}
    assert others <= SAME_ADAPTER.get(path.stem, set())


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_is_made_of_rules_alone(path: Path) -> None:
    for name in imported(path):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            assert any(f"{name}.".startswith(f"{pure}.") for pure in PURE), name
        else:
            assert top in LIBRARIES or name.startswith("lexora.core"), name


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_does_no_input_or_output_and_has_no_clock(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = {call.id for call in calls if isinstance(call, ast.Name)}
    assert not named & {"open", "print", "input", "__import__", "exec", "eval"}
    used = attributes(path)
    assert not {name for name in used if name.startswith(("os.", "socket.", "time.", "datetime.", "sys."))}
    types = {"asyncio.AbstractEventLoop", "asyncio.Future", "asyncio.TimerHandle"}  # of a loop, and of what it makes
    assert not {name for name in used if name.startswith("asyncio.")} - types


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_composition_roots_read_the_environment(path: Path) -> None:
    reads = attributes(path) & {"os.environ", "os.getenv", "os.environb", "os.putenv"}
    assert not reads or layer_of(path) == "entry" or path == ROOT / "lexora" / "main.py"


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer_of(path) for path in MODULES} == {*LAYERS, "lexora"}
    assert {path.name for path in (ROOT / "lexora").glob("*.py")} == {"__init__.py", "main.py"}


def test_tests_stand_where_their_module_does() -> None:
    """`tests/core/test_chat.py` tests `lexora/core/chat.py`; what spans modules is named for what it is about."""
    spanning = {
        "test_anthropic",
        "test_cache",
        "test_conversations",
        "test_streaming",
        "test_count_tokens",
        "test_failover",
        "test_load",
        "test_local",
        "test_main",
        "test_messages_errors",
        "test_passage",
        "test_query",
        "test_shutdown",
    }
    for path in (path for layer in LAYERS for path in (ROOT / "tests" / layer).rglob("test_*.py")):
        folder = ROOT / "lexora" / path.parent.relative_to(ROOT / "tests")
        module = folder / f"{path.stem.removeprefix('test_')}.py"
        assert module.exists() or path.stem in spanning, path
