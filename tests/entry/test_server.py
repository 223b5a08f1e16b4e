"""What our server does beyond uvicorn, on the event loop that it has in production."""

import asyncio
import socket

import uvloop

from lexora.entry import server


async def _transport() -> tuple[server._Transport, asyncio.Transport, socket.socket]:
    """Our transport, the one that it wraps, and the client's end."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    wrapped, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    theirs.settimeout(5)
    return server._Transport(wrapped, loop), wrapped, theirs


def test_a_client_that_has_left_does_not_hold_up_the_others() -> None:
    """Its answer and theirs wait for the end of the same turn; by then its connection is gone."""

    async def main() -> None:
        first, _, first_end = await _transport()
        gone, wrapped, gone_end = await _transport()
        other, _, other_end = await _transport()
        wrapped.abort()
        for transport in (first, gone, other):
            transport.write(b"answer")
        await asyncio.sleep(0.01)
        other.write(b", and more")
        await asyncio.sleep(0.01)
        assert other_end.recv(100) == b"answer, and more"
        assert first_end.recv(100) == b"answer"
        assert gone_end.recv(100) == b""
        for transport, end in ((first, first_end), (gone, gone_end), (other, other_end)):
            transport.close()
            end.close()

    errors: list[dict[str, object]] = []
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    loop.run_until_complete(main())
    loop.close()
    assert errors == []
