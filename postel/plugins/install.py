"""What is to be done to put a plugin into a server, or to take it out, in steps that can be shown before they are done.

What was put there is written into the plugin's folder (:class:`Record`), so that a later Postel replaces what is its
own and unchanged, keeps what the user changed, and removes exactly what it made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Self

from postel.plugins.bundle import Bundle
from postel.plugins.servers import PluginError, Server
from postel.steps import (
    AddLine,
    MakeFolder,
    Plan,
    PutFile,
    PutFolder,
    RemoveEmptyFolder,
    RemoveFile,
    RemoveFolder,
    RemoveLine,
    SetAside,
    content_of,
    explained,
    sha256,
)

_RECORD = PurePosixPath("postel-installed.json")
# What a record may name as a file to be removed: it lies in a folder of the server's user, who is not root.
_CONFIG_NAMES = ("postel.toml", "postel.ini", "default.toml")
_SECTION = re.compile(r"^\[.+\]$", re.MULTILINE)
# A setting that the sample shows with its default: a text in quotes, in a format that has them.
_SHOWN = r"^[#;] ?({})[ \t]*=[ \t]*(\"?).*$"


@dataclass(frozen=True)
class Record:
    """What an installation left behind.

    Attributes:
        version: of the plugin.
        digest: of its files.
        config: the file of settings that was written; '' for none.
        config_sha256: of what was written there.
        line: the line that was added to the server's list of plugins; '' for none.
        made_parent: the folder of plugins was made for it.
    """

    version: str
    digest: str
    config: str = ""
    config_sha256: str = ""
    line: str = ""
    made_parent: bool = False

    @classmethod
    def of(cls, server: Server) -> Self | None:
        """The one in a server's plugin folder; None where Postel installed nothing.

        Raises:
            PluginError: it cannot be read, or is none.
        """
        file = server.code / _RECORD
        try:
            with explained(file):
                return cls.read(file.read_text("utf-8")) if file.exists() else None
        except (ValueError, TypeError):
            raise PluginError(f"{file} is damaged: remove {server.code} by hand, and install anew") from None

    @classmethod
    def read(cls, text: str) -> Self:
        """What :meth:`text` gave, as far as it is: whoever runs the server can write it.

        Raises:
            ValueError: it is no JSON.
            TypeError: it is no such record.
        """
        record = cls(**json.loads(text))
        for name, value in asdict(record).items():
            if type(value) is not (bool if name == "made_parent" else str):
                raise TypeError(name)
        return record

    def text(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"


def plan_install(server: Server, bundle: Bundle, given: Mapping[str, str] = MappingProxyType({})) -> Plan:
    """How this plugin gets into this server; no step where it is there already.

    Args:
        server: where to.
        bundle: the plugin.
        given: settings of the plugin's that are not its defaults, such as ``endpoint``.

    The server's settings name the plugin last and forget it first, so that what a step that fails has left is without
    effect.

    Raises:
        PluginError: the same plugin is there by other means, or something else is in its place.
    """
    record = Record.of(server)
    _check_place(server, record)
    plan = Plan()
    makes_parent = not server.code.parent.is_dir()
    config, digest = _plan_config(server, record, settings_text(server, bundle, given), plan)
    adds_line = server.listed is not None and not server.listed.names()
    wanted = Record(
        version=bundle.version,
        digest=bundle.digest(),
        config=config,
        config_sha256=digest,
        line=server.listed.line if server.listed and (adds_line or (record and record.line)) else "",
        made_parent=makes_parent or bool(record and record.made_parent),
    )
    files = {**bundle.read(), _RECORD: wanted.text()}
    if not _is_there(server.code, files):
        # Before the settings that name it.
        plan.steps.insert(0, PutFolder(server.code, files))
    if makes_parent:
        plan.steps.insert(0, MakeFolder(server.code.parent))
    if adds_line and server.listed:
        plan.steps.append(AddLine(server.listed.path, server.listed.line))
    if server.by_hand:
        plan.notes.append(server.by_hand)
    return plan


def plan_uninstall(server: Server) -> Plan:
    """How what was installed goes again; no step where nothing was.

    Raises:
        PluginError: the plugin is there and was not put there by Postel.
    """
    record = Record.of(server)
    plan = Plan()
    if record is None:
        if server.code.exists() or server.elsewhere:
            raise PluginError(f"{server.elsewhere or server.code} was not put there by `postel plugins install`")
        return plan
    if server.listed and server.listed.names():
        # Also where the user wrote it: Haraka does not start with a plugin in its list that is not there.
        plan.steps.append(RemoveLine(server.listed.path, record.line or server.listed.line))
    _retire(server, Path(record.config) if record.config else None, record, plan)
    plan.steps.append(RemoveFolder(server.code))
    if record.made_parent:
        plan.steps.append(RemoveEmptyFolder(server.code.parent))
    return plan


def settings_text(server: Server, bundle: Bundle, given: Mapping[str, str]) -> bytes:
    """The sample of the plugin's settings, for this server."""
    text = bundle.sample().read_text("utf-8")
    if server.header:
        text = _SECTION.sub(lambda _: server.header, text, count=1)
    for name, value in given.items():
        text = _with(text, name, value)
    return text.encode()


