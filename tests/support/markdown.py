"""The project's Markdown pages, their blocks of code, and who of the tests runs each.

A page's test follows it through :func:`reading`, which fails for a block that was not taken, so that none comes into a
page without being run; tests/docs/test_every_block.py sees that each page with blocks has such a test. A picture or a
listing is a block of the language ``text``.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from support.environment import without_settings

CHECKOUT = Path(__file__).parents[2]
PICTURE = "text"
_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: its page, below the checkout.
        line: of the page, from 1 on.
        language: the first word of its fence, in small letters.
        kind: what else the fence says: who runs it, or the file that it is.
        text: without the indentation of a list that it is in.
    """

    page: str
    line: int
    language: str
    kind: str
    text: str


@dataclass(frozen=True)
class Links:
    """What a page links to, images too, and the anchors that it has."""

    targets: tuple[tuple[int, str], ...]
    anchors: frozenset[str]


def files(*patterns: str) -> list[str]:
    """The project's files below the checkout that match; those that git ignores are none."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    return sorted(name for name in filter(None, listed.stdout.decode().split("\0")) if (CHECKOUT / name).is_file())


@functools.cache
def pages() -> tuple[str, ...]:
    """Every Markdown page of the project."""
    return tuple(files("*.md"))


@functools.cache
def _tokens(page: str) -> list[Token]:
    return _PARSER.parse((CHECKOUT / page).read_text("utf-8"))


def blocks(page: str, language: str = "", kind: str = "") -> list[Block]:
    """A page's blocks in order: all, or those of a language and a kind."""
    found = []
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            its, _, its_kind = token.info.strip().partition(" ")
            line = token.map[0] + 1 if token.map else 0
            found.append(Block(page, line, its, its_kind, token.content))
    return [block for block in found if not language or (block.language, block.kind) == (language, kind)]


def spans(page: str) -> list[str]:
    """What stands in a page's text as code."""
    return [child.content for child in _inline(page) if child.type == "code_inline"]


def links(page: str) -> Links:
    """What a page links to, and can be linked to by."""
    targets = []
    for token in _tokens(page):
        for child in token.children or []:
            target = child.attrs.get("href" if child.type == "link_open" else "src")
            if target is not None and token.map:
                targets.append((token.map[0] + 1, str(target)))
    headings = [
        "".join(child.content for child in after.children or [])
        for token, after in zip(_tokens(page), _tokens(page)[1:], strict=False)
        if token.type == "heading_open"
    ]
    return Links(tuple(targets), frozenset(_anchors(headings)))


def _anchors(headings: list[str]) -> Iterator[str]:
    """As GitHub makes them (gjtorikian/html-pipeline, toc_filter): the second of a name ends in -1."""
    seen: Counter[str] = Counter()
    for heading in headings:
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        yield f"{name}-{seen[name]}" if seen[name] else name
        seen[name] += 1


def _inline(page: str) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or []


class Reading:
    """Somebody who follows a page: takes its blocks and runs them with this machine's names in the place of the page's.

    Args:
        page: below the checkout.
        instead: a text of the page's blocks -> what stands for it here, one after the other.
    """

    def __init__(self, page: str, instead: Mapping[str, str]) -> None:
        self.page = page
        self.left = [block for block in blocks(page) if block.language != PICTURE]
        self._instead = dict(instead)
        self._met: set[str] = set()

    def take(self, language: str, kind: str = "") -> list[str]:
        """The texts of the page's blocks of a language and a kind, as they are to be run here."""
        taken = blocks(self.page, language, kind)
        assert taken, f"{self.page} has no block of {language} {kind}"
        self.left = [block for block in self.left if block not in taken]
        return [self.here(block.text) for block in taken]

    def here(self, text: str) -> str:
        """A text with this machine's names."""
        for name, mine in self._instead.items():
            if name in text:
                self._met.add(name)
                text = text.replace(name, mine)
        return text

    def finish(self) -> None:
        """See that nothing was left out."""
        assert not self.left, f"nothing runs {[(block.page, block.line, block.language) for block in self.left]}"
        assert set(self._instead) == self._met, f"{self.page} does not say {set(self._instead) - self._met}"


@contextmanager
def reading(
    page: str, *, instead: Mapping[str, str] | None = None, others: Mapping[str, str] | None = None
) -> Iterator[Reading]:
    """Follow a page from its first block to its last.

    Args:
        page: below the checkout.
        instead: as of :class:`Reading`. Each is in the page, and a comment beside it says why it cannot stay.
        others: language and kind of the blocks that another test runs -> the file of that test.
    """
    reader = Reading(page, instead or {})
    for what, test in (others or {}).items():
        language, _, kind = what.partition(" ")
        assert f'"{page}"' in (CHECKOUT / test).read_text("utf-8"), f"{test} does not ask for {page}"
        assert blocks(page, language, kind), f"{page} has no block of {what}"
        reader.left = [block for block in reader.left if (block.language, block.kind) != (language, kind)]
    yield reader
    reader.finish()


def variables(*folders: Path, **more: str) -> dict[str, str]:
    """The environment of a reader's shell: no settings of Postel's but those given; the commands of this Python, then
    of the folders before all others."""
    kept = without_settings("MAKE")
    path = os.pathsep.join([*map(str, folders), str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": path, **more}


def run(block: str, folder: Path, environment: Mapping[str, str], seconds: float = 60) -> str:
    """Run a block of a shell's that ends, as one shell with -e; what it prints on stdout.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(
        ["bash", "-e", "-c", block],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
