"""The zip of the functions, really built for arm64."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.bundle import build, precompile
from lexora.core.model_map import parse_model_map
from lexora.providers.table import PROVIDERS
from tests.infra.synthesis import ROOT, context_of

MOST_BYTES = 20_000_000


@pytest.fixture(scope="module")
def synthesised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cdk synth` leaves."""
    folder = tmp_path_factory.mktemp("bundled") / "cdk.out"
    context = context_of({})
    del context["aws:cdk:bundling-stacks"]
    environ = {**os.environ, "CDK_CONTEXT_JSON": json.dumps(context), "CDK_OUTDIR": str(folder)}
    subprocess.run([sys.executable, ROOT / "app.py"], env=environ, check=True, capture_output=True, timeout=100)
    return folder


@pytest.fixture(scope="module")
def content(synthesised: Path) -> Path:
    """The asset that the chat function runs."""
    resources = json.loads((synthesised / "Lexora-dev-Api.template.json").read_text())["Resources"]
    (key,) = {it["Properties"]["Code"]["S3Key"] for it in resources.values() if it["Type"] == "AWS::Lambda::Function"}
    return synthesised / f"asset.{key.removesuffix('.zip')}"


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_zip_is_small(content: Path) -> None:
    assert sum(len(data) for data, _ in files(content).values()) <= MOST_BYTES


def test_the_zip_holds_what_the_functions_use(content: Path) -> None:
    there = {path.name for path in content.iterdir()}
    assert {"lexora", "lambdas", "static_responses", "model_map.json"} <= there
    assert {"starlette", "msgspec", "pydantic", "httptools", "mangum", "aws_lambda_powertools", "uvicorn"} <= there
    for path in ("lambdas/chat/handler.py", "lambdas/seed/handler.py", "lexora/entry/aws.py"):
        assert (content / path).is_file()
    assert len(list((content / "static_responses" / "responses").rglob("*.json"))) == 50


def test_with_tokens_of_an_issuer_it_holds_all_that_and_more() -> None:
    plain, with_jwt = (
        set(re.findall(r"^(\S+)==", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements-lambda.txt", "requirements-lambda-jwt.txt")
    )
    assert plain < with_jwt
    assert {"pyjwt", "cryptography"} <= with_jwt - plain


def test_the_zip_holds_nothing_that_they_do_not(content: Path) -> None:
    there = {path.name for path in content.iterdir()}
    assert not {"boto3", "botocore", "uvloop", "yaml", "xllamacpp", "numpy", "bin", "aws_cdk", "infra"} & there
    assert not [name for name in files(content) if name.endswith(".pyc") and ".cpython-313." not in name]


def test_the_streaming_function_can_be_started(content: Path) -> None:
    assert files(content)["lambdas/stream/run.sh"][1] == 0o755


def test_compiled_modules_are_for_lambdas_machines(content: Path) -> None:
    modules = list(content.rglob("*.so"))
    assert len(modules) >= 3
    for module in modules:
        assert "cpython-313-aarch64-linux-gnu" in module.name or "abi3" in module.name, module.name
        assert module.read_bytes()[18:20] == b"\xb7\x00"  # ELF's number of the machine


def test_the_same_input_gives_the_same_zip(content: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        build(tmp_path / "again", "3.13", "arm64")
    finally:
        os.umask(before)
    assert files(tmp_path / "again") == files(content)


def test_where_the_python_is_the_functions_what_every_start_imports_is_compiled(tmp_path: Path) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("one", "other"):
        build(tmp_path / name, here, "x86_64")
    built = files(tmp_path / "one")
    assert built == files(tmp_path / "other")
    for module in (
        "lexora/entry/aws",
        "lambdas/chat/handler",
        "starlette/routing",
        "aws_lambda_powertools/metrics/base",
    ):
        folder, _, name = module.rpartition("/")
        assert f"{folder}/__pycache__/{name}.{sys.implementation.cache_tag}.pyc" in built
    assert sum(len(data) for data, _ in built.values()) <= MOST_BYTES


@pytest.mark.parametrize(
    ("command", "compiled"),
    [(f'exec "{sys.executable}" "$@"', True), ("exit 127", False), (None, False)],
    ids=["there", "broken", "not there"],
)
def test_another_python_is_looked_for_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str | None, compiled: bool
) -> None:
    (tmp_path / "zip" / "lexora").mkdir(parents=True)
    (tmp_path / "zip" / "lexora" / "one.py").write_text("ONE = 1")
    if command:
        (tmp_path / "python3.99").write_text(f"#!/bin/sh\n{command}\n")
        (tmp_path / "python3.99").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    precompile(tmp_path / "zip", "3.99")
    there = files(tmp_path / "zip").keys() - {"lexora/one.py"}
    assert there == ({f"lexora/__pycache__/one.{sys.implementation.cache_tag}.pyc"} if compiled else set())


def test_the_default_model_map_is_valid(content: Path) -> None:
    model_map = parse_model_map(json.loads((content / "model_map.json").read_bytes()), PROVIDERS)
    assert model_map.models["chat"].deployments[0].model == "gpt-4o-mini"
    for route in model_map.models.values():
        for deployment in route.deployments:
            assert deployment.price is not None  # else alarms of spending would be blind
