"""What a test needs beyond Python: it is skipped where that is missing, and fails where that was promised.

``POSTEL_REQUIRE`` holds the promise: ``all``, or names separated by commas, such as ``collector,node``.
"""

from __future__ import annotations

import os

import pytest


def require(component: str, *, available: object, how: str = "`make test` installs it, or says why it cannot") -> None:
    """Go on when ``available`` is truthy; else skip, or fail when POSTEL_REQUIRE names ``component`` or is ``all``.

    Args:
        component: what is needed, in one word: ``collector``, ``node``, ``rspamd``.
        available: a path, a truth, or what is falsy where the component is missing.
        how: how to get it, for the reader of the skip.
    """
    if available:
        return
    reason = f"{component} is missing: {how}"
    promised = {name.strip() for name in os.environ.get("POSTEL_REQUIRE", "").split(",")}
    if promised & {"all", component}:
        pytest.fail(f"{reason} (POSTEL_REQUIRE promises it)", pytrace=False)
    pytest.skip(reason)
