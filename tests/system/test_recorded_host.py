from __future__ import annotations

import pytest

from otel_receivers.epochs import Epochs
from otel_receivers.system.filesystems import Space
from postel.signals import Declaration
from support.hosts import FIRST, INTERVAL, NANOS, Points, Recorded, points, value


@pytest.fixture
def second(recorded: Recorded) -> Points:
    """The points of a recorded host's second tick; half of the CPU time since the first was busy."""
    receiver = recorded.receiver()
    recorded.collect(receiver)
    recorded.change("stat", "cpu  250000 1000 90000 4000000 12000", "cpu  250600 1000 90150 4000700 12050")
    return points(recorded.collect(receiver, 1))


def test_every_declared_metric_of_the_host_is_yielded(declaration: Declaration, second: Points) -> None:
    assert {name for name, _ in second} == set(declaration.metrics)


def test_the_typed_columns(second: Points) -> None:
    assert value(second, "postel.host.cpu.utilization") == pytest.approx(50)  # 750 of 1500 ticks
    assert value(second, "postel.host.memory.usage") == 3_000_000 * 1024
    assert value(second, "postel.host.memory.utilization") == pytest.approx(37.5)
    # /var/spool/zone mta is the fullest disk: /run is fuller, but memory.
    assert value(second, "postel.host.disk.usage") == 90_000
    assert value(second, "postel.host.disk.utilization") == pytest.approx(90)
    assert value(second, "postel.host.network.io", direction="receive") == 5_070_000
    assert value(second, "postel.host.network.io", direction="transmit") == 3_080_000
    assert value(second, "postel.host.cpu.load_average") == pytest.approx(1.25)
    assert value(second, "postel.host.process.count") == 7


def test_cpu(second: Points) -> None:
    # Summed over both CPUs of cpu0 and cpu1, in seconds; interrupt is irq and softirq.
    assert value(second, "system.cpu.time", mode="user") == pytest.approx(2500)
    assert value(second, "system.cpu.time", mode="interrupt") == pytest.approx(20)
    shares = {m: value(second, "system.cpu.utilization", mode=m) for m in ("user", "system", "idle", "iowait")}
    assert shares == pytest.approx({"user": 0.4, "system": 0.1, "idle": 0.7 / 1.5, "iowait": 0.05 / 1.5})
    assert sum(p.value for (n, _), p in second.items() if n == "system.cpu.utilization") == pytest.approx(1)


def test_memory_and_paging(second: Points) -> None:
    kib = 1024
    assert value(second, "system.memory.usage", state="buffers") == 200_000 * kib
    assert value(second, "system.memory.usage", state="cached") == 3_350_000 * kib
    assert value(second, "system.memory.utilization", state="free") == pytest.approx(0.125)
    assert value(second, "system.memory.linux.available") == 5_000_000 * kib
    assert value(second, "system.memory.linux.shared") == 120_000 * kib
    assert value(second, "system.memory.linux.slab.usage", state="unreclaimable") == 150_000 * kib
    assert value(second, "system.memory.linux.hugepages.usage", state="used") == 60
    assert value(second, "system.memory.linux.hugepages.page_size") == 2048 * kib
    assert value(second, "system.paging.usage", state="used") == 500_000 * kib
    assert value(second, "system.paging.utilization", state="used") == pytest.approx(0.25)
    assert value(second, "system.paging.faults", type="major") == 2500
    assert value(second, "system.paging.faults", type="minor") == 697_500
    assert value(second, "system.paging.operations", direction="out") == 3400


def test_disks_without_partitions_loops_and_empty_drives(second: Points) -> None:
    devices = {dict(items)["system.device"] for name, items in second if name.startswith("system.disk.")}
    assert devices == {"sda", "nvme0n1", "dm-0"}
    assert value(second, "system.disk.io", device="sda", direction="read") == 80_000 * 512
    assert value(second, "system.disk.operations", device="sda", direction="write") == 2000
    assert value(second, "system.disk.operation_time", device="sda", direction="read") == pytest.approx(5)
    assert value(second, "system.disk.io_time", device="sda") == pytest.approx(7)
    assert value(second, "system.disk.merged", device="sda", direction="write") == 200
    assert value(second, "system.disk.limit", device="nvme0n1") == 1_000_000 * 512


def test_filesystems_once_each_under_their_best_mount_point(second: Points) -> None:
    found = {
        (
            a["system.filesystem.mountpoint"],
            a["system.device"],
            a["system.filesystem.type"],
            a["system.filesystem.mode"],
        )
        for name, items in second
        if name == "system.filesystem.limit" and (a := dict(items))
    }
    assert found == {
        ("/", "/dev/mapper/vg-root", "ext4", "rw"),  # not its bind mount /var/www, nor the overlay on it
        ("/var/spool/zone mta", "/dev/nvme0n1p1", "xfs", "rw"),
        ("/boot", "/dev/sda1", "ext2", "ro"),
        ("/home", "/dev/sda2", "btrfs", "rw"),  # and not again as /srv/mail
        ("/mnt/archive", "files.example.com:/archive", "nfs4", "rw"),
        ("/run", "tmpfs", "tmpfs", "rw"),
        ("/opt/app", "tmpfs", "tmpfs", "rw"),  # the upper of two on one mount point
    }
    root = {
        state: value(second, "system.filesystem.usage", mountpoint="/", state=state)
        for state in ("used", "free", "reserved")
    }
    assert root == {"used": 60_000, "free": 30_000, "reserved": 10_000}
    assert value(second, "system.filesystem.limit", mountpoint="/") == sum(root.values())
    assert value(second, "system.filesystem.utilization", mountpoint="/", state="used") == pytest.approx(0.6)


