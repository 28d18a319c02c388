"""Who looks for a message at ``/trace``: some tabs of one browser, and what each shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from selenium import webdriver

_STEPS = """
return [...document.querySelectorAll('.step')].map((step) => ({
  part: step.querySelector('.part').textContent,
  node: step.querySelector('.node-name').textContent,
  title: step.querySelector('h3').textContent,
  at: step.querySelector('postel-time').getAttribute('at'),
  facts: [...step.querySelectorAll('dt')].map((dt) => [dt.textContent, dt.nextElementSibling.textContent]),
}))
"""
_FATES = """
return [...document.querySelectorAll('.fates li')].map((li) =>
  [li.querySelector('.name').textContent, li.querySelector('.mark').textContent])
"""
_LISTED = "return [...document.querySelectorAll('.events li')].map((li) => li.textContent)"
_CLICK = "document.querySelectorAll('.events li a')[arguments[0]].click()"


@dataclass(frozen=True)
class Step:
    """A step of a time line, as it is shown; ``facts``: what is told of it."""

    part: str
    node: str
    title: str
    at: datetime
    facts: Mapping[str, str]


class Viewers:
    """Tabs of a browser at one page, by their numbers.

    Args:
        chrome: whose tabs they are.
        page: the address of the page, with its last slash.
        count: how many.
    """

    def __init__(self, chrome: webdriver.Chrome, page: str, count: int) -> None:
        self._chrome = chrome
        self._page = page
        self._tabs = [chrome.current_window_handle]
        for _ in range(count - 1):
            chrome.switch_to.new_window("tab")
            self._tabs.append(chrome.current_window_handle)

    def look_for(self, tab: int, what: str) -> None:
        """Ask a tab for this; does not wait until it is loaded."""
        self._go(tab, f"{self._page}trace?id={quote(what, safe='')}")

    def leave(self) -> None:
        """Have no page open any more."""
        for tab in range(len(self._tabs)):
            self._go(tab, "about:blank")

    def steps(self, tab: int) -> list[Step]:
        """The time line of a tab; none where no message is found."""
        self._chrome.switch_to.window(self._tabs[tab])
        return [
            Step(step["part"], step["node"], step["title"], datetime.fromisoformat(step["at"]), dict(step["facts"]))
            for step in self._chrome.execute_script(_STEPS)
        ]

    def fates(self, tab: int) -> dict[str, str]:
        """What became of the message, by its recipients."""
        self._chrome.switch_to.window(self._tabs[tab])
        return dict(self._chrome.execute_script(_FATES))

    def listed(self, tab: int) -> list[str]:
        """The lines of events that are listed where no message has what was asked for as its id."""
        self._chrome.switch_to.window(self._tabs[tab])
        lines: list[str] = self._chrome.execute_script(_LISTED)
        return lines

    def follow(self, tab: int, line: int) -> None:
        """Open the message of a line that is listed."""
        self._chrome.switch_to.window(self._tabs[tab])
        self._chrome.execute_script(_CLICK, line)

    def _go(self, tab: int, address: str) -> None:
        self._chrome.switch_to.window(self._tabs[tab])
        self._chrome.execute_script("window.location = arguments[0]", address)
