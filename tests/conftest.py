"""Fixtures that the tests of several parts share."""

from __future__ import annotations

import signal

import hypothesis

pytest_plugins = ("support.postgres", "testbed.fixtures")

# How long an example takes says how busy the machine is: no property of the code.
hypothesis.settings.register_profile(
    "postel", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("postel")


# What `nohup` or a shell's `&` lets ignore would be ignored by every program that a test starts, and signals are what
# some tests are about. One that is caught is at its default again in a child, and still does nothing to the tests.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
