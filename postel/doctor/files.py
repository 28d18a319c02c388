"""The doctor's checks of files that settings are in, or that they name: who may read them, and who cannot."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from pydantic import BaseModel

from postel.doctor.result import Result, Verdict
from postel.rights import EVERYBODY, obstacle, readers, seen_as
from postel.services.units import VARIABLES
from postel.settings import Settings, config_file, read_file
from postel.settings_faults import secret_keys

# Of the settings that are paths, those that are not read as files.
_NO_FILES = {"collector_config_dir", "socket"}
# Those that no service reads: the mail servers do, as users of their own, by what `plugins install` writes.
_OF_PLUGINS = {f"[intake] {key}" for key in ("tls_ca", "tls_client_certificate", "tls_client_key")}


async def settings_file(settings: Settings) -> AsyncIterator[Result]:
    """Nobody reads secrets in the settings, or in the variables of the services, who need not."""
    del settings
    for path, secret in ((config_file(), _has_secret), (Path("/") / VARIABLES, _has_variable)):
        if path is None or not path.exists():
            continue
        who = readers(path) if secret(path) else ""
        if who:
            text = f"{path} may be read by {who}, and holds what only services shall know"
            yield Result(Verdict.FAIL, "settings", text, f"chmod 600 {path}")
        else:
            yield Result(Verdict.OK, "settings", str(path))


def _has_secret(path: Path) -> bool:
    said = read_file(path)
    keys = (key.partition("__") for key in secret_keys(Settings))
    return any(key in said.get(section, {}) for section, _, key in keys)


def _has_variable(path: Path) -> bool:
    """Any may be one: of the Collector's, those with a token have all sorts of names."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except PermissionError:
        return False
    return any("=" in line and not line.lstrip().startswith(("#", ";")) for line in lines)


async def named(settings: Settings) -> AsyncIterator[Result]:
    """Certificates, keys and other files are there, services can read theirs, and keys not everybody."""
    user = _user(settings.data_dir)
    who = f"the user {user.pw_name}, whose the data folder is," if user else "this user"
    for setting, path in _named(settings):
        of_plugins = setting in _OF_PLUGINS
        try:
            with seen_as(None if of_plugins else user):
                closed = obstacle(path)
                private = closed is None and b"PRIVATE KEY" in path.read_bytes()
        except OSError as error:
            yield _fault(f"{setting}: {path}: {error.strerror}", f"put it there, or correct {setting}")
            continue
        group = "GROUP_OF_MAIL_SERVER" if of_plugins else user.pw_gid if user else os.getegid()
        share = f"chgrp {group} {path} && chmod 640 {path}"
        if closed is None and private and readers(path) == EVERYBODY:
            yield _fault(f"{setting}: {EVERYBODY} may read the key in {path}", share)
        elif of_plugins:
            # Its reader is not known; what this user may not see either is not its fault.
            continue
        elif closed == path:
            yield _fault(f"{setting}: {who} cannot read {path}", share)
        elif closed:
            yield _fault(f"{setting}: {who} may not pass through {closed}", f"chmod o+x {closed}")


def _fault(text: str, mend: str) -> Result:
    return Result(Verdict.FAIL, "files", text, mend)


def _user(data_dir: Path) -> pwd.struct_passwd | None:
    """Whom services run as, where root asks for them; None: as whom the doctor runs."""
    if os.geteuid() != 0 or not data_dir.exists():
        return None
    uid = data_dir.stat().st_uid
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid) if uid else None
    return None


def _named(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Each setting that is a file to be read, and that file."""
    for section in type(settings).model_fields:
        keys = getattr(settings, section)
        if isinstance(keys, BaseModel):
            for key, value in keys:
                if isinstance(value, Path) and key not in _NO_FILES:
                    yield f"[{section}] {key}", value
