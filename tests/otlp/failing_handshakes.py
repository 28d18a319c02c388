"""A gRPC server of ours with TLS, and two handshakes with it that fail; a program of its own, since gRPC reads how much
to say when it is imported.
"""

from __future__ import annotations

import asyncio

from postel.otlp.tls_door import TlsDoor
from support.otlp_receiver import running_receiver
from support.tls_listeners import CERTIFICATES


async def _main() -> None:
    async with running_receiver(tls=TlsDoor("[sink]", CERTIFICATES / "gateway.pem")) as receiver:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", receiver.grpc_port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()
            writer.transport.abort()


asyncio.run(_main())
