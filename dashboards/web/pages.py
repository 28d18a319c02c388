"""All pages of `postel serve`, each a module of its own beside this one."""

from __future__ import annotations

from dashboards.web import alerts, overview, ranged, runbooks, trace
from dashboards.web.board import Board
from dashboards.web.frame import OpenPages
from dashboards.web.subjects import SUBJECTS
from timescale_sink.api.readers import Readers


def add(readers: Readers) -> None:
    """Make the pages over these readers those of NiceGUI's application."""
    opened = OpenPages()
    board = Board(readers.series)
    overview.add(opened, readers, board)
    for subject in SUBJECTS:
        ranged.add(opened, subject, readers, board)
    alerts.add(opened, readers.alerts)
    trace.add(opened, trace.TraceBoard(readers))
    runbooks.add()
