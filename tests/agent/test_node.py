"""A node keeps its id over restarts, and says where it comes from."""

from __future__ import annotations

import json
import re
import stat
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from otel_receivers import node as node_module
from otel_receivers.node import identify
from otel_receivers.receiver import Target
from postel.errors import PostelError


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "_machine_id", lambda: None)


def test_the_setting_wins(tmp_path: Path) -> None:
    node = identify(tmp_path, setting="mx1")
    assert (node.id, node.origin) == ("mx1", "setting")


def test_the_machine_id_itself_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = "0123456789abcdef0123456789abcdef"
    monkeypatch.setattr(node_module, "_machine_id", lambda: machine)
    node = identify(tmp_path)
    assert node.origin == "machine-id"
    assert uuid.UUID(node.id).version == 4
    assert machine not in node.id.replace("-", "")
    assert identify(tmp_path / "elsewhere").id == node.id
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_kept")
def test_a_generated_id_is_kept_and_wins_over_a_machine_id_that_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = identify(tmp_path / "new")
    assert node.origin == "generated"
    assert json.loads((tmp_path / "new/node.json").read_text()) == {"id": node.id}
    monkeypatch.setattr(node_module, "_machine_id", lambda: "0" * 32)
    assert identify(tmp_path / "new").id == node.id


@pytest.mark.usefixtures("nothing_kept")
def test_the_folder_made_for_an_id_is_its_owners_alone(tmp_path: Path) -> None:
    """The database and the spool come to lie in it; each of the programs may be the first to make it."""
    identify(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": ""}', '{"id": 3}', "\x00"])
def test_a_kept_id_that_cannot_be_read_is_named_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(PostelError, match=re.escape(str(tmp_path / "node.json"))):
        identify(tmp_path)
    assert (tmp_path / "node.json").read_text() == text


@pytest.mark.usefixtures("nothing_kept")
def test_an_id_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PostelError, match="cannot be kept"):
        identify(tmp_path / "file")


def test_the_resource_names_host_and_instance(tmp_path: Path) -> None:
    node = identify(tmp_path, setting="mx1")
    own = node.resource("postel-agent").attributes
    assert own["service.instance.id"] == own["host.id"] == "mx1"
    assert {"service.version", "host.name", "host.arch", "os.type", "os.description"} <= set(own)
    remote = node.resource("zone-mta", target=Target("10.0.0.5", 12080)).attributes
    assert remote["service.instance.id"] == "10.0.0.5:12080"
    assert "service.version" not in remote


@pytest.mark.parametrize(
    ("host", "instance"),
    [
        ("127.0.0.1", "mx1:25"),
        ("127.9.9.9", "mx1:25"),
        ("::1", "mx1:25"),
        ("localhost", "mx1:25"),
        ("10.0.0.5", "10.0.0.5:25"),
        ("2001:db8::5", "[2001:db8::5]:25"),
        ("mta.example.org", "mta.example.org:25"),
    ],
)
def test_instances_on_loopback_carry_the_node(tmp_path: Path, host: str, instance: str) -> None:
    assert identify(tmp_path, setting="mx1").instance(Target(host, 25)) == instance


def test_the_boot_is_the_kernels(tmp_path: Path) -> None:
    node = identify(tmp_path, setting="mx1")
    kernel = Path("/proc/sys/kernel/random/boot_id")
    if kernel.exists():
        assert node.boot_id == kernel.read_text().strip()
    assert abs(node.boot_time_unix_nano / 1e9 - psutil.boot_time()) < 5


def test_without_a_boot_id_the_boot_time_within_the_clocks_tolerance_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "freebsd14")
    monkeypatch.setattr(psutil, "boot_time", lambda: 1_795_000_000.4)
    first = identify(tmp_path, setting="n").boot_id
    monkeypatch.setattr(psutil, "boot_time", lambda: 1_795_000_060.0)
    assert identify(tmp_path, setting="n", boot_id_before=first).boot_id == first
    monkeypatch.setattr(psutil, "boot_time", lambda: 1_795_003_000.0)
    assert identify(tmp_path, setting="n", boot_id_before=first).boot_id != first
