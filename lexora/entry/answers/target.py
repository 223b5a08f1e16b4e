"""Where an action publishes: an environment on AWS, or the gateway on this machine."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Protocol

from lexora.core.ports import VersionStore
from lexora.core.versions import Version
from lexora.entry.answers.here import Here
from lexora.entry.errors import ConfigError
from lexora.entry.publishing import Plan


class Target(Protocol):
    """`name` is for people. Methods raise ConfigError and OSError."""

    @property
    def name(self) -> str: ...
    @property
    def store(self) -> VersionStore: ...
    @property
    def user(self) -> str: ...

    def in_force(self) -> Version | None:
        """What readers see."""
        ...

    def check(self, version: Version) -> None:
        """Raises ConfigError if it cannot be put in force here."""
        ...

    def keep_what_is_served(self) -> None:
        """Makes a version of what readers see, if it is none."""
        ...

    def put_in_force(self, plan: Plan) -> None: ...


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", metavar="NAME", help="an environment on AWS (default: the gateway on this machine)")
    parser.add_argument(
        "--prefix", default="lexora", metavar="TEXT", help="what its stacks' names begin with (default: lexora)"
    )


def add_changing(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask (as do YES=1 and CI in the environment)")
    parser.add_argument("--no-wait", action="store_true", help="on AWS: end before the CDN has forgotten old answers")


@contextlib.contextmanager
def chosen_target(options: argparse.Namespace) -> Iterator[Target]:
    """Raises ConfigError, also in the place of what the stores and AWS raise."""
    try:
        if options.env is None:
            with contextlib.closing(Here(options)) as here:
                yield here
        else:
            yield from _on_aws(options)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"the published answers cannot be used: {error}") from None


def _on_aws(options: argparse.Namespace) -> Iterator[Target]:
    from lexora.entry.aws_account import AwsAccount, AwsError, explained  # first, as it says what to install

    try:
        from lexora.entry.answers.on_aws import OnAws

        yield OnAws(AwsAccount(options.env, options.prefix), wait=not getattr(options, "no_wait", False))
    except AwsError as error:
        raise ConfigError(explained(error)) from None


def agreed(options: argparse.Namespace, question: str) -> bool:
    """Asks whoever sits there before an environment is changed. Raises ConfigError if nobody does."""
    unattended = any(os.environ.get(name, "").lower() not in ("", "0", "no", "false") for name in ("CI", "YES"))
    if options.env is None or options.yes or unattended:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("this asks before it changes an environment, and nobody is at this terminal; add --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
