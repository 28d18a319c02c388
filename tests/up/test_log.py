"""The log: its throttle, and that a record is a line."""

import subprocess
import sys
import time

from postel.log import Throttle

SAYING = """
import logging, structlog
from postel.log import configure
configure("test")
evil = "GET /x\\n2026 [error] forged \\x1b[31m \\u2028 \\x9b end"
logging.getLogger("nicegui").warning("%s not found", evil)
structlog.get_logger().warning("said", reason=evil)
try:
    raise ValueError("of two\\nlines")
except ValueError:
    structlog.get_logger().exception("failed")
"""


def test_nothing_that_is_told_makes_a_line_of_its_own() -> None:
    said = subprocess.run([sys.executable, "-c", SAYING], capture_output=True, text=True, check=True).stderr
    foreign, own, failed, *traceback = said.splitlines()
    for line in (foreign, own):
        assert r"GET /x\n2026 [error] forged \x1b[31m \u2028 \x9b end" in line
    assert failed.endswith("test: failed")
    assert traceback[0].startswith("Traceback")


def test_a_throttle_tells_at_once_and_then_of_all_that_it_held_back() -> None:
    throttle = Throttle(0.05)
    assert [throttle(), throttle(3), throttle()] == [1, 0, 0]
    time.sleep(0.06)
    assert [throttle(2), throttle()] == [6, 0]
    time.sleep(0.06)
    assert throttle() == 2
