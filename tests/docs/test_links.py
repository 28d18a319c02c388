"""Every link of every page leads somewhere: a file of the project, a heading in it; of the web the form counts."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote, urlsplit

from support.markdown import files, links, pages

WEB = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[^\s<>]*)?")


def there() -> set[str]:
    """Every file of the project, and every folder that one is in."""
    names = set(files())
    for name in list(names):
        while name := posixpath.dirname(name):
            names.add(name)
    return names


def test_links_lead_somewhere() -> None:
    project, wrong = there(), []
    for page in pages():
        for line, target in links(page).targets:
            address = urlsplit(target)
            if address.scheme or address.netloc:
                right = bool(WEB.fullmatch(target))
            else:
                path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(address.path)))
                path = path if address.path else page
                right = path in project and (not address.fragment or address.fragment in anchors(path))
            if not right:
                wrong.append(f"{page}:{line}: {target}")
    assert not wrong


def anchors(path: str) -> frozenset[str]:
    return links(path).anchors if path.endswith(".md") else frozenset()


def test_what_a_page_has_to_link_to() -> None:
    assert links("docs/gateway.md").anchors >= {"the-gateway", "the-hosts", "when-a-host-does-not-get-in"}
    assert {"docs/images", "docs/images/page.png"} <= there()
