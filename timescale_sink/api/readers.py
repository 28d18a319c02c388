"""All that reads the database for the API and the page, over one access to it."""

from __future__ import annotations

from postel.signals import Declarations
from timescale_sink.api.access import Access
from timescale_sink.api.events import EventReader
from timescale_sink.api.series import Reader
from timescale_sink.api.trace import Tracer


class Readers:
    """The readers of one process."""

    def __init__(self, declarations: Declarations) -> None:
        self.access = Access()
        self.series = Reader(self.access, declarations)
        self.events = EventReader(self.access, declarations)
        self.tracer = Tracer(self.events)

    async def close(self) -> None:
        """End what is still being asked, and the connections."""
        await self.series.close()
        await self.access.close()
