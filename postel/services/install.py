"""What is to be done to have Postel's services on a host, or to have them no more, in steps that can be shown before.

What was written is remembered in ``etc/postel/installed.json``, so that a later Postel replaces what is its own and
unchanged, keeps what the user changed, and removes exactly what it made.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Self

from postel import steps
from postel.errors import PostelError
from postel.rights import readers
from postel.services.units import IN_UP, PARTS, SYSTEMD, Wanted, wanted
from postel.steps import MakeFolder, PutFile, RemoveEmptyFolder, RemoveFile, content_of, sha256

RECORD = PurePosixPath("etc/postel/installed.json")


@dataclass(frozen=True)
class Record:
    """What an installation left behind, below its root folder.

    Attributes:
        parts: of `postel.services.units.PARTS`.
        files: place of each file that was written -> digest of what was written.
        folders: those that were made, the outer ones first.
    """

    parts: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, root: Path) -> Self | None:
        """That of a root folder; None where nothing was installed.

        Raises:
            PostelError: it cannot be read, or is none.
        """
        return cls.read(root / RECORD)

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """As it is in a file; None where there is none.

        Raises:
            PostelError: it cannot be read, or is none.
        """
        content = content_of(file)
        if content is None:
            return None
        try:
            stored = json.loads(content)
            return cls(tuple(stored["parts"]), dict(stored["files"]), tuple(stored["folders"]))
        except (ValueError, TypeError, KeyError):
            raise PostelError(f"{file} is damaged: remove it and Postel's units by hand, and install anew") from None

    def text(self) -> bytes:
        """As it is stored."""
        stored = {"parts": self.parts, "files": self.files, "folders": self.folders}
        return json.dumps(stored, indent=2).encode() + b"\n"


@dataclass
class Plan(steps.Plan):
    """As that of all installations.

    Attributes:
        parts: that are installed when it is done.
    """

    parts: list[str] = field(default_factory=list)


def plan_install(root: Path, parts: Iterable[str], python: Path) -> Plan:
    """How these parts become services beside those that are already; no step where all is there.

    Args:
        root: the folder that is / to the host.
        parts: of `postel.services.units.PARTS`; none: those that are there, else ``up``.
        python: of the environment that Postel is installed in.

    Raises:
        PostelError: ``up`` is to stand beside one of the parts that it runs itself, or a gateway beside another
            Collector that listens where it does, or services could not run.
    """
    record = Record.of(root) or Record()
    chosen = {*record.parts, *parts} or {"up"}
    plan = Plan(parts=[part for part in PARTS if part in chosen])
    if "up" in chosen and (inside := [part for part in IN_UP if part in chosen]):
        others = ", ".join(inside)
        raise PostelError(f"`up` runs {others} as well: have the one or the others, after `postel uninstall`")
    if "gateway" in chosen and (other := chosen & {"up", "collector"}):
        raise PostelError(
            f"`{other.pop()}` has a Collector where the gateway would listen: have the one or the other, after "
            "`postel uninstall`; an agent of this host can send to the gateway as all others do"
        )
    files = wanted(plan.parts, python)
    folders = _missing(root, [*(file.place for file in files), RECORD])
    written = _plan_leftovers(root, record, {str(file.place) for file in files}, plan)
    leftovers = len(plan.steps)
    for file in files:
        digest = _plan_file(root, file, record.files.get(str(file.place)), plan)
        if digest:
            written[str(file.place)] = digest
    kept = Record(tuple(plan.parts), written, (*record.folders, *map(str, folders)))
    if content_of(root / RECORD) != kept.text():
        # After what it names no more, before what it names: a command that breaks off is gone on with, or undone.
        plan.steps.insert(leftovers, PutFile(root / RECORD, kept.text()))
    plan.steps[:0] = [MakeFolder(root / folder) for folder in folders]
    return plan


def plan_uninstall(root: Path) -> Plan:
    """How what was installed goes again; no step where nothing was.

    Raises:
        PostelError: a service of it is started at boot, which systemd has to forget first.
    """
    record = Record.of(root)
    plan = Plan()
    if record is None:
        return plan
    units = {PARTS[part] for part in record.parts if part in PARTS} | {Path(place).name for place in record.files}
    if enabled := sorted(unit for unit in units if _is_enabled(root, unit)):
        raise PostelError(f"systemd starts what is to go: systemctl disable --now {' '.join(enabled)}")
    for place, digest in record.files.items():
        content = content_of(root / place)
        if content is not None and sha256(content) == digest:
            plan.steps.append(RemoveFile(root / place))
        elif content is not None:
            plan.notes.append(f"{root / place} was changed and stays as it is")
    plan.steps.append(RemoveFile(root / RECORD))
    plan.steps += [RemoveEmptyFolder(root / folder) for folder in reversed(record.folders)]
    return plan


def _plan_leftovers(root: Path, record: Record, places: Container[str], plan: Plan) -> dict[str, str]:
    """Plan what an earlier Postel wrote and this one has no more.

    Returns:
        What of it stays, as in a record.
    """
    kept = {}
    for place, digest in record.files.items():
        path = root / place
        if place in places or (content := content_of(path)) is None:
            continue
        if sha256(content) != digest:
            plan.notes.append(f"{path} was changed and stays as it is; this Postel has none")
            kept[place] = digest
        elif _is_enabled(root, path.name):
            disable = f"systemctl disable --now {path.name}, then `postel install` again"
            plan.notes.append(f"{path} is an earlier Postel's, and systemd starts it: {disable}")
            kept[place] = digest
        else:
            plan.steps.append(RemoveFile(path))
    return kept


def _is_enabled(root: Path, unit: str) -> bool:
    """Whether there is a link of `systemctl enable`, which would lead nowhere; in an image it does already."""
    return any((folder / unit).is_symlink() for folder in (root / SYSTEMD).glob("*.wants"))


def _plan_file(root: Path, file: Wanted, before: str | None, plan: Plan) -> str | None:
    """Plan one file, of which what Postel wrote before had the digest ``before``.

    Returns:
        That digest afterwards; None where the file is the user's own.
    """
    path = root / file.place
    there, digest = content_of(path), sha256(file.content)
    if there is None:
        plan.steps.append(PutFile(path, file.content, file.rights))
        return digest
    if file.rights is not None and (who := readers(path, root)):
        plan.notes.append(f"{path} may be read by {who}: chmod {file.rights:o} {path}")
    if before is None:
        plan.notes.append(f"{path} was there before and stays as it is")
        return None
    if there == file.content:
        return digest
    if sha256(there) != before:
        plan.notes.append(f"{path} was changed and stays as it is")
        return before
    if file.is_settings:
        # A newer sample is nothing that a host has to have; `postel describe` shows it.
        return before
    plan.steps.append(PutFile(path, file.content))
    return digest


def _missing(root: Path, places: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The folders that these files need and that are not there, the outer ones first."""
    needed = {folder for place in places for folder in list(place.parents)[:-1]}
    return [folder for folder in sorted(needed) if not (root / folder).is_dir()]
