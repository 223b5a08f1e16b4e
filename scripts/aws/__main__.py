"""`python -m scripts.aws deploy --environment dev`: what the Makefile's targets run."""

import argparse
import os
import sys
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from infra.settings import SettingsError
from lexora.entry.errors import ConfigError
from lexora.main import add_key_actions
from scripts.aws import cdk, keys, logs, model_map, secrets
from scripts.aws.account import Account, Problem, say

_CDK = {function.__name__: function for function in (cdk.synth, cdk.diff, cdk.deploy, cdk.destroy, cdk.bootstrap)}
_LOG_IN = "log in first (`aws login`, `aws configure`), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its like"
# What to do about what AWS answers, where its own words do not say it.
_HINTS = {
    "ExpiredToken": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "InvalidClientTokenId": _LOG_IN,
    "UnrecognizedClientException": _LOG_IN,
    "AccessDenied": "docs/deploy.md lists the rights that are needed",
    "AccessDeniedException": "docs/deploy.md lists the rights that are needed",
    "Throttling": "try again in a minute",
    "ThrottlingException": "try again in a minute",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 2, after one line on stderr, if something is to be mended."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (Problem, SettingsError, ConfigError) as error:
        say(f"lexora: {error}")
    except NoCredentialsError:
        say(f"lexora: there are no AWS credentials; {_LOG_IN}")
    except ClientError as error:
        said = error.response["Error"]
        hint = _HINTS.get(said["Code"])
        line = f"{error.operation_name}: {said['Code']}: {said.get('Message', '')}" + (f"; {hint}" if hint else "")
        say(f"lexora: {' '.join(line.split())}")
    except BotoCoreError as error:
        say(f"lexora: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has seen enough; Python must not find that out once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    else:
        return 0
    return 2


def _run(options: argparse.Namespace) -> None:
    account = Account(options.environment)
    match options.command:
        case "urls":
            cdk.urls(account)
        case "logs":
            logs.tail(account, options.since, follow=not options.no_follow)
        case "config-push":
            model_map.push(account, options.file)
        case "config-pull":
            model_map.pull(account, options.file)
        case "secrets-set":
            secrets.set_secret(account, options.name)
        case "keys":
            keys.keys(account, options)
        case command:
            _CDK[command](account, options.arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.aws", description="Operates Lexora on AWS.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--environment", default="dev", metavar="NAME", help="which environment (default: dev)")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    def add(name: str, text: str | None) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=text, description=text)

    for name, function in _CDK.items():
        add(name, function.__doc__).add_argument(
            "--arguments", default="", metavar="TEXT", help="more arguments for the CDK"
        )
    add("urls", cdk.urls.__doc__)
    command = add("logs", "Prints the log of both doors, and what is added to it.")
    command.add_argument("--since", default="10m", metavar="TIME", help="how far back: 30s, 10m, 2h, 1d (default: 10m)")
    command.add_argument("--no-follow", action="store_true", help="end with what is there")
    add("config-push", "Checks a model map and puts it in force.").add_argument("file", type=Path, metavar="FILE")
    add("config-pull", model_map.pull.__doc__).add_argument("file", type=Path, metavar="FILE")
    add("secrets-set", "Gives a secret its value, which is read from stdin.").add_argument("name", metavar="NAME")
    add_key_actions(add("keys", keys.keys.__doc__), [])
    return parser


if __name__ == "__main__":
    sys.exit(main())
