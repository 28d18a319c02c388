"""The single changes that an installation makes, each with the words for it; what they write is there at once or not.

They run as root in folders of other users: nothing is written through a symbolic link, and what is new belongs to
whom the folder belongs to, with the folder's own rights.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from postel.errors import PostelError

_RIGHTS = 0o777
_READ_WRITE = 0o666


class Step(Protocol):
    """One change."""

    @property
    def path(self) -> Path:
        """What is written or removed."""

    def __str__(self) -> str:
        """What is done, in words."""

    def run(self) -> None:
        """Do it.

        Raises:
            OSError: it cannot be done; then nothing is changed.
        """


@dataclass(frozen=True)
class PutFolder:
    """A folder with these files, instead of the one that is there."""

    path: Path
    files: Mapping[PurePosixPath, bytes]

    def __str__(self) -> str:
        return f"{'replace' if self.path.exists() else 'make'} {self.path} ({len(self.files)} files)"

    def run(self) -> None:
        """See `Step.run`."""
        with _beside(self.path) as making:
            old, new = making / "old", making / "new"
            model = self.path.parent.stat()
            _new_folder(new, self.path.parent)
            for place, content in self.files.items():
                for folder in list(place.parents)[-2::-1]:
                    if not (new / folder).is_dir():
                        _new_folder(new / folder, self.path.parent)
                with (new / place).open("xb") as file:
                    _fill(file, content, model)
            if self.path.exists():
                self.path.rename(old)
            try:
                new.rename(self.path)
            except OSError:
                if old.exists():
                    old.rename(self.path)
                raise


@dataclass(frozen=True)
class PutFile:
    """A file with this content.

    Attributes:
        rights: of a new file; None: as far as its folder lets.
    """

    path: Path
    content: bytes
    rights: int | None = None

    def __str__(self) -> str:
        return f"{'replace' if self.path.exists() else 'write'} {self.path}"

    def run(self) -> None:
        """See `Step.run`."""
        _replace(self.path, self.content, self.rights)


@dataclass(frozen=True)
class AddLine:
    """A line at the end of a list that the user keeps, which stays as it is otherwise."""

    path: Path
    line: str

    def __str__(self) -> str:
        return f"add the line {self.line!r} to {self.path}"

    def run(self) -> None:
        """See `Step.run`."""
        content, line = self.path.read_bytes(), self.line.encode()
        ends = not content or content.endswith(b"\n")
        _replace(self.path, content + (line + b"\n" if ends else b"\n" + line))


@dataclass(frozen=True)
class RemoveLine:
    """The line that `AddLine` added, and nothing else."""

    path: Path
    line: str

    def __str__(self) -> str:
        return f"take the line {self.line!r} out of {self.path}"

    def run(self) -> None:
        """See `Step.run`."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        last = max(number for number, line in enumerate(lines) if line.strip() == self.line.encode())
        kept = b"".join(lines[:last] + lines[last + 1 :])
        # Without a newline at its end before, so again without one.
        _replace(self.path, kept if lines[last].endswith(b"\n") else kept.removesuffix(b"\n"))


@dataclass(frozen=True)
class RemoveFile:
    """A file that was put there and not changed since."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"

    def run(self) -> None:
        """See `Step.run`."""
        self.path.unlink()


@dataclass(frozen=True)
class SetAside:
    """A file of settings that the user changed: kept under a name that no server reads."""

    path: Path

    @property
    def place(self) -> Path:
        """Where it is kept."""
        return self.path.with_name(f"{self.path.name}.saved")

    def __str__(self) -> str:
        return f"keep {self.path}, which was changed, as {self.place}"

    def run(self) -> None:
        """See `Step.run`."""
        self.path.rename(self.place)


@dataclass(frozen=True)
class RemoveFolder:
    """A folder that was put there."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"

    def run(self) -> None:
        """See `Step.run`."""
        shutil.rmtree(self.path)


