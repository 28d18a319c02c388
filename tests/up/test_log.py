"""The log's throttle."""

import time

from postel.log import Throttle


def test_a_throttle_tells_at_once_and_then_of_all_that_it_held_back() -> None:
    throttle = Throttle(0.05)
    assert [throttle(), throttle(3), throttle()] == [1, 0, 0]
    time.sleep(0.06)
    assert [throttle(2), throttle()] == [6, 0]
    time.sleep(0.06)
    assert throttle() == 2
