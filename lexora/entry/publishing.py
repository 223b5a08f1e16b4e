"""Putting a version of the prepared answers in force, at AWS or here; a deploy does it, and `lexora answers`."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lexora.core.ports import InForce, Overtaken, VersionStore
from lexora.core.versions import Version, changed_paths
from lexora.entry.errors import ConfigError

if TYPE_CHECKING:
    from lexora.adapters.cloudfront import CloudFrontSite

# How long whoever has begun is waited for. A version is in force after seconds; one that has died never is.
_PATIENCE_SECONDS = 300.0
_LONGEST_KEY = 2_048  # DynamoDB's own limit, in bytes

Say = Callable[[str], None]


def say(text: str) -> None:
    """Tells people something; stdout is for what programs read."""
    print(f"lexora: {text}", file=sys.stderr, flush=True)


class Plan(NamedTuple):
    """What is to be put in force, and what is there. `unfinished` says that somebody has died at it."""

    version: Version
    before: Version | None
    seen: InForce
    unfinished: bool

    @property
    def is_needed(self) -> bool:
        return self.unfinished or self.before is None or not self.version.says_the_same(self.before)


def plan(store: VersionStore, wanted: Version, by: str, message: str) -> Plan:
    """A new version with the content of `wanted`, or one that says the same already: in force, or begun.

    Raises ConfigError while somebody else is at work.
    """
    now = time.time()
    seen = store.in_force()
    before = store.get(seen.version) if seen.version else None
    begun = store.get(seen.begun) if seen.begun else None
    for known in (begun, before):
        if known is not None and known.says_the_same(wanted):
            return Plan(known, before, seen, unfinished=seen.begun is not None)
    if seen.begun and now < seen.begun_at + _PATIENCE_SECONDS:
        who = f"{begun.by} has begun" if begun else "somebody has begun"
        raise ConfigError(
            f"{who} to publish version {seen.begun} {now - seen.begun_at:.0f} s ago and is not done; wait, or finish "
            f"it: lexora answers rollback {seen.begun} (after {_PATIENCE_SECONDS / 60:g} minutes anybody may publish)"
        )
    version = wanted if wanted.id else stamped(wanted, now, by, message, seen.version)
    return Plan(version, before, seen, unfinished=False)


def stamped(content: Version, now: float, by: str, message: str, before: str | None) -> Version:
    """A new version of this content."""
    id_ = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{int(now * 1000) % 1000:03}"
    return msgspec.structs.replace(content, id=id_, at=now, by=by, message=message, before=before)


def begin(store: VersionStore, plan_: Plan) -> InForce:
    """Keeps the version and notes that it comes. Raises ConfigError if somebody was faster."""
    store.add(plan_.version)
    begun = store.begin(plan_.version.id, time.time(), plan_.seen)
    if begun is None:
        raise overtaken()
    return begun


def put_in_force(store: VersionStore, site: "CloudFrontSite", plan_: Plan, say: Say) -> str | None:
    """At AWS: files first, which nobody reads yet; then, each at once, the table with its catalogue, and the edge.

    Returns the id of the invalidation, None if there is nothing to invalidate. What dies here is finished by another
    call with a plan for the same content; until then readers see one version. Raises ConfigError and OSError.
    """
    version = plan_.version
    check_aws(version)
    begun = begin(store, plan_)
    was = store.get(begun.was) if begun.was else None
    try:
        say(f"{site.put_files(version)} new files")
        switched = store.switch(version, begun)
        say("in force in the table")
        site.switch(version)
        say("in force at the edge, as fast as CloudFront spreads it")
        site.copy(version)
        paths = changed_paths(was, version)
        # Nothing is in the CDN's caches before there is a first version.
        invalidation = site.invalidate(paths, f"{version.id} {begun.begun_at}") if was and paths else None
        store.finish(switched)
    except Overtaken:
        raise overtaken() from None
    return invalidation


def check_aws(version: Version) -> None:
    """Raises ConfigError if CloudFront or DynamoDB would not take it."""
    from lexora.adapters.cloudfront import edge_code  # needs boto3, which a gateway on this machine does without

    for entry in version.prompts:
        if (size := len(entry.prompt.encode())) > _LONGEST_KEY:
            raise ConfigError(
                f"the prompt of {entry.id} has {size:,} bytes, and a key of the table no more than {_LONGEST_KEY:,}; "
                "shorten it, or take it out of the catalogue"
            )
    try:
        edge_code(version)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def overtaken() -> ConfigError:
    return ConfigError(
        "somebody else has just begun to publish, or has published; look at theirs with: lexora answers diff"
    )
