"""Who asks, and what they may."""

from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from lexora.core.record import Priority


class Limits(msgspec.Struct, frozen=True):
    """What somebody may use: requests and tokens a minute, US dollars a day and a month (UTC). None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None


NO_LIMITS = Limits()


def known(limits: Limits) -> Limits:
    """The same; where there are none, NO_LIMITS itself, which every request looks for."""
    return NO_LIMITS if limits == NO_LIMITS else limits


class Key(msgspec.Struct, frozen=True):
    """An API key as it is stored. Times are seconds since the epoch.

    `secret_hash` is SHA-256 of the plain text in hex: it has 256 random bits, so no slow hash is needed. `models` are
    names or patterns (`gpt-*`), None for all. `priority` is what its requests have and the highest they may ask for.
    `limits` are the key's own, besides its user's. `admin` lets it use /admin, `on_behalf` name a user by `x_user_id`.
    It was ended at `revoked_at`, which holds whatever the clock says since, or goes on in another's place to `ends_at`.
    """

    id: str
    user_id: str
    secret_hash: str
    created_at: float
    name: str = ""
    models: tuple[str, ...] | None = None
    priority: Priority = "normal"
    limits: Limits = NO_LIMITS
    expires_at: float | None = None
    revoked_at: float | None = None
    admin: bool = False
    on_behalf: bool = False
    ends_at: float | None = None

    def status(self, now: float) -> Literal["active", "expired", "revoked"]:
        if self.revoked_at is not None or (self.ends_at is not None and now >= self.ends_at):
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request. `priority` is what it has if it asks for none, `highest` the highest it may ask for."""

    user_id: str | None = None
    key_id: str | None = None
    models: tuple[str, ...] | None = None
    priority: Priority = "normal"
    highest: Priority = "normal"
    limits: Limits = NO_LIMITS
    admin: bool = False
    on_behalf: bool = False

    def may_use(self, model: str) -> bool:
        return self.models is None or any(fnmatchcase(model, pattern) for pattern in self.models)


# Whoever asks where no key is needed: `x_user_id` says who, `x_priority` what comes first.
ANYBODY = Caller(highest="high", on_behalf=True)
