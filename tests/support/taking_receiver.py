"""An OTLP/HTTP receiver that takes every request and looks at none, in a process of its own, so that a measured server
shares neither interpreter nor much of a core with it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@contextlib.contextmanager
def taking_receiver() -> Iterator[str]:
    """Its endpoint, until the block ends."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            length = LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
            assert length, "a request without a length"
            await reader.readexactly(int(length[1]))
            writer.write(ANSWER)
            await writer.drain()


async def main() -> None:
    server = await asyncio.start_server(take, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - told to the test
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
