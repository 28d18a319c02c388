"""A uvicorn server that leaves signals to the program that it runs in, as every program of Postel needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

# As long as a connection of OTLP may stay idle. A sender that begins a request while it is closed gets no answer; so
# it is longer than senders keep one (the Collector, and whatever uses Go's HTTP client: 90 s).
IDLE_SECONDS = 120


class Server(uvicorn.Server):
    """Uvicorn's own handlers would end the process, by the signal again, before its program has done its last work."""

    def stop(self) -> None:
        """Stop gracefully; called again, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing with signals."""
        yield
