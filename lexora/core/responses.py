"""The stored responses of one user."""

from collections.abc import Callable, Iterator

from lexora.core.errors import ResponsesUnavailable
from lexora.core.keys import Caller
from lexora.core.ports import MOST_RESPONSE_BYTES, ResponseStore, StoredResponse


def owner_of(caller: Caller, named: str | None) -> str:
    """Whose responses a caller makes and may see: those of the user that a request counts for, as `x_user_id` says."""
    return (named if caller.on_behalf else None) or caller.user_id or ""


class OwnResponses:
    """What a store holds of one owner's; nobody else's can be reached through it. `report` is told what goes wrong."""

    def __init__(self, store: ResponseStore, owner: str, report: Callable[[str], None]) -> None:
        self._store = store
        self._owner = owner
        self._report = report

    def get(self, response_id: str) -> StoredResponse | None:
        """Raises ResponsesUnavailable."""
        try:
            return self._store.get(self._owner, response_id)
        except OSError as error:
            raise self._unavailable(error) from None

    def conversation(self, last: str) -> Iterator[StoredResponse | None]:
        """A response and those that it went on from, the latest first; None comes last if one of them is not there.

        Raises ResponsesUnavailable.
        """
        previous: str | None = last
        while previous is not None:
            stored = self.get(previous)
            yield stored
            previous = stored.previous if stored is not None else None

    def put(self, response_id: str, created_at: float, previous: str | None, items: bytes, response: bytes) -> bool:
        """Whether it could be stored: an answer that cannot be is a good answer all the same."""
        if len(items) + len(response) > MOST_RESPONSE_BYTES:
            return False
        try:
            self._store.put(StoredResponse(response_id, self._owner, created_at, previous, items, response))
        except OSError as error:
            self._report(f"{response_id} is not stored: {error}")
            return False
        return True

    def delete(self, response_id: str) -> bool:
        """Whether there was any. Raises ResponsesUnavailable."""
        try:
            return self._store.delete(self._owner, response_id)
        except OSError as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: OSError) -> ResponsesUnavailable:
        self._report(str(error))
        return ResponsesUnavailable("Stored responses cannot be read or deleted at the moment. Try again soon.")