def test_network(second: Points) -> None:
    assert value(second, "system.network.io", name="eth0", direction="transmit") == 3_000_000
    assert value(second, "system.network.packet.count", device="eth0", direction="receive") == 4000
    assert value(second, "system.network.packet.dropped", name="eth0", direction="receive") == 2
    assert value(second, "system.network.errors", name="eth0", direction="transmit") == 3
    counts = {items: p.value for (name, items), p in second.items() if name == "system.network.connection.count"}
    assert {tuple(v for _, v in items): n for items, n in counts.items()} == {
        ("listen", "tcp"): 2,
        ("established", "tcp"): 1,
        ("time_wait", "tcp"): 1,
        ("syn_received", "tcp"): 1,
        ("udp",): 1,
    }


def test_processes(second: Points) -> None:
    # The name "node (zone-mta) R" does not fool the state; D and I sleep.
    states = {dict(i)["process.state"]: p.value for (n, i), p in second.items() if n == "system.process.count"}
    assert states == {"running": 1, "sleeping": 4, "stopped": 1, "defunct": 1}
    assert value(second, "system.process.created") == 876_543
    assert value(second, "system.process.limit") == 62_000
    assert value(second, "system.uptime") == pytest.approx(123_456.78)


def test_all_points_carry_the_scheduled_time_and_sums_a_start(second: Points) -> None:
    assert {p.time_unix_nano for p in second.values()} == {(FIRST + INTERVAL) * NANOS}
    # Met at the first tick: counters start there. What is no counter began with the host.
    assert second["system.uptime", ()].start_time_unix_nano == 0
    assert second["system.process.created", ()].start_time_unix_nano == FIRST * NANOS
    assert second["system.memory.limit", ()].start_time_unix_nano == (FIRST - 100_000) * NANOS


def test_no_busy_disk_and_no_full_disk_without_disks(recorded: Recorded) -> None:
    recorded.spaces.clear()
    found = points(recorded.collect(recorded.receiver()))
    assert not [key for key in found if key[0].startswith(("postel.host.disk", "system.filesystem"))]
    assert value(found, "postel.host.process.count") == 7


def test_the_root_of_a_container_counts(recorded: Recorded) -> None:
    (recorded.proc / "self/mountinfo").write_text(
        "100 90 0:100 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/u\n"
        "101 100 253:0 /c/hostname /etc/hostname rw - ext4 /dev/vda rw\n"
        "102 100 253:0 /volumes/spool /spool rw - ext4 /dev/vda rw\n"
    )
    recorded.spaces.clear()
    recorded.spaces.update({"/": Space(70, 30, 0), "/spool": Space(1, 9, 0)})  # hostname, a file, has no answer
    found = points(recorded.collect(recorded.receiver()))
    assert value(found, "postel.host.disk.utilization") == pytest.approx(70)
    assert value(found, "system.filesystem.limit", mountpoint="/spool") == 10


def test_the_root_of_a_chroot_counts_though_nothing_is_mounted_there(recorded: Recorded) -> None:
    (recorded.proc / "self/mountinfo").write_text("100 90 0:5 / /proc rw - proc proc rw\n")
    recorded.spaces.clear()
    recorded.spaces.update({"/": Space(70, 30, 0)})
    found = points(recorded.collect(recorded.receiver()))
    assert value(found, "postel.host.disk.utilization") == pytest.approx(70)
    assert value(found, "system.filesystem.limit", mountpoint="/") == 100


def test_a_cut_or_garbled_proc_costs_its_points_only(recorded: Recorded) -> None:
    for path in ("vmstat", "net/tcp", "net/tcp6", "self/mountinfo"):
        text = (recorded.proc / path).read_bytes()
        (recorded.proc / path).write_bytes(text[: len(text) // 2] + b"\xff\x00 garbage")
    (recorded.proc / "uptime").write_text("soon\n")
    batch = recorded.collect(recorded.receiver())
    found = points(batch)
    assert value(found, "postel.host.process.count") == 7
    assert ("system.uptime", ()) not in found
    assert [problem.error_type for problem in batch.problems] == ["ValueError"]


def test_two_ticks_of_two_agents_agree_on_the_start(recorded: Recorded) -> None:
    epochs = Epochs()
    first = points(recorded.collect(recorded.receiver(epochs), 0))
    second = points(recorded.collect(recorded.receiver(Epochs(epochs.changes("system"))), 1))
    key = ("system.process.created", ())
    assert first[key].start_time_unix_nano == second[key].start_time_unix_nano == FIRST * NANOS
