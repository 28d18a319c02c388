"""Recorded answers of WildDuck, made-up ones in the same form, and a stand-in for its API that gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from support.stand_in import Request

RECORDINGS = Path(str(files("otel_receivers.wildduck"))) / "testdata"
METRICS = (RECORDINGS / "1.51.1" / "metrics.txt").read_bytes()
TWO_WORKERS = (RECORDINGS / "1.51.1" / "two-workers.txt").read_bytes()
USERS = (RECORDINGS / "1.51.1" / "users-page-1.json").read_bytes()
USERS_2 = (RECORDINGS / "1.51.1" / "users-page-2.json").read_bytes()
MAILBOXES = (RECORDINGS / "1.51.1" / "mailboxes-with-messages.json").read_bytes()
EMPTY_MAILBOXES = (RECORDINGS / "1.51.1" / "mailboxes.json").read_bytes()
INVALID_TOKEN = (RECORDINGS / "1.51.1" / "invalid-token.json").read_bytes()
NO_USER = (RECORDINGS / "1.51.1" / "user-not-found.json").read_bytes()
OLD_USERS = (RECORDINGS / "1.46.15" / "users-page-1.json").read_bytes()
OLD_LAST_USERS = (RECORDINGS / "1.46.15" / "users-last-page.json").read_bytes()
OLD_MAILBOXES = (RECORDINGS / "1.46.15" / "mailboxes-with-messages.json").read_bytes()

Json = Mapping[str, Any]
_PAGE = 250


def user_id(number: int) -> str:
    """An id; they are in the order of their numbers."""
    return f"{number:024x}"


def user(number: int, used: int = 0, allowed: int = 1000) -> dict[str, Any]:
    """A user as the list has it."""
    return {
        "id": user_id(number),
        "username": f"user{number}",
        "name": f"User {number}",
        "address": f"user{number}@example.org",
        "tags": [],
        "targets": [],
        "enabled2fa": [],
        "autoreply": False,
        "encryptMessages": False,
        "encryptForwarded": False,
        "quota": {"allowed": allowed, "used": used},
        "hasPasswordSet": True,
        "activated": True,
        "disabled": False,
        "suspended": False,
    }


def mailboxes(messages: int, unseen: int, size: int) -> dict[str, Any]:
    """An INBOX that holds this, and an empty Trash, as the list of mailboxes has them."""
    inbox = {"id": "a" * 24, "path": "INBOX", "specialUse": None, "total": messages, "unseen": unseen}
    trash = {"id": "b" * 24, "path": "Trash", "specialUse": "\\Trash", "total": 0, "unseen": 0}
    return {"success": True, "results": [{**inbox, **({"size": size} if messages else {})}, trash]}


def users_page(users: Sequence[Json], *, total: int, cursor: str | bool = False) -> dict[str, Any]:
    """A page of the list."""
    return {"success": True, "total": total, "page": 1, "previousCursor": False, "nextCursor": cursor, "results": users}


# Given a request: a status and the answer's JSON, or None to answer as WildDuck does.
Instead = Callable[[Request], tuple[int, Any] | None]


@dataclass
class StandIn:
    """Answers as WildDuck's API does, from a list of users in the order of their ids."""

    users: list[dict[str, Any]] = field(default_factory=list)
    mailboxes: dict[str, Any] = field(default_factory=dict)
    token: str = ""
    instead: Instead = lambda _: None
    requests: list[Request] = field(default_factory=list)
    name = "WildDuck API"

    def of(self, path: str) -> list[Request]:
        """The requests whose path ends like this."""
        return [request for request in self.requests if request.path.endswith(path)]

    def most_in_a_second(self) -> int:
        """How many requests came within one second, at most."""
        times = [request.at for request in self.requests]
        return max(sum(began <= at < began + 1 for at in times) for began in times)

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and JSON."""
        if (other := self.instead(request)) is not None:
            return other
        if self.token and request.headers.get("x-access-token") != self.token:
            return 403, json.loads(INVALID_TOKEN)
        if request.path == "/users":
            return 200, self._list(request.query)
        if request.path.startswith("/users/") and request.path.endswith("/mailboxes"):
            whose = request.path.split("/")[2]
            if whose not in {each["id"] for each in self.users}:
                return 404, json.loads(NO_USER)
            return 200, self.mailboxes.get(whose, mailboxes(0, 0, 0))
        return 404, {"code": "ResourceNotFound", "message": f"{request.path} does not exist"}

    def _list(self, query: Mapping[str, str]) -> dict[str, Any]:
        after = query.get("next", "").removeprefix("after-")
        left = [each for each in self.users if each["id"] > after]
        shown = left[: min(int(query["limit"]), _PAGE)]
        cursor: str | bool = f"after-{shown[-1]['id']}" if len(shown) < len(left) else False
        return users_page(shown, total=len(self.users), cursor=cursor)
