"""Turns a checkout into a running Postel on a machine that has only Python 3.11, make and git.

``python3 -m tools.bootstrap STEP...`` with the steps of `tools.bootstrap.__main__`. Standard library only. Every step
does nothing when its result is there already, so that a second ``make up`` starts at once.
"""
