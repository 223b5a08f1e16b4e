"""Any ASGI application on the server and the event loop that it has in production, in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from starlette.types import ASGIApp

from lexora.entry.server import create_server


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serves it on a free port. Gives its address."""
    server = create_server(app, keep_alive_seconds=5, shutdown_seconds=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: uvloop.run(server.serve([listener])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
