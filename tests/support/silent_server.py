"""A receiver that hangs: takes every connection, never reads from it, never answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def silent_server(port: int = 0) -> Iterator[str]:
    """Its endpoint, until the block ends; then its connections are closed."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        accepting = threading.Thread(target=accept, name="silent-server", daemon=True)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in held:
                connection.close()
