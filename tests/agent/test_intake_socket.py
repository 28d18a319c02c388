"""The agent's intake at a Unix socket: who may connect, and what is found there when the agent starts."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from otel_receivers.intake import Intake, serving
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.spool import Spool
from postel.errors import AddressInUseError, PostelError
from postel.otlp.signal import Signal
from postel.settings import Intake as IntakeSettings
from postel.settings import Settings
from support.ports import free_port

EVENT = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "one"}}]}]}]}


@asynccontextmanager
async def listening(path: Path, *, mode: str = "0660") -> AsyncIterator[Spool]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        own = IntakeSettings(address=f"127.0.0.1:{free_port()}", socket=path, socket_mode=mode)
        spool = await Spool.open(data, max_bytes=1 << 20, max_age=60)
        intake = Intake(identify(data, setting="node-1"), spool, Privacy("keep"), request_bytes=1 << 20)
        try:
            async with serving(Settings(data_dir=data, intake=own), intake):
                yield spool
        finally:
            await spool.close()


async def post(path: Path) -> int:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as http:
        return (await http.post("http://localhost/v1/logs", json=EVENT)).status_code


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def test_it_takes_events_and_goes_with_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "intake.sock"
    async with listening(path) as spool:
        assert stat.filemode(path.stat().st_mode) == "srw-rw----"
        assert await post(path) == 200
        assert await spool.peek(Signal.LOGS, 1 << 20)
        assert names(tmp_path) == ["intake.sock"]
    assert not path.exists()
    async with listening(path, mode="666"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


async def test_what_a_killed_agent_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "intake.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    async with listening(path):
        assert await post(path) == 200


async def test_another_program_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "intake.sock"
    async with listening(path):
        with pytest.raises(AddressInUseError, match=r"intake\.sock is in use by another program: .* \[intake\] socket"):
            async with listening(path):
                pass
        assert await post(path) == 200
        # One that replaces it all the same is not taken away from whoever has it now.
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


async def test_one_so_busy_that_nobody_gets_through_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(8)]
        for each in waiting:
            each.setblocking(False)  # noqa: FBT003 - a positional-only argument
        assert errno.EAGAIN in [each.connect_ex(str(path)) for each in waiting]
        with pytest.raises(AddressInUseError):
            async with listening(path):
                pass
        for each in waiting:
            each.close()


@pytest.mark.parametrize("what", ["file", "link", "no folder"])
async def test_what_is_no_socket_stays_and_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "intake.sock"
    if what == "file":
        path.write_text("precious")
    elif what == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path = tmp_path / "nowhere" / "intake.sock"
        (tmp_path / "nowhere").write_text("")
    with pytest.raises(PostelError, match=rf"cannot listen on {path}: .* \[intake\] socket"):
        async with listening(path):
            pass
    assert what != "file" or path.read_text() == "precious"
    assert what != "link" or path.is_symlink()
    assert not [name for name in names(tmp_path) if name.startswith(".new-")]


async def test_a_folder_that_gives_its_group_gives_it_to_the_socket(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    group = next((each for each in os.getgroups() if each != os.getegid()), 65534 if os.geteuid() == 0 else None)
    if group is None:
        pytest.skip("this user is in one group only")
    os.chown(folder, -1, group)
    folder.chmod(0o2750)
    async with listening(folder / "intake.sock"):
        assert (folder / "intake.sock").stat().st_gid == group
