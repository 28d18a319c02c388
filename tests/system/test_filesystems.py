from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from otel_receivers.system.filesystems import Prober, Space, space_of
from otel_receivers.system.parse import Mount

SPACE = Space(1, 2, 3)


def mount(mountpoint: str, identity: str = "") -> Mount:
    return Mount(identity or mountpoint, "/dev/x", mountpoint, "ext4", read_only=False)


class Server:
    """Filesystems of which some hang until they are let go, as a statvfs does on a server that is away."""

    def __init__(self, *hanging: str) -> None:
        self.hanging = set(hanging)
        self.asked: list[str] = []
        self.back = threading.Event()

    def ask(self, mountpoint: str) -> Space | None:
        self.asked.append(mountpoint)
        if mountpoint in self.hanging:
            self.back.wait(30)
        return SPACE


def test_a_hanging_filesystem_holds_up_no_other_and_is_not_asked_again_until_it_answers() -> None:
    server = Server("/nfs")
    prober = Prober(server.ask, patience=1)
    groups = [[mount("/")], [mount("/nfs")], [mount("/var")]]
    threads = set(threading.enumerate())

    began = time.monotonic()
    found, hanging = prober.probe(groups)
    assert time.monotonic() - began < 5
    assert [f.mount.mountpoint for f in found] == ["/", "/var"]
    assert hanging == ["/nfs"]
    for _ in range(5):
        found, hanging = prober.probe(groups)
        assert len(found) == 2
        assert hanging == ["/nfs"]
    assert server.asked.count("/nfs") == 1
    assert len(set(threading.enumerate()) - threads) == 2  # the one that hangs, and its successor

    server.back.set()
    deadline = time.monotonic() + 5
    while hanging:
        assert time.monotonic() < deadline
        found, hanging = prober.probe(groups)
    assert [f.mount.mountpoint for f in found] == ["/", "/nfs", "/var"]
    assert found[1].space == SPACE  # its own answer, not a late one of the hanging call
    prober.close()


def test_many_hanging_filesystems_take_no_longer_than_the_patience_for_all() -> None:
    names = [f"/nfs{number}" for number in range(50)]
    server = Server(*names)
    prober = Prober(server.ask, patience=0.5, patience_for_all=1.2)
    began = time.monotonic()
    found, hanging = prober.probe([[mount("/")], *([mount(name)] for name in names)])
    assert time.monotonic() - began < 5
    assert [f.mount.mountpoint for f in found] == ["/"]
    assert 1 <= len(hanging) <= 4
    server.back.set()
    prober.close()


def test_the_next_mount_is_taken_where_one_cannot_be_asked(tmp_path: Path) -> None:
    file = tmp_path / "hostname"
    file.touch()
    (tmp_path / "spool").mkdir()
    prober = Prober()
    group = [mount(str(path), "8:1") for path in (tmp_path / "gone", file, tmp_path / "spool")]
    found, hanging = prober.probe([group])
    assert [f.mount.mountpoint for f in found] == [str(tmp_path / "spool")]
    assert not hanging
    prober.close()


def test_space_is_that_of_statvfs_and_adds_up(tmp_path: Path) -> None:
    space = space_of(str(tmp_path))
    told = os.statvfs(tmp_path)
    assert space is not None
    assert space.limit == told.f_blocks * told.f_frsize
    assert space.free == pytest.approx(told.f_bavail * told.f_frsize, rel=0.01)
    assert space_of("/proc") is None


def test_without_statvfs_psutil_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = space_of(str(tmp_path))
    assert whole is not None
    answered = whole.used, whole.free
    import psutil  # noqa: PLC0415 - its own statvfs must be taken before it is gone

    usage = psutil.disk_usage(str(tmp_path))
    monkeypatch.setattr(psutil, "disk_usage", lambda _path: usage)
    monkeypatch.delattr(os, "statvfs")
    space = space_of(str(tmp_path))
    assert space is not None
    assert (space.used, space.free) == pytest.approx(answered, rel=0.01)
