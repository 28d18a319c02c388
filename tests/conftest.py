"""Fixtures that the tests of several parts share."""

from __future__ import annotations

import hypothesis

pytest_plugins = ("support.postgres", "testbed.fixtures")

# How long an example takes says how busy the machine is: no property of the code.
hypothesis.settings.register_profile(
    "postel", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("postel")
