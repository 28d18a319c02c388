"""Who may read a file: whether others than its owner may, and whether a service's user can."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

SERVICE = "postel"
"""The user that Postel's services run as, and its group."""
EVERYBODY = "every user"
_EFFECTIVE = os.access in os.supports_effective_ids


def readers(path: Path, root: Path = Path("/")) -> str:
    """Who may read a file beside its owner and Postel's services: `EVERYBODY`, ``the group NAME``, or '' for nobody.

    Args:
        path: the file, which is there.
        root: the folder that is / to the host; what is above it keeps nobody out.

    Raises:
        OSError: it cannot be looked at.
    """
    found = path.stat()
    above = [folder.stat() for folder in path.parents if folder.is_relative_to(root)]
    if found.st_mode & stat.S_IROTH and all(each.st_mode & stat.S_IXOTH for each in above):
        return EVERYBODY
    let = (each.st_mode & (stat.S_IXGRP if each.st_gid == found.st_gid else stat.S_IXOTH) for each in above)
    if not (found.st_mode & stat.S_IRGRP and all(let)):
        return ""
    with contextlib.suppress(KeyError):
        # Such a group is the owner in other words: root's, or that of which a user is the only member.
        if pwd.getpwuid(found.st_uid).pw_gid == found.st_gid:
            return ""
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return "" if group == SERVICE else f"the group {group}"


@contextlib.contextmanager
def seen_as(user: pwd.struct_passwd | None) -> Iterator[None]:
    """What the system lets this user do, while the block runs; only root can. None: as the program itself."""
    if user is None:
        yield
        return
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def obstacle(path: Path) -> Path | None:
    """What keeps this user from reading a file: a folder above it that may not be passed through, or the file.

    Raises:
        OSError: it cannot be read for another reason.
    """
    try:
        with path.open("rb") as file:
            file.read(1)
    except PermissionError:
        closed = (
            folder
            for folder in reversed(path.absolute().parents)
            if not os.access(folder, os.X_OK, effective_ids=_EFFECTIVE)
        )
        return next(closed, path)
    return None
