"""The plugins' own tests, in JavaScript, with Node's runner."""

from __future__ import annotations

import re

import pytest
from testbed.mail_plugins import run_tests

from support.node import Node


@pytest.mark.slow
@pytest.mark.parametrize("name", ["haraka", "lib", "zone-mta"])
def test_the_tests_in_javascript_pass(name: str, node: Node) -> None:
    done = run_tests(node, name)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"^\S+ pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed, done.stdout[-2000:]
    assert int(passed[1]) > 20
