"""What all pages share: the head with its navigation, the notice, the foot, and the refresh of those that are open.

What the database cannot answer is said on the page, in the error's words, above what it said before.
"""

from __future__ import annotations

import asyncio
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

from nicegui import app, background_tasks, ui
from structlog import get_logger

from postel.entry import Access
from postel.errors import PostelError

REFRESH_S = 5.0
# Until a page's first paint under a second is wanted, of which the browser needs its part.
_FIRST_S = 0.3
# The navigation: each page's address and name.
_PAGES: Mapping[str, str] = {
    "/": "Overview",
    "/queues": "Queues",
    "/deliverability": "Deliverability",
    "/spam": "Spam",
    "/mailboxes": "Mailboxes",
    "/hosts": "Hosts",
    "/alerts": "Alerts",
    "/trace": "Trace",
}
# What the browser paints before it has the scripts that build the page: its name, where the page will have it.
_FIRST = '<div class="first bar" aria-hidden="true"><h1>Postel</h1></div>'

_log = get_logger()


class Page(ABC):
    """One open page, made within NiceGUI's page function.

    Attributes:
        bar: the head, for what is chosen on the page.
        body: what is below it.
    """

    def __init__(self, address: str) -> None:
        self._lock = asyncio.Lock()
        self._told = False
        self._client = weakref.ref(ui.context.client)
        ui.add_head_html(_head())
        ui.add_body_html(_FIRST)
        ui.colors(primary="#1f5f9e")
        with ui.element("div").classes("shell"):
            with ui.element("header").classes("bar") as self.bar:
                text("h1", "Postel")
                with ui.element("nav").classes("pages").props('aria-label="Pages"'):
                    for target, name in _PAGES.items():
                        link = ui.link(name, target)
                        if target == address:
                            link.props("aria-current=page")
                    if access() is not None:
                        ui.link("Sign out", "/logout")
            self._notice = ui.label("Asking the database ...").classes("notice").props("role=status")
            # No `main`: Quasar's page, around all of this, is one.
            self.body = ui.element("div")
            with ui.element("footer").classes("foot"):
                ui.html("Times in <span class=zone-name>your time zone</span>", sanitize=False)

    @abstractmethod
    async def show(self) -> None:
        """Show what the database says now; what it raises is told on the page."""

    def repaint(self) -> None:  # noqa: B027 - most pages follow by their stylesheet
        """Draw anew what a stylesheet does not reach: the viewer's colours are others now."""

    async def refresh(self) -> None:
        """Show what the database says now, or why it says nothing."""
        async with self._lock:
            try:
                await self._refresh()
            except RuntimeError:
                # NiceGUI's, where the viewer left while the database was asked.
                if not self._left:
                    raise

    async def _refresh(self) -> None:
        if self._left:
            return
        try:
            await self.show()
        except PostelError as error:
            self.say_fault(error)
        else:
            self._told = True
            self._notice.set_visibility(False)

    @property
    def _left(self) -> bool:
        """Whether its viewer has left it."""
        client = self._client()
        return client is None or client.is_deleted

    def say_fault(self, error: PostelError) -> None:
        """Tell above the page why it says nothing new."""
        reason = str(error)
        old = "What is below may be old; this" if self._told else "This"
        self._notice.set_text(f"{reason[:1].upper()}{reason[1:]}. {old} page tries again by itself.")
        self._notice.set_visibility(True)


def access() -> Access | None:
    """What who looks may do; None where no token is asked for. Called within NiceGUI's page function."""
    request = ui.context.client.request
    found: Access | None = getattr(request.state, "access", None) if request else None
    return found


class OpenPages:
    """All pages that viewers have open, refreshed together: those that ask at the same moment share one answer."""

    def __init__(self) -> None:
        self._pages: set[Page] = set()
        app.timer(REFRESH_S, self._refresh, immediate=False)

    async def open(self, page: Page) -> None:
        """Show a page, and refresh it until its viewer leaves it; called within NiceGUI's page function."""
        # A quick answer comes with the page; a slow one must not hold the page up.
        await asyncio.wait([background_tasks.create(page.refresh())], timeout=_FIRST_S)
        ui.on("postel-scheme", page.repaint)
        self._pages.add(page)
        ui.context.client.on_delete(lambda: self._pages.discard(page))

    async def _refresh(self) -> None:
        for result in await asyncio.gather(*(page.refresh() for page in self._pages), return_exceptions=True):
            if isinstance(result, Exception):
                _log.error("a page could not be refreshed", exc_info=result)


def text(tag: str, words: str) -> ui.element:
    """An HTML element of this tag that says the words."""
    element = ui.element(tag)
    with element:
        ui.label(words)
    return element


def moment(time: datetime | None = None, *, exact: bool = False) -> ui.html:
    """A time as the viewer's browser writes it, in the viewer's zone; ``exact``: with milliseconds."""
    return ui.html(moment_html(time, exact=exact) if time else "", sanitize=False, tag="span")


def moment_html(time: datetime, *, exact: bool = False) -> str:
    """The same as HTML, for an element that is there."""
    at = time.astimezone(UTC).isoformat(timespec="milliseconds")
    return f'<postel-time at="{at}"{" exact" if exact else ""}></postel-time>'


@cache
def _head() -> str:
    static = files(__package__) / "static"
    return (
        f"<style>{(static / 'page.css').read_text('utf-8')}</style>"
        f"<script>{(static / 'page.js').read_text('utf-8')}</script>"
    )
