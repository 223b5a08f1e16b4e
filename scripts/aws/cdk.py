"""The CDK's command line, with the environment chosen, Node found, and an end that says where the gateway is."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from scripts.aws.account import ROOT, Account, Problem, say

_CLI = ROOT / "node_modules" / ".bin" / "cdk"
_BOOTSTRAP_STACK = "CDKToolkit"
_PARTS = ("Data", "Api", "Edge", "Ops")
_QUESTION = {"messages": [{"role": "user", "content": "日本の首都はどこですか？"}]}  # a prepared answer: free


def synth(account: Account, arguments: str) -> None:
    """Writes the templates to cdk.out. Asks nothing of AWS."""
    _run_app(account, "synth", arguments, "--quiet")
    say("the templates are in cdk.out")


def diff(account: Account, arguments: str) -> None:
    """Shows what a deploy would change."""
    _require_bootstrap(account)
    _run_app(account, "diff", arguments)


def deploy(account: Account, arguments: str) -> None:
    """Deploys the environment's stacks and says where they answer."""
    approval = "never" if _unattended("deploy asks before it widens rights") else "broadening"
    _require_bootstrap(account)
    say(f"deploying {account.settings.name} to account {account.id}, {account.region}")
    _run_app(account, "deploy", arguments, "--all", "--require-approval", approval)
    urls(account)


def destroy(account: Account, arguments: str) -> None:
    """Deletes the environment's stacks."""
    force = ["--force"] if _unattended("destroy asks before it deletes") else []
    if all(account.find_outputs(account.stack(part)) is None for part in _PARTS):
        raise Problem(f"there are no stacks of {account.settings.name} in account {account.id}, {account.region}")
    say(f"destroying {account.settings.name} in account {account.id}, {account.region}")
    _run_app(account, "destroy", arguments, "--all", *force)
    left = [account.stack(part) for part in _PARTS if account.find_outputs(account.stack(part)) is not None]
    if left:
        say(f"still there: {', '.join(left)}")
    elif account.settings.removal == "retain":
        say("the stacks are gone; tables, buckets, secrets and log groups are kept (removal: retain)")
    else:
        say("the stacks are gone; tables, buckets and secrets with them (some log groups may stay: docs/deploy.md)")


def bootstrap(account: Account, arguments: str) -> None:
    """Prepares the account and region for the CDK; once for all environments."""
    place = f"aws://{account.id}/{account.region}"
    with tempfile.TemporaryDirectory() as elsewhere:  # in the app's folder the CDK would synthesise it first
        _run(account, "bootstrap", [place, *_split(arguments)], Path(elsewhere))


def urls(account: Account) -> None:
    """Prints where the environment answers, and a request to try."""
    doors, edge = account.outputs("Api"), account.outputs("Edge")
    base = edge["CdnUrl"].rstrip("/")
    print(f"base_url for clients  {base}/v1")
    print(f"prepared answers      {base}/responses/q1/random.json")
    print(f"streaming door        {doors['StreamApiEndpoint'].rstrip('/')}")
    print(f"buffered door         {doors['ChatApiEndpoint'].rstrip('/')}")
    print(f"try it:\n  {_curl(base)}", flush=True)


def _curl(base: str) -> str:
    headers = ["content-type: application/json"]
    if emulator := os.environ.get("AWS_ENDPOINT_URL"):
        # The names that an emulator gives away lead nowhere: it knows a distribution by its Host.
        headers += [f"host: {urlsplit(base).netloc}", "x-forwarded-proto: https"]
        base = emulator.rstrip("/")
    body = json.dumps(_QUESTION, ensure_ascii=False, separators=(",", ":"))
    flags = " ".join(f"-H '{header}'" for header in headers)
    return f"curl {base}/v1/chat/completions {flags} -d '{body}'"


def _unattended(why: str) -> bool:
    """Whether to ask nothing, as CI or YES says. Raises Problem if a question would reach nobody."""
    if any(os.environ.get(name, "").lower() not in ("", "0", "no", "false") for name in ("CI", "YES")):
        return True
    if not sys.stdin.isatty():
        raise Problem(f"{why}, and nobody is at this terminal; add YES=1")
    return False


def _require_bootstrap(account: Account) -> None:
    if account.find_outputs(_BOOTSTRAP_STACK) is None:
        raise Problem(
            f"account {account.id} is not ready for the CDK in {account.region}; prepare it once with: make bootstrap"
        )


def _split(arguments: str) -> list[str]:
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise Problem(f"ARGS={arguments}: {error}") from None


def _run_app(account: Account, command: str, arguments: str, *options: str) -> None:
    app = f"{shlex.quote(sys.executable)} app.py"
    environment = f"environment={account.environment}"
    _run(account, command, ["--app", app, "-c", environment, *options, *_split(arguments)], ROOT)


def _run(account: Account, command: str, arguments: list[str], folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # Node is there
        "CDK_DISABLE_CLI_TELEMETRY": "true",
    }
    if command != "synth":
        environment["AWS_REGION"] = environment["AWS_DEFAULT_REGION"] = account.region
    if subprocess.run([_CLI, command, "--no-notices", *arguments], cwd=folder, env=environment).returncode:
        raise Problem(f"cdk {command} has failed; the reason stands above")
