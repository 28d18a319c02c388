"""Who the users of a WildDuck are, from the receiver that reads the list to the one that goes round them."""

from __future__ import annotations

from otel_receivers.receiver import Tick


class Roster:
    """The users of the last whole reading.

    Attributes:
        being_read: the list is being read now; others leave WildDuck alone meanwhile.
    """

    def __init__(self) -> None:
        self.being_read = False
        self._ids: bytes | None = None
        self._tick: Tick | None = None

    def fill(self, ids: bytes, tick: Tick) -> None:
        """Take the ids of all users, 12 bytes each, as read at a tick."""
        self._ids, self._tick = ids, tick

    def before(self, tick: Tick) -> bytes | None:
        """The ids, where they are of an earlier tick than this; None where there are none yet."""
        earlier = self._tick is not None and self._tick.time_unix_nano < tick.time_unix_nano
        return self._ids if earlier else None
