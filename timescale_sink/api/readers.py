"""All that reads the database for the API and the pages: a replica where there is one, alerts always the primary."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from postel.signals import Declarations
from postel.tasks import end
from timescale_sink.api.access import Access
from timescale_sink.api.alerts import AlertReader
from timescale_sink.api.events import EventReader
from timescale_sink.api.feed import Feed
from timescale_sink.api.series import Reader
from timescale_sink.api.standing import StandingReader
from timescale_sink.api.tallies import TallyReader
from timescale_sink.api.trace import Tracer
from timescale_sink.store.database import READ_URL


class Readers:
    """The readers of one process.

    Attributes:
        primary: where alerts are read and written: who silences one has to see it silenced at once.
        access: where all else is read; the primary too where there is no replica.

    Args:
        declarations: of the tables.
        replica: whether there is one.
    """

    def __init__(self, declarations: Declarations, *, replica: bool = False) -> None:
        self.primary = Access()
        self.access = Access("the replica", READ_URL) if replica else self.primary
        self.series = Reader(self.access, declarations)
        self.events = EventReader(self.access, declarations)
        self.tracer = Tracer(self.events)
        self.tallies = TallyReader(self.access)
        self.standing = StandingReader(self.access)
        self.alerts = AlertReader(self.primary)
        self.feed = Feed(self.access, self.events)
        # Who listens at the moment.
        self.listeners: set[object] = set()
        self._feeding: asyncio.Task[None] | None = None
        self._closes: list[Callable[[], Awaitable[None]]] = []

    def close_first(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have :meth:`close` end first what others still ask by these readers."""
        self._closes.append(close)

    def start(self) -> None:
        """Begin to look for new events for those who listen."""
        self._feeding = asyncio.create_task(self.feed.run())

    async def close(self) -> None:
        """End what is still being asked, and the connections."""
        if self._feeding is not None:
            await end(self._feeding)
        for close in self._closes:
            await close()
        await self.series.close()
        await self.tallies.close()
        await self.standing.close()
        await self.alerts.close()
        for access in {self.access, self.primary}:
            await access.close()
