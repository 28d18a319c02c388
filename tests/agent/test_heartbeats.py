"""Heartbeats of plugins: the agent keeps the last of each process, and the doctor says what they mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_receivers import heartbeats
from otel_receivers.discovery import Finding
from otel_receivers.heartbeats import Heartbeats
from otel_receivers.intake import Intake
from otel_receivers.node import identify
from otel_receivers.points import encode_attributes
from otel_receivers.privacy import Privacy
from otel_receivers.receiver import Target
from otel_receivers.spool import Spool
from postel.doctor import plugins
from postel.doctor.result import Result, Verdict
from postel.otlp.signal import Signal
from postel.settings import Settings
from postel.signals import load_all

NAME = load_all()["agent"].event("plugin_heartbeat").name
NOW = 1_768_471_200.0


def beat(
    kind: str = "main", pid: int = 7, *, port: int = 12080, service: str = "zone-mta", **counts: int
) -> ResourceLogs:
    resource = {
        "service.name": service,
        "service.instance.id": f"node-1:{port}",
        "server.port": port,
        "process.pid": pid,
        "postel.plugin.name": f"postel-{service}",
        "postel.plugin.version": "0.1.0",
    }
    said = {"postel.plugin.process.kind": kind, "postel.plugin.heartbeat.interval": 30}
    said |= {f"postel.plugin.events.{name}": count for name, count in counts.items()}
    record = LogRecord(event_name=NAME, attributes=encode_attributes(said))
    return ResourceLogs(
        resource=Resource(attributes=encode_attributes(resource)), scope_logs=[ScopeLogs(log_records=[record])]
    )


def keep(folder: Path, beats: Sequence[tuple[float, ResourceLogs]]) -> None:
    """As the agent does."""
    kept = Heartbeats(NAME)
    for when, logs in beats:
        kept.note([logs], when)
    with closing(sqlite3.connect(folder / "spool.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (heartbeats.KEY, kept.text()))


def said(folder: Path, *servers: tuple[str, int]) -> list[Result]:
    found = [
        Finding(source, Target("127.0.0.1", port), listening=True, found=True, how="as the test says")
        for source, port in servers
    ]
    return list(plugins.check(Settings(data_dir=folder), found))


ALL = [("main", 1), ("receiver", 2), ("sender", 3), ("sender", 4)]


def test_a_plugin_in_every_process_is_said_with_its_figures(tmp_path: Path) -> None:
    now = time.time()
    first = [(now - 100, beat(kind, pid, emitted=1)) for kind, pid in ALL]
    keep(tmp_path, [*first, *((now - 5, beat(kind, pid, emitted=10, delivered=9, waiting=1)) for kind, pid in ALL)])
    (result,) = said(tmp_path, ("zone_mta", 12080))
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 100))
    assert str(result) == (
        "ok    plugin of zone-mta at node-1:12080: postel-zone-mta 0.1.0 in main (1), receiver (1), sender (2)"
        f" since {since}; events: 40 emitted, 36 delivered, 4 waiting, 0 dropped"
    )


def test_a_process_without_it_is_a_fault(tmp_path: Path) -> None:
    now = time.time()
    # The sender was heard, but not for too long.
    keep(tmp_path, [(now - 101, beat("sender")), (now - 1, beat("main"))])
    (result,) = said(tmp_path, ("zone_mta", 12080))
    assert result.verdict is Verdict.FAIL
    assert result.text.endswith("; not in: receiver, sender")
    assert "enabled = true" in result.mend


@pytest.mark.parametrize(
    ("kinds", "missing"),
    [(["single"], ""), (["master", "worker"], ""), (["master"], "worker"), (["worker", "worker"], "master")],
)
def test_haraka_is_one_process_or_a_cluster(tmp_path: Path, kinds: list[str], missing: str) -> None:
    keep(tmp_path, [(time.time(), beat(kind, pid, service="haraka", port=25)) for pid, kind in enumerate(kinds)])
    (result,) = said(tmp_path, ("haraka", 25))
    assert (result.verdict is Verdict.FAIL) == bool(missing)
    assert not missing or result.text.endswith(f"; not in: {missing}")


@pytest.mark.parametrize("count", ["dropped", "refused", "damaged", "failed"])
def test_what_was_lost_is_a_fault_of_who_lives_and_a_note_of_who_is_gone(tmp_path: Path, count: str) -> None:
    now = time.time()
    gone: dict[str, Any] = {count: 3}
    lives: dict[str, Any] = {count: 2}
    beats = [(now, beat(kind, pid)) for kind, pid in ALL]
    keep(tmp_path, [(now - 3600, beat("sender", 9, **gone)), *beats, (now, beat("sender", 10, **lives))])
    whole, lost, lost_before = said(tmp_path)
    assert whole.verdict is Verdict.OK
    assert (lost.verdict, lost.text[:19]) == (Verdict.FAIL, "2 events were lost:")
    assert lost_before.verdict is Verdict.NOTE
    assert lost_before.text.startswith("in processes that ended, 3 events were lost:")


def test_a_name_from_anywhere_moves_no_cursor(tmp_path: Path) -> None:
    heartbeat = beat()
    for attribute in heartbeat.resource.attributes:
        if attribute.key == "postel.plugin.name":
            attribute.value.string_value = "\x1b[2J\nok    database: all is well"
    keep(tmp_path, [(time.time(), heartbeat)])
    for result in said(tmp_path):
        assert all(line.isprintable() for line in str(result).split("\n      mend: "))


def test_a_server_without_a_plugin_is_named(tmp_path: Path) -> None:
    keep(tmp_path, [(time.time(), beat(kind, pid)) for kind, pid in ALL])
    with_it, without = said(tmp_path, ("zone_mta", 12080), ("zone_mta", 12081), ("rspamd", 11333))
    assert with_it.verdict is Verdict.OK
    assert without.verdict is Verdict.NOTE
    assert without.text.startswith("none was heard of at 127.0.0.1:12081")


def test_one_that_is_silent_is_a_fault_where_its_server_runs(tmp_path: Path) -> None:
    keep(tmp_path, [(time.time() - 600, beat())])
    assert [result.verdict for result in said(tmp_path)] == [Verdict.NOTE]
    (result,) = said(tmp_path, ("zone_mta", 12080))
    assert result.verdict is Verdict.FAIL
    assert "postel-zone-mta 0.1.0 was heard 600 s ago" in result.text


def test_without_a_spool_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert said(tmp_path) == []
    (tmp_path / "spool.db").write_bytes(b"no database" * 100)
    assert [result.verdict for result in said(tmp_path, ("zone_mta", 12080))] == [Verdict.NOTE]


def test_a_process_with_the_id_of_another_begins_anew() -> None:
    kept = Heartbeats(NAME)
    kept.note([beat(emitted=5)], NOW)
    kept.note([beat(emitted=9)], NOW + 30)
    (one,) = heartbeats.read(kept.text())
    assert (one.first, one.last) == (NOW, NOW + 30)
    kept.note([beat(emitted=1)], NOW + 60)
    (other,) = heartbeats.read(kept.text())
    assert (other.first, other.counts["emitted"]) == (NOW + 60, 1)


def test_it_is_bounded_in_number_in_age_and_in_size() -> None:
    kept = Heartbeats(NAME)
    for pid in range(1000):
        kept.note([beat("k" * 10_000, pid)], NOW + pid)
    found = heartbeats.read(kept.text())
    assert [each.pid for each in found] == list(range(744, 1000))
    assert len(kept.text()) < 256 * 1000
    kept.note([beat("main", 1)], NOW + 90_000)
    assert [each.pid for each in heartbeats.read(kept.text())] == [1]


def test_what_was_kept_goes_on_and_what_cannot_be_read_is_nothing() -> None:
    kept = Heartbeats(NAME)
    kept.note([beat()], NOW)
    again = Heartbeats(NAME, kept.text())
    assert again.text() == kept.text()
    for text in ("", "{", "[3]", '[{"a": 1}]', "7", "null"):
        assert Heartbeats(NAME, text).text() == "[]"
    assert not again.note([ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(event_name="x")])])], NOW)


VALUES = st.text() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.lists(st.text(), max_size=2)


@given(st.dictionaries(st.sampled_from([a.key for a in beat().resource.attributes]), VALUES), VALUES, VALUES)
def test_any_values_are_kept_or_left_out(resource: dict[str, Any], kind: Any, count: Any) -> None:
    logs = beat()
    del logs.resource.attributes[:]
    logs.resource.attributes.extend(encode_attributes(resource))
    record = logs.scope_logs[0].log_records[0]
    del record.attributes[:]
    names = ("postel.plugin.process.kind", "postel.plugin.heartbeat.interval", "postel.plugin.events.dropped")
    record.attributes.extend(encode_attributes(dict(zip(names, (kind, count, count), strict=True))))
    kept = Heartbeats(NAME)
    kept.note([logs], NOW)
    assert len(heartbeats.read(kept.text())) == 1
    assert orjson.loads(kept.text())


async def test_the_intake_keeps_them_over_a_restart_of_the_agent(tmp_path: Path) -> None:
    request = ExportLogsServiceRequest(resource_logs=[beat(emitted=3), beat("sender", 8)])
    spool = await Spool.open(tmp_path, max_bytes=1 << 20, max_age=60)
    try:
        node = identify(tmp_path, setting="node-1")
        intake = Intake(node, spool, Privacy("keep"), request_bytes=1 << 20, heartbeats=Heartbeats(NAME))
        await intake(Signal.LOGS, request)
        kept = (await spool.state())[heartbeats.KEY]
        # They are events like all others, too.
        assert await spool.peek(Signal.LOGS, 1 << 20)
    finally:
        await spool.close()
    assert {(each.kind, each.pid, each.instance) for each in plugins.read(tmp_path)} == {
        ("main", 7, "node-1:12080"),
        ("sender", 8, "node-1:12080"),
    }
    assert Heartbeats(NAME, kept).text() == kept
