"""Sockets that the gateway listens on, and mistakes in choosing them told in one line."""

import errno
import socket

from lexora.entry.errors import ConfigError

BACKLOG = 2048
LOOPBACK = ("127.0.0.1", "::1")


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; connections are taken later. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError):
            raise ConfigError(f"'{host}' is not a host name; choose another HOST") from None
        if error.errno == errno.EADDRINUSE:
            raise _in_use(host, port) from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another HOST or PORT") from None
    return listener


def take_connections(listener: socket.socket) -> None:
    """Listens, before the start-up screen says so. Raises ConfigError: another gateway may have been quicker."""
    try:
        listener.listen(BACKLOG)
    except OSError:
        raise _in_use(*listener.getsockname()[:2]) from None


def _in_use(host: str, port: int) -> ConfigError:
    return ConfigError(
        f"port {port} on {host} is in use; stop what listens there, or choose another port: PORT={port + 1}"
    )
