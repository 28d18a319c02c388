"""Who this node is: an id that survives restarts, and the OTLP resources of all that is said from here.

The id is, first that exists: the setting ``[node] id``; an id generated earlier and kept in ``data_dir/node.json``; one
derived from what the operating system keeps for this installation; a new one, generated and kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from opentelemetry.sdk.resources import Resource

from otel_receivers.receiver import Target
from postel import __version__
from postel.errors import PostelError
from postel.listening import is_loopback

# machine-id(5) asks applications never to show the machine id itself but a keyed hash of it under their own id.
_APPLICATION = uuid.UUID("5c1bd5a6-7a3c-4e0f-9d0e-2f6a3a9c8b41")
_MACHINE_ID = re.compile(r"^[0-9a-f]{32}$")
# Values of the attribute host.arch in the semantic conventions.
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i686": "x86"}
# Where no boot id exists the boot time stands for it; adjusting the clock moves that by no more than this.
_BOOT_TIME_TOLERANCE = 120
_BOOT_TIME_ID = "boot-time-"


@dataclass(frozen=True)
class Node:
    """This node.

    Attributes:
        id: the resource attribute ``host.id`` of every signal.
        origin: ``setting``, ``machine-id`` or ``generated``.
        host: the host's name.
        boot_id: the kernel's id of this boot, or one made of the boot time.
        boot_time_unix_nano: when the host was booted.
    """

    id: str
    origin: str
    host: str
    boot_id: str
    boot_time_unix_nano: int
    description: Mapping[str, str] = field(default_factory=dict)

    def resource(
        self,
        service: str,
        *,
        target: Target | None = None,
        version: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Resource:
        """The resource of one source's signals.

        Args:
            service: ``service.name``, the declaration's ``service``.
            target: where the source listens; None: the agent and the host themselves.
            version: ``service.version``; for the agent itself Postel's own.
            extra: attributes beside the common ones.
        """
        attributes: dict[str, Any] = {
            "service.name": service,
            "service.instance.id": self.instance(target),
            "host.id": self.id,
            "host.name": self.host,
            **self.description,
        }
        if version or target is None:
            attributes["service.version"] = version or __version__
        return Resource(attributes | dict(extra or {}))

    def instance(self, target: Target | None) -> str:
        """``service.instance.id``: unique among all nodes also where each watches its own loopback."""
        if target is None:
            return self.id
        return f"{self.id}:{target.port}" if is_loopback(target.host) else str(target)


def identify(
    data_dir: Path, *, setting: str | None = None, boot_id_before: str | None = None, keep: bool = True
) -> Node:
    """Find out who this node is.

    Args:
        data_dir: where a generated id is kept; made only when one is generated.
        setting: ``[node] id``.
        boot_id_before: the boot id when the agent last ran; a boot time within the clock's tolerance of it is it.
        keep: an id that must be generated; False: nothing is written, and the next call generates another.

    Raises:
        PostelError: an id must be generated and cannot be kept.
    """
    origin, node_id = ("setting", setting) if setting else _own_id(data_dir, keep=keep)
    return Node(
        id=node_id,
        origin=origin,
        host=platform.node() or node_id,
        boot_id=_boot_id(boot_id_before),
        boot_time_unix_nano=int(psutil.boot_time() * 1e9),
        description=_description(),
    )


def _own_id(data_dir: Path, *, keep: bool) -> tuple[str, str]:
    kept = data_dir / "node.json"
    if (generated := _kept_id(kept)) is not None:
        return "generated", generated
    if machine := _machine_id():
        return "machine-id", _hashed(machine)
    generated = str(uuid.uuid4())
    if keep:
        _keep(kept, generated)
    return "generated", generated


def _keep(kept: Path, generated: str) -> None:
    try:
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = kept.with_suffix(".json.partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump({"id": generated}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(kept)
    except OSError as error:
        raise PostelError(
            f"{kept}: the node's id cannot be kept: {error.strerror}; set [node] id or data_dir"
        ) from None


def _kept_id(kept: Path) -> str | None:
    try:
        value = json.loads(kept.read_text("utf-8"))["id"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PostelError(f"{kept}: holds no id ({error}); mend it, remove it, or set [node] id") from None
    if not isinstance(value, str) or not value:
        raise PostelError(f"{kept}: the id is {value!r}, not a text; mend it, remove it, or set [node] id")
    return value


def _hashed(machine_id: str) -> str:
    """As sd_id128_get_machine_app_specific(3): HMAC-SHA256 keyed with the machine id, shown as a UUID of version 4."""
    digest = hmac.new(machine_id.strip().lower().encode(), _APPLICATION.bytes, hashlib.sha256).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _machine_id() -> str | None:
    """What the operating system keeps for this installation; None where it keeps nothing that can be read."""
    match sys.platform:
        case "darwin":
            found = re.search(
                r'"IOPlatformUUID" = "([^"]+)"', _output("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
            )
            return found[1] if found else None
        case "win32":
            found = re.search(
                r"MachineGuid\s+REG_SZ\s+(\S+)",
                _output("reg", "query", r"HKLM\SOFTWARE\Microsoft\Cryptography", "/v", "MachineGuid", "/reg:64"),
            )
            return found[1] if found else None
        case "linux":
            places: tuple[str, ...] = ("/etc/machine-id", "/var/lib/dbus/machine-id")
            return next((text for text in map(_first_line, places) if _MACHINE_ID.match(text)), None)
        case _:
            # FreeBSD keeps /etc/hostid; others may have a machine-id from D-Bus.
            places = ("/etc/hostid", "/etc/machine-id", "/var/db/dbus/machine-id", "/var/lib/dbus/machine-id")
            return next((text for text in map(_first_line, places) if text), None)


def _boot_id(before: str | None) -> str:
    if sys.platform == "linux" and (text := _first_line("/proc/sys/kernel/random/boot_id")):
        return text
    if sys.platform == "darwin" and (text := _output("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid").strip()):
        return text
    booted = round(psutil.boot_time())
    if before and (earlier := before.removeprefix(_BOOT_TIME_ID)).isdecimal() and before != earlier:
        return before if abs(int(earlier) - booted) <= _BOOT_TIME_TOLERANCE else f"{_BOOT_TIME_ID}{booted}"
    return f"{_BOOT_TIME_ID}{booted}"


@cache
def _description() -> dict[str, str]:
    """Attributes of the semantic conventions' host and os groups."""
    machine = platform.machine().lower()
    described = {
        "host.arch": _ARCHITECTURES.get(machine, machine),
        "os.type": platform.system().lower(),
        "os.version": platform.release(),
        "os.description": platform.platform(),
    }
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if pretty := release.get("PRETTY_NAME"):
        described["os.description"] = pretty
    return {name: value for name, value in described.items() if value}


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _output(*command: str) -> str:
    try:
        # The commands are the literals above.
        return subprocess.run(command, capture_output=True, check=False, text=True, timeout=10).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