@dataclass(frozen=True)
class MakeFolder:
    """A folder that a server may have and does not."""

    path: Path

    def __str__(self) -> str:
        return f"make {self.path}"

    def run(self) -> None:
        """See `Step.run`."""
        with _beside(self.path) as making:
            _new_folder(making / "new", self.path.parent)
            (making / "new").rename(self.path)


@dataclass(frozen=True)
class RemoveEmptyFolder:
    """A folder that was made; it stays where there is something in it by now."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path} if it is empty"

    def run(self) -> None:
        """See `Step.run`."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says into what the user can do.

    Raises:
        PostelError: an OSError was raised within.
    """
    try:
        yield
    except PermissionError as error:
        raise PostelError(_forbidden(Path(error.filename or path))) from None
    except OSError as error:
        where = Path(error.filename or path)
        raise PostelError(f"{where} cannot be used: {error.strerror}; nothing of it was changed") from None


@dataclass
class Plan:
    """Steps, and what else the user should know."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Do it all.

        Raises:
            PostelError: a step could not be done; the same command again goes on from there.
        """
        check_writable(self.steps)
        for step in self.steps:
            with explained(step.path):
                step.run()

    def carry_out(self, *, dry_run: bool) -> list[str]:
        """Run it, unless it is only asked what it would do; each step in words.

        Raises:
            PostelError: as of `run`.
        """
        # A step's words are of the time before it.
        words = [f"{'would' if dry_run else 'done:'} {step}" for step in self.steps]
        if not dry_run:
            self.run()
        return words


def content_of(path: Path) -> bytes | None:
    """What a file holds; None where there is none.

    Raises:
        PostelError: it cannot be read.
    """
    with explained(path):
        return path.read_bytes() if path.exists() else None


def sha256(content: bytes) -> str:
    """By which a file is known again."""
    return hashlib.sha256(content).hexdigest()


def check_writable(steps: list[Step]) -> None:
    """Make sure before the first step that no step fails for want of a right.

    Raises:
        PostelError: a folder cannot be written, is not there, or what is to be written is a symbolic link.
    """
    made = {step.path for step in steps if isinstance(step, MakeFolder)}
    for step in steps:
        if step.path.is_symlink():
            raise PostelError(
                f"{step.path} is a symbolic link, which Postel does not write through: put a real one there"
            )
        folder = step.path.parent
        if folder in made:
            continue
        with explained(folder):
            folder.stat()
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise PostelError(
                f"{folder} is on a file system that is mounted read-only: mount it to be written, or install "
                "where its image is built"
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PostelError(_forbidden(folder))


def _forbidden(path: Path) -> str:
    try:
        owner = pwd.getpwuid(path.stat().st_uid).pw_name
    except (OSError, KeyError):
        owner = "its owner"
    who = "root" if owner == "root" else f"root or as {owner}"
    return f"{path} cannot be written or read by this user ({os.geteuid()}): do it as {who}, with sudo"


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder on the same file system, which is this user's alone and goes with what is left in it."""
    making = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield making
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _new_folder(path: Path, like: Path) -> None:
    """In a folder of this user's own, where nobody can put something else in its place."""
    path.mkdir()
    model = like.stat()
    if os.geteuid() == 0:
        os.chown(path, model.st_uid, model.st_gid)
    path.chmod(model.st_mode & _RIGHTS)


def _fill(file: IO[bytes], content: bytes, model: os.stat_result, rights: int | None = None) -> None:
    """Write a new file, and give it the owner and the rights of its model, or the rights that are named."""
    file.write(content)
    if os.geteuid() == 0:
        os.fchown(file.fileno(), model.st_uid, model.st_gid)
    readable = _RIGHTS if stat.S_ISREG(model.st_mode) else _READ_WRITE
    os.fchmod(file.fileno(), model.st_mode & readable if rights is None else rights)
    file.flush()
    os.fsync(file.fileno())


def _replace(path: Path, content: bytes, rights: int | None = None) -> None:
    """Write a file beside its place and move it there; one that is there keeps its owner and rights."""
    there = path.exists()
    model = (path if there else path.parent).stat()
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _fill(file, content, model, None if there else rights)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
