"""The data that ``agent --once`` prints on stdout, which is not always there to take it.

Data that nobody takes stops it, except where its reader hung up because it had enough (``| head -1``): that is no
error. Words, which stop nothing, go through `postel.streams`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from postel.errors import PostelError
from postel.streams import drop


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
        drop(sys.stdout)
    except OSError as error:
        drop(sys.stdout)
        raise PostelError(f"stdout cannot be written: {error.strerror}") from None
