from __future__ import annotations

import asyncio
import socket

import pytest

from postel.errors import AddressInUseError, PostelError
from postel.listening import listen


def test_a_free_port_is_listened_on() -> None:
    with listen("127.0.0.1:0", "[x] y") as listener:
        socket.create_connection(listener.getsockname()).close()


def test_a_port_in_use_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=rf"^{address} is in use.* set \[sink\] http_address"):
            listen(address, "[sink] http_address")


def test_a_port_just_closed_is_free_again() -> None:
    first = listen("127.0.0.1:0", "[x] y")
    address = "{}:{}".format(*first.getsockname())
    client = socket.create_connection(first.getsockname())
    first.settimeout(5)
    served, _ = first.accept()
    served.close()  # the server closes first: its end waits in TIME_WAIT
    client.close()
    first.close()
    listen(address, "[x] y").close()


@pytest.mark.parametrize("address", ["192.0.2.1:4418", "no-such-host.test:4418"])
def test_an_address_of_another_host_is_named_with_the_reason(address: str) -> None:
    with pytest.raises(PostelError, match=rf"cannot listen on {address}: \w.*; set \[x\] y to another address"):
        listen(address, "[x] y")


async def test_answers_leave_at_once() -> None:
    nodelay: asyncio.Queue[int] = asyncio.Queue()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        nodelay.put_nowait(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        await writer.wait_closed()

    listener = listen("127.0.0.1:0", "[x] y")
    async with await asyncio.start_server(serve, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await asyncio.wait_for(nodelay.get(), 5)
        writer.close()
        await writer.wait_closed()
