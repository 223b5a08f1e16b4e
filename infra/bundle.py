"""The zip of all functions: built with pip alone, the same on every machine that has the functions' Python."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_

from infra.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
STATIC_RESPONSES = ROOT / "static_responses"
WEB_CLIENT = ROOT / "clients" / "web"
MODEL_MAP = ROOT / "infra" / "model_map.json"

# Answers that nobody has accepted yet stay where they are.
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "drafts")
_FOLDERS = ("lexora", "lambdas", "static_responses")
_MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
# Nothing reads them at run time, `bin` names this machine's Python, and pydantic searches what metadata there is.
_NOT_NEEDED = ("bin", "*.dist-info")

# What a prepared answer imports. All the rest compiled would not fit into 20 MB.
_POWERTOOLS = tuple(f"aws_lambda_powertools/{part}" for part in ("logging", "metrics", "shared", "warnings"))
_AT_EVERY_START = ("lexora", "lambdas", "starlette", "mangum", "msgspec", "anyio", *_POWERTOOLS)


def function_code(settings: Settings) -> lambda_.AssetCode:
    """The zip as an asset. Its hash is that of its content. A stack needs its own one."""
    return lambda_.Code.from_asset(
        str(ROOT / "lambdas"),
        asset_hash_type=cdk.AssetHashType.OUTPUT,
        bundling=cdk.BundlingOptions(image=cdk.DockerImage.from_registry("none"), local=_WithoutDocker(settings)),
    )


def build(output: Path, python: str, architecture: str, *, jwt: bool = False) -> None:
    """Fills `output` for this Python version and architecture, with what tokens of an OIDC issuer need if `jwt`.

    Raises CalledProcessError where pip fails.
    """
    requirements = ROOT / ("requirements-lambda-jwt.txt" if jwt else "requirements-lambda.txt")
    machine = _MACHINES[architecture]
    platforms = [f"--platform=manylinux2014_{machine}", f"--platform=manylinux_2_28_{machine}"]
    subprocess.run(  # noqa: S603 - all of it is ours
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--require-hashes", "--only-binary=:all:", f"--python-version={python}", *platforms),
            *("--target", str(output), "--requirement", str(requirements)),
        ],
        check=True,
        stdout=sys.stderr,  # what an app of the CDK prints is read by nobody
    )
    for pattern in _NOT_NEEDED:
        for folder in output.glob(pattern):
            shutil.rmtree(folder)
    for name in _FOLDERS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, output / name, ignore=_LEFT_OUT)
    shutil.copyfile(MODEL_MAP, output / MODEL_MAP.name)
    for path in output.rglob("*"):
        # Whatever the umask of this machine, Lambda's user reads everything and starts the scripts.
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
    precompile(output, python)


def precompile(output: Path, python: str) -> None:
    """A function cannot write where its code lies: what is not compiled here is compiled at each cold start.

    Bytecode is of one version: without that Python on this machine there is none, and all works still.
    """
    here = python == f"{sys.version_info.major}.{sys.version_info.minor}"
    if command := sys.executable if here else shutil.which(f"python{python}"):
        subprocess.run(  # noqa: S603 - all of it is ours
            [
                *(command, "-I", "-m", "compileall", "-q", "-s", str(output)),
                *("--invalidation-mode", "unchecked-hash"),  # no time of a file in it
                *(str(output / name) for name in _AT_EVERY_START),
            ],
            check=False,  # version managers put commands into PATH that only say what to install
            stdout=sys.stderr,
        )


@jsii.implements(cdk.ILocalBundling)
class _WithoutDocker:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def try_bundle(self, output_dir: str, *_options: Any, **_more_options: Any) -> bool:
        settings = self._settings
        build(Path(output_dir), settings.python, settings.architecture, jwt=settings.jwt_issuer is not None)
        return True
