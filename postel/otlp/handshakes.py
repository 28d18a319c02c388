"""What the log says of connections over TLS to a gRPC server that came to nothing.

Contract: a line a minute at most, with how many there were. gRPC tells a program when a handshake begins and when a
call comes, and of nothing between: so one counts that has brought no call when a handshake must be over. Why it failed
its sender hears, and gRPC's own log where ``GRPC_VERBOSITY`` is ``INFO``.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import structlog

from postel.log import Throttle

# Callers that are still known; a connection that calls again after so many others counts for one that did not.
_REMEMBERED = 4096
# Of those under way. More are a flood, whose count need not be exact.
_COUNTED = 65_536
_log = structlog.get_logger()


class Handshakes:
    """Those of one server.

    Args:
        at: the setting with the server's address, for the log.
        seconds: in which a handshake is over and a first call has come.
        clock: seconds since any moment.
    """

    def __init__(self, at: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._at, self._seconds, self._clock = at, seconds, clock
        self._lock = threading.Lock()
        self._begun: deque[float] = deque(maxlen=_COUNTED)
        self._callers: OrderedDict[str, None] = OrderedDict()
        self._throttle = Throttle(clock=clock)

    def begun(self) -> None:
        """A handshake begins; called by gRPC's threads."""
        with self._lock:
            self._tell()
            self._begun.append(self._clock())

    def called(self, peer: str) -> None:
        """A call has come.

        Args:
            peer: of its connection, and of this one alone.
        """
        with self._lock:
            if peer in self._callers:
                self._callers.move_to_end(peer)
            else:
                self._callers[peer] = None
                if len(self._callers) > _REMEMBERED:
                    self._callers.popitem(last=False)
                if self._begun:
                    # A first call follows its handshake at once; those that wait longer are the ones that fail.
                    self._begun.pop()
            self._tell()

    def _tell(self) -> None:
        since, failed = self._clock() - self._seconds, 0
        while self._begun and self._begun[0] < since:
            self._begun.popleft()
            failed += 1
        if failed and (count := self._throttle(failed)):
            _log.warning("connections came to nothing: no TLS came about, or no call", connections=count, at=self._at)
