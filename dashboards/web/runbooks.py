"""``/runbooks/NAME``: what to do where an alert of the rule NAME fires; the files of ``docs/runbooks``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from fastapi.responses import PlainTextResponse
from nicegui import ui
from starlette.responses import Response

from dashboards.web.frame import Page

# Of the checkout, or what an installed wheel was unpacked into.
_ROOT = Path(__file__).resolve().parents[2]
# Beside each other the files name each other with their suffix, which no address has.
_LINK = re.compile(r"\]\(([a-z0-9-]+)\.md\)")


@cache
def runbooks() -> Mapping[str, str]:
    """The rules that have a runbook -> its text in Markdown, whose links are addresses of this server."""
    packaged = _ROOT / "postel" / "data" / "runbooks"
    folder = packaged if packaged.is_dir() else _ROOT / "docs" / "runbooks"
    return {path.stem: _LINK.sub(r"](/runbooks/\1)", path.read_text("utf-8")) for path in sorted(folder.glob("*.md"))}


def address(rule: str) -> str | None:
    """Where a rule's runbook is; None for a user's own rule, which has none here."""
    return f"/runbooks/{rule}" if rule in runbooks() else None


class _Runbook(Page):
    """One open runbook; there is nothing in it to refresh."""

    def __init__(self, text: str) -> None:
        super().__init__("/runbooks")
        with self.body:
            ui.markdown(text).classes("panel-solid prose")

    async def show(self) -> None:
        """Nothing of it comes from the database."""


def add() -> None:
    """Make the runbooks pages."""

    @ui.page("/runbooks/{name}")
    async def runbook(name: str) -> Response | None:
        text = runbooks().get(name)
        if text is None:
            return PlainTextResponse("There is no such runbook. Alerts link to those that there are: /alerts\n", 404)
        ui.page_title(f"{name} · Postel")
        await _Runbook(text).refresh()
        return None
