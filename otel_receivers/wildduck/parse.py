"""Turns answers of WildDuck, its API's JSON and its Prometheus page, into what they say.

Pure: bytes in, values out. A page of users is used as a whole or not at all: one user that cannot be read would make
all sums too small. What a user's quota is may be unknown; then it is None and whoever adds up must know.

Source: WildDuck, lib/api/users.js, lib/api/mailboxes.js, lib/metrics.js.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from otel_receivers import answers, page_points, prometheus
from otel_receivers.answers import AnswerError, count, shown
from otel_receivers.page_points import PROCESS_START, Point
from otel_receivers.receiver import Problem
from postel.signals import Declaration

# On the page of every WildDuck that has one, from its start on; the last of them stands near its end.
REQUIRED = ("wildduck_info", "wildduck_service_up", "wildduck_api_requests_total", "wildduck_bullmq_jobs")
ID = re.compile(r"[0-9a-f]{24}").fullmatch
_CURSOR_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class User:
    """A user of the list.

    Attributes:
        id: 24 hexadecimal digits; the list is in their order.
        name: the username; '' where it is not said.
        allowed: quota in bytes; 0: without a limit; None where it is not said or is no amount.
        used: bytes; may exceed ``allowed``; None together with it.
    """

    id: str
    name: str
    allowed: int | None
    used: int | None


@dataclass(frozen=True, slots=True)
class UsersPage:
    """A page of the list of users: ``total`` users there are at this moment, ``next`` is the cursor, '' at the end."""

    total: int
    next: str
    users: tuple[User, ...]


@dataclass(frozen=True, slots=True)
class Mailboxes:
    """What a user's mailboxes hold together; size in bytes."""

    mailboxes: int = 0
    messages: int = 0
    unseen: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class OwnPage:
    """All of WildDuck's own Prometheus page that is understood, and what is not.

    ``process_start_unix_nano`` is None where the page is a sum over several workers, which tells of no start.
    """

    process_start_unix_nano: int | None
    points: tuple[Point, ...]
    problems: tuple[Problem, ...]


def users_page(body: bytes) -> UsersPage:
    """Read an answer to ``GET /users``.

    Raises:
        AnswerError: it is not a whole page of users.
    """
    content = _answer(body)
    total, cursor = count(content.get("total")), content.get("nextCursor")
    if total is None:
        raise AnswerError("malformed", f"total is {shown(content.get('total'))}, no count")
    if cursor is not False and not (isinstance(cursor, str) and 0 < len(cursor) <= _CURSOR_CHARACTERS):
        # Without one the page would pass for the last.
        raise AnswerError("malformed", f"nextCursor is {shown(cursor)}, neither a cursor nor false")
    return UsersPage(total, cursor or "", tuple(_user(each) for each in content["results"]))


def mailboxes(body: bytes) -> Mailboxes:
    """Read an answer to ``GET /users/:user/mailboxes?counters=true&sizes=true``.

    Raises:
        AnswerError: it is not whole, or a figure that WildDuck could not find out itself is missing.
    """
    messages = unseen = size = 0
    found = _answer(body)["results"]
    for mailbox in found:
        said = mailbox if isinstance(mailbox, dict) else {}
        total, new = count(said.get("total")), count(said.get("unseen"))
        if total is None or new is None:
            raise AnswerError("malformed", "a mailbox does not say how many messages it has")
        # WildDuck leaves the size out where nothing is in a mailbox, and also where adding up failed.
        held = count(said.get("size", None if total else 0))
        if held is None:
            raise AnswerError("malformed", "a mailbox with messages does not say their size")
        messages += total
        unseen += new
        size += held
    return Mailboxes(len(found), messages, unseen, size)


def error_code(body: bytes) -> str:
    """The code that WildDuck gives its refusal (``InvalidToken``, ``UserNotFound``); '' for what is no such answer."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    code = content.get("code") if isinstance(content, dict) else None
    return code if isinstance(code, str) and re.fullmatch(r"\w{1,64}", code) else ""


def own_page(body: bytes, declaration: Declaration) -> OwnPage:
    """Read a page of ``GET :8081/metrics``.

    Raises:
        PageError: it must not be used at all: cut short, malformed, or not of a WildDuck.
    """
    families = prometheus.parse(body, REQUIRED)
    points, problems = page_points.points_of(families, declaration)
    start = families.get(PROCESS_START)
    return OwnPage(page_points.process_start(start) if start else None, points, problems)


def _answer(body: bytes) -> Mapping[str, Any]:
    """An object with ``success`` and a list of ``results``."""
    content = answers.decode(body)
    if not isinstance(content, dict) or content.get("success") is not True:
        code = error_code(body)
        raise AnswerError("unexpected_page", f"no answer of WildDuck that succeeded{code and ': '}{code}")
    if not isinstance(content.get("results"), list):
        raise AnswerError("unexpected_page", "an answer without a list of results")
    return content


def _user(content: Any) -> User:
    user_id = content.get("id") if isinstance(content, dict) else None
    if not isinstance(user_id, str) or not ID(user_id):
        raise AnswerError("malformed", f"a user has the id {shown(user_id)}, not 24 hexadecimal digits")
    quota = content.get("quota")
    allowed, used = (count(quota.get("allowed")), count(quota.get("used"))) if isinstance(quota, dict) else (None, None)
    name = content.get("username")
    if allowed is None or used is None:
        allowed = used = None
    return User(user_id, name if isinstance(name, str) else "", allowed, used)
