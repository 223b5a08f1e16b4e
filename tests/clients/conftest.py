"""What the tests of the clients share."""

from collections.abc import Iterator

import pytest

from tests.clients.callers import NodeCaller, running_node


@pytest.fixture(scope="session")
def node() -> Iterator[NodeCaller]:
    with running_node() as running:
        yield running
