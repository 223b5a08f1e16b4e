"""What the tests of the adapters share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.emulator import Emulator
from tests.support.gateway import free_port


@pytest.fixture
def unreachable(emulator: Emulator) -> Iterator[Callable[[str], Any]]:
    """Makes clients of services that nobody answers for."""
    made: list[Any] = []

    def client(service: str) -> Any:
        made.append(emulator.client(service, f"http://127.0.0.1:{free_port()}"))
        return made[-1]

    yield client
    for each in made:
        each.close()
