from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.system import parse
from support.hosts import TESTDATA


def test_a_kill_with_its_control_group() -> None:
    records = (TESTDATA / "linux-6.1/kmsg").read_bytes().splitlines(keepends=True)
    assert list(parse.oom_kills(records)) == [
        parse.OomKill(20146, "python3", 9151.183256, "/mail.slice/zone-mta.service", "memcg")
    ]


@pytest.mark.parametrize(
    ("message", "pid", "name"),
    [
        # Linux 4.15, 5.4, 6.1
        ("Killed process 1234 (mysqld) total-vm:100kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB", 1234, "mysqld"),
        ("Out of memory: Killed process 77 (a (b) c) total-vm:1kB, anon-rss:1kB, UID:0 pgtables:1kB", 77, "a (b) c"),
        ("Memory cgroup out of memory: Killed process 9 (caf\\xc3\\xa9) total-vm:1kB", 9, "café"),
        ("Killed process 1234 (node) UID 33, total-vm:100kB", 1234, "node"),
    ],
)
def test_kills_as_kernels_wrote_them(message: str, pid: int, name: str) -> None:
    (kill,) = parse.oom_kills([f"3,418,5000000,-;{message}\n SUBSYSTEM=x\n".encode()])
    assert (kill.pid, kill.since_boot, kill.cgroup) == (pid, 5.0, None)
    assert kill.name == name


def test_what_a_program_writes_into_the_log_is_no_kill() -> None:
    assert not list(parse.oom_kills([b"12,1,1,-;my program: killed process 5 (x)\n", b"garbage", b""]))


def test_mount_points_with_spaces_and_bytes_that_are_no_text() -> None:
    text = b"1 2 8:1 / /a\\040b\\134c rw - ext4 /dev/\xff rw\n1 2 8:2 / /d\\303\\244 rw - ext4 /dev/y ro\n"
    first, second = parse.mounts(text)
    assert (first.mountpoint, first.device) == ("/a b\\c", "/dev/\ufffd")
    assert (second.mountpoint, second.read_only) == ("/dä", True)


@given(st.binary())
def test_no_bytes_make_a_parser_fail(text: bytes) -> None:
    parse.counters(text)
    parse.process_state(text)
    parse.tcp_states(text)
    parse.sockets(text)
    parse.real(parse.mounts(text))
    list(parse.oom_kills(text.splitlines()))


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=15), st.sampled_from("RSDZTtI"))
def test_no_process_name_fools_the_state(name: str, state: str) -> None:
    stat = f"1 ({name}) {state} 1 1 1 0 -1".encode()
    assert parse.process_state(stat) == parse.PROCESS_STATES[state]


def test_counts_of_a_real_table(proc: Path) -> None:
    text = (proc / "net/tcp").read_bytes()
    lines = text.count(b"\n") - 1
    assert sum(parse.tcp_states(text).values()) == lines
