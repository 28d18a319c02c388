"""The files of `postel install`: a systemd unit for each part, the user that they run as, and a sample of the settings.

The units are the files in ``units/``, in which ``@PYTHON@`` is the Python that Postel is installed in, and a line such
as ``@sandbox.conf@`` the file of that name: what several units have in common stands once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from postel import settings_reference
from postel.errors import PostelError

PARTS = {
    "up": "postel.service",
    "agent": "postel-agent.service",
    "collector": "postel-collector.service",
    "gateway": "postel-gateway.service",
    "kafka-member": "postel-kafka-member.service",
    "sink": "postel-sink.service",
    "serve": "postel-serve.service",
}
"""What can be run as a service -> its unit. ``up`` is those of `IN_UP` at once."""
IN_UP = ("agent", "collector", "sink", "serve")

SYSTEMD = PurePosixPath("etc/systemd/system")
SETTINGS = PurePosixPath("etc/postel/postel.toml")
VARIABLES = PurePosixPath("etc/postel/environment")
DATA = "/var/lib/postel"
_USER = PurePosixPath("etc/sysusers.d/postel.conf")
_INCLUDE = re.compile(r"^@([\w-]+\.conf)@$", re.MULTILINE)
_VARIABLES = b"""\
# Variables that Postel's services shall have, NAME=value in a line each (systemd.exec(5), EnvironmentFile=): what is no
# setting, such as POSTEL_COLLECTOR, or the token of a vendor's. They win over postel.toml.
"""
# Where ProtectHome= and PrivateTmp= let nobody look.
_UNSEEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - none of them is written to
# A name with anything else would have to be quoted in three ways (systemd.syntax(7), systemd.service(5)).
_PLAIN = re.compile(r"/[\w./+-]+")


@dataclass(frozen=True)
class Wanted:
    """A file as it shall be.

    Attributes:
        place: below the root folder.
        rights: of a new file; None: as far as its folder lets.
        is_settings: the user's to change: never replaced once it is there.
    """

    place: PurePosixPath
    content: bytes
    rights: int | None = None
    is_settings: bool = False


def wanted(parts: Iterable[str], python: Path) -> list[Wanted]:
    """The files for these parts.

    Args:
        parts: of `PARTS`.
        python: of the environment that Postel is installed in.

    Raises:
        PostelError: the services could not run what is there.
    """
    _check(python)
    return [
        Wanted(_USER, _text("postel.conf").encode()),
        Wanted(SETTINGS, settings_reference.sample(data_dir=DATA).encode(), rights=0o600, is_settings=True),
        Wanted(VARIABLES, _VARIABLES, rights=0o600, is_settings=True),
        *(Wanted(SYSTEMD / PARTS[part], _unit(PARTS[part], python)) for part in parts),
    ]


def _unit(name: str, python: Path) -> bytes:
    text = _INCLUDE.sub(lambda found: _text(found[1]).rstrip(), _text(name))
    return text.replace("@PYTHON@", str(python)).encode()


def _text(name: str) -> str:
    return (files("postel.services") / "units" / name).read_text("utf-8")


def _check(python: Path) -> None:
    hidden = next((folder for folder in _UNSEEN if python.is_relative_to(folder)), None)
    if hidden:
        raise PostelError(
            f"Postel is installed in {python.parent.parent}, and its services are not let to see {hidden}: install it "
            "into a folder of its own, such as /opt/postel, and run the `postel` of that one"
        )
    if not _PLAIN.fullmatch(str(python)):
        raise PostelError(f"{python} has characters that a unit does not take as they are: install Postel elsewhere")
