"""`lexora keys`: what operators do with keys, over any store."""

import argparse
import contextlib
import json
import os
import pwd
import secrets
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core import key_admin
from lexora.core.errors import LexoraError
from lexora.core.keys import Key
from lexora.core.ports import KeyStore
from lexora.entry.columns import print_columns
from lexora.entry.config import load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.folders import data_folder

# The options that have another name than the field they fill.
_OPTIONS = {"user_id": "--user", "models": "--model", "expires_in_days": "--expires-days"}
_TITLES = ("ID", "USER", "NAME", "STATUS", "PRIORITY", "MODELS", "LIMITS", "ENDS", "MAY")


@contextlib.contextmanager
def local_keys(config: Path | None, data: Path | None, *, make: bool) -> Iterator[KeyStore]:
    """The store of the gateway on this machine, whether it runs or not. Raises ConfigError.

    Unless `make`, it must be there: whoever wants to see or end a key and names the wrong folder is told so.
    """
    path = data_folder(data, load_settings(config)) / "lexora.db"
    try:
        if not path.exists():
            if not make:
                raise ConfigError(f"there are no keys in {path.parent}; name the gateway's folder with --data")
            require_owner(path.parent, "keys")
            os.umask(0o077)  # what the gateway will write there is nobody else's either
        with contextlib.closing(SqliteKeys(path)) as keys:
            yield keys
    except OSError as error:
        raise ConfigError(f"the keys cannot be used: {error}") from None


def require_owner(folder: Path, command: str) -> None:
    """Raises ConfigError if root is about to make a file there that the folder's owner could not write to."""
    if os.geteuid() != 0 or not folder.exists():
        return
    owner = folder.stat().st_uid
    if owner != 0:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise ConfigError(
            f"{folder} belongs to {name}, whose gateway could not write to a file that root makes there; "
            f"run this as that user: sudo -u '{name}' lexora {command} …"
        )


def run(options: argparse.Namespace, keys: KeyStore) -> None:
    """Does what the command line says: a key alone goes to stdout, what people want to know to stderr.

    Raises ConfigError.
    """
    try:
        _DO[options.action](options, keys)
    except LexoraError as error:
        raise ConfigError(_in_options(error)) from None
    except OSError as error:
        raise ConfigError(f"the keys cannot be used: {error}") from None


def _create(options: argparse.Namespace, keys: KeyStore) -> None:
    wanted = {
        "user_id": options.user,
        "name": options.name,
        "models": options.model,
        "priority": options.priority,
        "requests_per_minute": options.requests_per_minute,
        "tokens_per_minute": options.tokens_per_minute,
        "usd_per_day": options.usd_per_day,
        "usd_per_month": options.usd_per_month,
        "expires_in_days": options.expires_days,
        "admin": options.admin,
        "on_behalf": options.on_behalf,
    }
    new = key_admin.new_key(wanted)
    key, plain = key_admin.create(keys, new, time.time(), secrets.token_hex(6), secrets.token_urlsafe(32))
    _hand_out(key, plain, "")


def _list(options: argparse.Namespace, keys: KeyStore) -> None:
    now = time.time()
    found = keys.all()
    if options.json:
        print(json.dumps([key_admin.public(key, now) for key in found], indent=2, ensure_ascii=False))
        return
    print_columns([_TITLES, *(_row(key, now) for key in found)])


def _revoke(options: argparse.Namespace, keys: KeyStore) -> None:
    key = key_admin.revoke(keys, options.id, time.time())
    _say(f"key {key.id} of {key.user_id} is revoked; gateways that run take it for 2 s more at most")


def _rotate(options: argparse.Namespace, keys: KeyStore) -> None:
    now = time.time()
    keep = options.keep_hours
    if not 0 <= keep <= 8760:
        raise ConfigError("--keep-hours must be from 0 to 8760")
    key, plain = key_admin.rotate(keys, options.id, now, secrets.token_hex(6), secrets.token_urlsafe(32), keep * 3600)
    old = key_admin.find(keys, options.id)
    _hand_out(key, plain, f" in the place of {old.id}, which ends {_time(old.ends_at) if keep else 'now'}")


_DO = {"create": _create, "list": _list, "revoke": _revoke, "rotate": _rotate}


def _hand_out(key: Key, plain: str, more: str) -> None:
    print(plain, flush=True)
    _say(f"key {key.id} for {key.user_id}{more}; it is shown this once and kept nowhere")


def _row(key: Key, now: float) -> tuple[str, ...]:
    limits = key.limits
    shown = (
        (limits.requests_per_minute, "{} requests/min"),
        (limits.tokens_per_minute, "{} tokens/min"),
        (limits.usd_per_day, "{:g} USD/day"),
        (limits.usd_per_month, "{:g} USD/month"),
    )
    ends = min((at for at in (key.expires_at, key.revoked_at, key.ends_at) if at is not None), default=None)
    rights = (("admin", key.admin), ("speak for others", key.on_behalf))
    return (
        key.id,
        key.user_id,
        key.name or "-",
        key.status(now),
        key.priority,
        ",".join(key.models) if key.models else "all",
        ", ".join(text.format(value) for value, text in shown if value is not None) or "-",
        _time(ends),
        ", ".join(right for right, has in rights if has) or "-",
    )


def _time(at: float | None) -> str:
    if at is None:
        return "-"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")
    except (OverflowError, ValueError):  # beyond the year 9999
        return "never"


def _in_options(error: LexoraError) -> str:
    """The message with the option in the place of the field that it names."""
    field = (error.param or "").partition("[")[0]
    option = _OPTIONS.get(field, f"--{field.replace('_', '-')}")
    return error.message.replace(f"'{error.param}'", option)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
