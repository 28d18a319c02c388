"""All pages of `postel serve`, each a module of its own beside this one."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.web import alerts, overview, ranged, runbooks, trace
from dashboards.web.board import Board
from dashboards.web.frame import OpenPages
from dashboards.web.subjects import SUBJECTS
from timescale_sink.api.readers import Readers


def add(readers: Readers, own_runbooks: Mapping[str, str]) -> None:
    """Make the pages over these readers those of NiceGUI's application.

    ``own_runbooks``: rule -> the address of its runbook, where that is not one of these pages.
    """
    opened = OpenPages()
    board = Board(readers.series)
    overview.add(opened, readers, board)
    for subject in SUBJECTS:
        ranged.add(opened, subject, readers, board)
    alerts.add(opened, readers.alerts, own_runbooks)
    trace.add(opened, trace.TraceBoard(readers))
    runbooks.add()