def _with(sample: str, name: str, value: str) -> str:
    """The sample with a setting in place of the line that shows its default."""

    def line(shown: re.Match[str]) -> str:
        # TOML's quoted texts are written as JSON's.
        return f"{shown[1]} = {json.dumps(value) if shown[2] else value}"

    return re.sub(_SHOWN.format(name), line, sample, count=1, flags=re.MULTILINE)


def _check_place(server: Server, record: Record | None) -> None:
    if server.elsewhere:
        raise PluginError(
            f"{server.elsewhere} is the same plugin, installed by npm, and {server.title} would load both: "
            f"`npm uninstall {server.elsewhere.name}` in {server.folder} and take its settings out first"
        )
    if server.code.is_symlink() or (server.code.exists() and record is None):
        raise PluginError(f"{server.code} was not put there by `postel plugins install`: move it away first")


def _plan_config(server: Server, record: Record | None, wanted: bytes, plan: Plan) -> tuple[str, str]:
    """Plan the settings' file.

    Returns:
        Its path and the digest of what Postel wrote there; '' and '' where it is the user's own.
    """
    known = Path(record.config) if record and record.config else None
    if known and known != server.config:
        _retire(server, known, record, plan)
    if server.config is None:
        return "", ""
    there = content_of(server.config)
    ours = (str(server.config), sha256(wanted))
    if there is None:
        plan.steps.append(PutFile(server.config, wanted))
        return ours
    if known == server.config and record:
        if there == wanted:
            return ours
        if sha256(there) == record.config_sha256:
            plan.steps.append(PutFile(server.config, wanted))
            return ours
        plan.notes.append(f"{server.config} was changed and stays as it is")
        return record.config, record.config_sha256
    plan.notes.append(f"{server.config} was there before and stays as it is")
    if server.header and str(server.code).encode() not in there:
        plan.notes.append(f"it does not name the plugin: add {server.header} with enabled = true to it")
    return "", ""


def _retire(server: Server, config: Path | None, record: Record | None, plan: Plan) -> None:
    """Remove the settings that were written, or keep them aside where the user changed them."""
    if config is None or record is None or not config.is_file():
        return
    # What the server's user could do without Postel, a forged record may make of it.
    its_own = config == server.config or config.stat().st_uid == server.code.stat().st_uid
    if config.name not in _CONFIG_NAMES or config.is_symlink() or not its_own:
        raise PluginError(
            f"{config} is no file of settings that Postel writes; its record was changed: remove it by hand"
        )
    with explained(config):
        changed = sha256(config.read_bytes()) != record.config_sha256
    plan.steps.append(SetAside(config) if changed else RemoveFile(config))


def _is_there(folder: Path, files: Mapping[PurePosixPath, bytes]) -> bool:
    with explained(folder):
        there = {PurePosixPath(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        return there.keys() == files.keys() and all(there[place].read_bytes() == files[place] for place in files)
