"""`python -m scripts.aws deploy --environment dev`: what the Makefile's targets run."""

import argparse
import os
import sys
from pathlib import Path

from infra.settings import SettingsError
from lexora.entry import answers
from lexora.entry.aws_account import AwsError, explained
from lexora.entry.errors import ConfigError
from lexora.main import add_key_actions
from scripts.aws import cdk, keys, logs, model_map, secrets
from scripts.aws.account import Account, say

_CDK = {function.__name__: function for function in (cdk.synth, cdk.diff, cdk.deploy, cdk.destroy, cdk.bootstrap)}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 2, after one line on stderr, if something is to be mended."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (SettingsError, ConfigError) as error:
        say(f"lexora: {error}")
    except AwsError as error:
        say(f"lexora: {explained(error)}")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has seen enough; Python must not find that out once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 2


def _run(options: argparse.Namespace) -> int:
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
        case "answers":
            options.env, options.prefix = account.environment, account.settings.prefix
            options.config = None
            return answers.run(options)
        case "keys":
            keys.keys(account, options)
        case command:
            _CDK[command](account, options.arguments)
    return 0


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
    add_publishing(add("answers", answers.__doc__))
    add_key_actions(add("keys", keys.keys.__doc__), [])
    return parser


def add_publishing(parser: argparse.ArgumentParser) -> None:
    """What `lexora answers` does to an environment."""
    answers.add_actions(parser, [], ("diff", "publish", "rollback", "versions"))


if __name__ == "__main__":
    sys.exit(main())
