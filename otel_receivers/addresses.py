"""Finds mail addresses in texts as servers and their logs write them. Pure, and linear in the length of the text.

What stands before an ``@`` is a local part, whatever comes after: a text that was cut off ends in half an address. They
are sought from the right to the left, for a quoted local part may hold an ``@`` of its own.

Source: RFC 5321 section 4.1.2 (local part, quoted string, address literal), RFC 6531 (letters of all scripts).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable

# The @ itself, and how it is written in URLs, HTML, JSON and East Asian texts.
_AT = re.compile(r"@|\uff20|%40|&#64;|\\u0040", re.IGNORECASE)
_HINT = re.compile(r"[@\uff20%&\\<]")
_DOMAIN = re.compile(r"\[[^\[\]\s]{1,255}\]|[\w-]+(?:\.[\w-]+)*")
# What ends a local part that is not quoted. Neither = nor ' does: SRS0=hash=tt=example.org=ann@, o'hara@.
_END = re.compile(r"[\s<>()\[\],;:\"@\uff20]")
# Names that stand before an address in logs and replies; after any other word and =, the word is part of the address.
_NAMES = (
    r"to|from|cc|bcc|orig_to|rcpt|orcpt|mail|sender|recipient|user|username|ruser|login|sasl_username|addr|address"
    r"|email|envelope-from|(?:smtp\.|header\.)(?:mailfrom|from|rcptto|auth|[id])"
)
_BEFORE = re.compile(rf"(?:(?:{_NAMES})=|['`])*", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# A reply that was cut to this length or more may end within an address, before its @.
_CUT_CHARS = 256
_CUT = re.compile(r"[^\s<>@\uff20]+")


def replace_addresses(text: str, local_part: Callable[[str, str], str]) -> str:
    """Replace the local part of each address in a text; domains become lower case.

    Args:
        text: any.
        local_part: gives what stands in its place, by the local part without quotes and the domain ('' without one).
    """
    if _HINT.search(text) is None:  # most texts
        return text
    text = _without_half(text)
    ats = list(_AT.finditer(text))
    if not ats:
        return text
    ends = _Ends(text)
    pieces: list[str] = []
    rest = len(text)
    for at in reversed(ats):
        if at.end() > rest:
            continue  # within a local part
        start = ends.local_part(at.start())
        if start == at.start():
            continue
        found = _DOMAIN.match(text, at.end(), rest)
        domain = found[0].lower() if found else ""
        after = found.end() if found else at.end()
        pieces += (text[after:rest], domain, at[0], local_part(_plain(text[start : at.start()]), domain))
        rest = start
    pieces.append(text[:rest])
    return "".join(reversed(pieces))


class _Ends:
    """Where the words of a text end, so that none is looked for twice."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = [found.start() for found in _END.finditer(text)]
        self._quotes = [end for end in self._ends if text[end] == '"']

    def local_part(self, end: int) -> int:
        """Where the local part begins that ends before ``end``; ``end`` where there is none."""
        start, found = end, -1
        while start != found:
            found = start
            index = bisect_left(self._ends, start)
            start = self._ends[index - 1] + 1 if index else 0
            # Words of either kind are joined by dots: "ann lee".news@
            if start and self._text[start - 1] == '"' and (start == end or self._text[start] == "."):
                start = self._opening(start - 1, start)
        name = _BEFORE.match(self._text, start, end)
        if name and not (name[0].endswith(("'", "`")) and self._text[end - 1] == name[0][-1]):
            return name.end()
        return start

    def _opening(self, closing: int, otherwise: int) -> int:
        """Where the quoted string begins that ends at ``closing``."""
        within_quotes = self._escaped(closing)
        for index in range(bisect_left(self._quotes, closing) - 1, -1, -1):
            quote = self._quotes[index]
            if within_quotes or not self._escaped(quote):
                return otherwise if "\n" in self._text[quote:closing] else quote
        return otherwise

    def _escaped(self, position: int) -> bool:
        backslashes = 0
        while backslashes < position and self._text[position - 1 - backslashes] == "\\":
            backslashes += 1
        return backslashes % 2 == 1


def _plain(local_part: str) -> str:
    quoted = len(local_part) > 1 and local_part[0] == local_part[-1] == '"'
    return _ESCAPED.sub(r"\1", local_part[1:-1]) if quoted else local_part


def _without_half(text: str) -> str:
    """A long text without the address that it was cut off in."""
    begin = text.rfind("<") + 1 if len(text) >= _CUT_CHARS else 0
    return text[:begin] if begin and _CUT.fullmatch(text, begin) else text
