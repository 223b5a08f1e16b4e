"""What requests share, with nothing in force: no limits, no queue, no second try."""

import asyncio
import time

from lexora.adapters.memory import MemoryLimits
from lexora.api.app import Operations
from lexora.core.auth import Auth
from lexora.core.circuit import CircuitRules
from lexora.core.keys import Key
from lexora.core.lanes import Lanes
from lexora.core.limits import Estimates, Limiter, Rules
from lexora.core.passage import Traffic
from lexora.core.retry import RetryRules
from lexora.core.stats import Counts, Group


def free_traffic() -> Traffic:
    return Traffic(
        Limiter(MemoryLimits(), Rules(), time.time),
        Estimates(),
        Lanes(None, CircuitRules(failures=1_000_000), time.monotonic),
        RetryRules(),
        lambda _: None,
        asyncio.sleep,
        time.monotonic,
    )


class NoKeys:
    """A store without keys."""

    def get(self, key_id: str) -> Key | None:
        return None

    def all(self) -> list[Key]:
        return []

    def put(self, key: Key) -> None:
        raise OSError("nothing can be kept here")


class NoRecords:
    """Records that there are none of."""

    def groups(self, since: float) -> list[Group]:
        return []

    def counts(self, since: float) -> Counts:
        return Counts(0, 0)


def open_auth() -> Auth:
    """Anybody may do anything but administer."""
    return Auth(NoKeys(), None, required=False, prepared=False, now=time.time)


def no_operations() -> Operations:
    return Operations(NoKeys(), NoRecords())
