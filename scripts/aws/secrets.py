"""The secrets of an environment: a value comes in on stdin and is shown nowhere."""

import sys
from getpass import getpass

from botocore.exceptions import ClientError

from scripts.aws.account import Account, Problem, say


def set_secret(account: Account, name: str) -> None:
    """Gives a secret its value. Raises Problem for a name that no function reads, and for what can be no key."""
    known = account.settings.secrets
    if name not in known:
        raise Problem(
            f"NAME={name}: {account.environment} has the secrets {', '.join(known)}; "
            "another one is added under `secrets` in cdk.json and made by make deploy"
        )
    has_value(account, name)  # raises before anybody has typed for nothing
    value = _read_value(name)
    account.client("secretsmanager").put_secret_value(SecretId=_id(account, name), SecretString=value)
    say(f"{_id(account, name)} is set; functions that run look again when a provider refuses the value they have")


def has_value(account: Account, name: str) -> bool:
    """Whether the secret has ever been given a value. Raises Problem if there is no such secret."""
    try:
        found = account.client("secretsmanager").describe_secret(SecretId=_id(account, name))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        raise Problem(
            f"there is no secret {_id(account, name)} in account {account.id}, {account.region}; "
            f"deploy it with: make deploy ENV={account.environment}"
        ) from None
    return bool(found.get("VersionIdsToStages"))


def _read_value(name: str) -> str:
    try:
        value = (getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.buffer.read().decode()).strip()
    except UnicodeDecodeError:
        value = "\0"
    if not value:
        raise Problem(f"{name}: nothing was given; type it, or pipe it in: make secrets-set NAME={name} < file")
    if not (value.isascii() and value.isprintable()):
        raise Problem(f"{name}: a key is one line of printable ASCII, and this is not; nothing was changed")
    return value


def _id(account: Account, name: str) -> str:
    return f"{account.settings.secret_prefix}{name}"
