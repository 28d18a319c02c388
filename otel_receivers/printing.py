"""What ``agent --once`` prints: data on stdout, words on stderr, and neither is always there to take it.

Words that nobody takes stop nothing. Data that nobody takes does, except where its reader hung up because it had
enough (``| head -1``): that is no error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from postel.errors import PostelError


def require_stdout() -> None:
    """Make sure that there is a stdout, before any work is done for it.

    Raises:
        PostelError: it is closed.
    """
    # Python's own answer to a standard stream that is closed is None.
    if sys.stdout is None:
        raise PostelError("stdout is closed, and what is collected is printed there; send it to a file or a pipe")


def put(lines: Iterable[str]) -> None:
    """Print data on stdout; what comes after its reader hung up is left out.

    Raises:
        PostelError: stdout cannot be written, such as on a full disk.
    """
    try:
        for line in lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go(sys.stdout)
    except OSError as error:
        _let_go(sys.stdout)
        raise PostelError(f"stdout cannot be written: {error.strerror}") from None


def say(sentence: str) -> None:
    """Print a sentence for a human on stderr, where that takes it."""
    # A stream that is closed is None, which print() would take for stdout, and mix words with data.
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(sentence + "\n")
        sys.stderr.flush()
    except OSError:
        _let_go(sys.stderr)


def _let_go(stream: TextIO) -> None:
    """Send what a stream still holds nowhere: Python would try again at its end, and exit with 120 over it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
