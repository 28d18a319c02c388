"""Standard streams that do not always take what is printed: a pipe whose reader left, a terminal gone, a full disk.

Contract: words that nobody takes stop nothing, and a stream that takes words again gets the next ones.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO


def say(sentence: str, stream: TextIO | None = None) -> None:
    """Print a line for a human, where that is taken; else it is dropped.

    Args:
        sentence: the line, without its end.
        stream: where to, instead of stderr.
    """
    stream = stream or sys.stderr
    # A standard stream that is closed is None, which print() would take for stdout, and mix words with data.
    if stream is None:
        return
    try:
        stream.write(sentence + "\n")
        stream.flush()
    except OSError:
        drop(stream)


def printable(text: str) -> str:
    """A line for a terminal of what others said: nothing in it moves a cursor, colours or ends the line."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def drop(stream: TextIO) -> None:
    """Empty a stream that cannot be written: Python would try again at its end, and exit with 120 over it."""
    saved = os.dup(stream.fileno())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    stream.flush()
    os.dup2(saved, stream.fileno())
    os.close(saved)
