"""The agent as a program: every tick of every source reaches the receiver once, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from otel_receivers import node, printing
from otel_receivers.agent import run_once
from otel_receivers.registry import places
from otel_receivers.spool_file import SpoolFile
from postel.otlp.signal import Signal
from postel.settings import Discovery, Settings
from postel.signals import load_all
from support.mounts import mounting
from support.otlp_receiver import Receiver, running_receiver
from support.ports import free_port
from support.raw_http_server import OK, Answer, server, sized
from support.running_agent import Point, agent, environment, points, stop, until
from support.zone_mta_pages import AFTER_TRAFFIC

SECOND = 1_000_000_000
# Feeds a column of metrics_system with one point a tick.
HOST_COLUMN = load_all().columns_of("metrics_system")[0].metric


def seconds(found: list[Point]) -> list[int]:
    return [point.time_unix_nano // SECOND for *_, point in found]


def ups(receiver: Receiver, source: str) -> dict[int, int]:
    """second -> postel.receiver.up"""
    return {
        point.time_unix_nano // SECOND: point.as_int
        for _, attributes, point in points(receiver, "postel.receiver.up")
        if attributes["postel.receiver.name"] == source
    }


def assert_each_second_once(found: list[int]) -> None:
    assert found
    assert [second for second, count in Counter(found).items() if count > 1] == []
    assert sorted(found) == list(range(min(found), max(found) + 1))


class Page:
    """A Zone-MTA whose page the test changes."""

    def __init__(self) -> None:
        self.answer: bytes | Answer = sized(AFTER_TRAFFIC)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self.answer, bytes):
            writer.write(self.answer)
            await writer.drain()
        else:
            await self.answer(reader, writer)


async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


BAD_PAGES: list[tuple[str, bytes | Answer]] = [
    ("500", sized(b"oh\n", b"HTTP/1.1 500 Internal Server Error\r\n")),
    ("html", sized(b"<html>Bad gateway</html>\n")),
    ("incomplete", sized(AFTER_TRAFFIC[:3000], length=len(AFTER_TRAFFIC))),
    ("unexpected_page", OK + b"\r\n" + AFTER_TRAFFIC[: AFTER_TRAFFIC.index(b"# HELP zonemta_queue")]),
    ("timeout", hang),
]


@pytest.mark.slow
async def test_a_zone_mta_that_misbehaves_is_down_and_counted_and_the_host_goes_on(tmp_path: Path) -> None:
    page = Page()
    async with running_receiver() as receiver, server(page) as port:
        variables = environment(tmp_path, receiver.http, DISCOVERY__ZONE_MTA_PORT=port)
        async with agent(variables) as process:
            await until(lambda: 1 in ups(receiver, "zone_mta").values())
            for kind, answer in BAD_PAGES:
                before = len(ups(receiver, "zone_mta"))
                page.answer = answer
                await until(lambda before=before: 0 in list(ups(receiver, "zone_mta").values())[before:])  # type: ignore[misc]
                page.answer = sized(AFTER_TRAFFIC)
                latest = len(ups(receiver, "zone_mta"))
                await until(lambda latest=latest: 1 in list(ups(receiver, "zone_mta").values())[latest:])  # type: ignore[misc]
                errors = {
                    a["error.type"]
                    for _, a, _ in points(receiver, "postel.scrape.errors")
                    if a["postel.receiver.name"] == "zone_mta"
                }
                assert kind in errors
            said = await stop(process)
        assert process.returncode == 0
    # The host and the scrapes that hung or failed alike: a point of health each second, never two.
    assert_each_second_once(seconds(points(receiver, HOST_COLUMN)))
    assert_each_second_once(list(ups(receiver, "zone_mta")))
    assert set(ups(receiver, "system").values()) == {1}
    # No page that was not whole gave a point.
    good = {second for second, up in ups(receiver, "zone_mta").items() if up}
    assert set(seconds(points(receiver, "zonemta.connection.pool.count"))) == good
    # Its queue is asked for by another receiver, whose tick may come meanwhile.
    lines = [line for line in said.splitlines() if "receiver=zone_mta_queue" not in line]
    assert sum("a source gave no whole answer" in line for line in lines) == len(BAD_PAGES)
    assert "Traceback" not in said
    counted = {
        (attributes["error.type"], point.as_int): point.start_time_unix_nano
        for _, attributes, point in points(receiver, "postel.scrape.errors")
        if attributes["postel.receiver.name"] == "zone_mta"
    }
    assert {kind for kind, _ in counted} == {kind for kind, _ in BAD_PAGES}
    assert len(set(counted.values())) == 1
    instance, attributes, _ = points(receiver, "zonemta.connection.pool.count")[0]
    assert (instance, attributes) == (f"node-1:{port}", {})


async def test_a_source_that_is_asked_once_a_day_is_told_of_at_once(tmp_path: Path) -> None:
    async with running_receiver() as receiver, server(Page()) as port:
        variables = environment(
            tmp_path, receiver.http, DISCOVERY__ZONE_MTA_PORT=port, INTERVALS__ZONE_MTA_PROMETHEUS=86400
        )
        async with agent(variables) as process:

            def intervals() -> dict[str, int]:
                told = points(receiver, "postel.receiver.interval")
                return {str(attributes["postel.receiver.name"]): point.as_int for _, attributes, point in told}

            await until(lambda: "zone_mta" in intervals())
            assert intervals()["zone_mta"] == 86400
            assert intervals()["system"] == 1
            assert ups(receiver, "zone_mta") == {}
            await stop(process)


@pytest.mark.slow
async def test_no_tick_is_lost_or_doubled_over_a_kill_and_a_receiver_that_is_away(tmp_path: Path) -> None:
    async with running_receiver() as receiver:
        variables = environment(tmp_path, receiver.http)
        away = {**variables, "POSTEL_OTLP__ENDPOINT": f"http://127.0.0.1:{free_port()}"}
        alive: list[tuple[int, int]] = []
        for number in (signal.SIGKILL, signal.SIGTERM):
            async with agent(away) as process:
                assert process.stderr
                while b"looked for mail servers" not in await process.stderr.readline():
                    pass
                began = time.time_ns() // SECOND
                await asyncio.sleep(3.3)
                ended = time.time_ns() // SECOND
                await stop(process, number)
                alive.append((began, ended))
        assert receiver.taken == []
        async with agent(variables) as process:
            await until(lambda: len(ups(receiver, "system")) >= 8)
            await stop(process)
    # Of the host: a source with a longer interval may have a tick in one of these seconds too.
    found = [
        point.time_unix_nano // SECOND
        for _, attributes, point in points(receiver, "postel.receiver.up")
        if attributes["postel.receiver.name"] == "system"
    ]
    assert [second for second, count in Counter(found).items() if count > 1] == []
    for began, ended in alive:
        # The second in which it was ended may be lost with it, no other.
        assert set(range(began + 1, ended)) <= set(found)
    assert found == sorted(found)


FULL = 'mkdir -p "$0" && mount -t tmpfs -o size=1m tmpfs "$0" && { head -c 2M /dev/zero >"$0/filler" || exec "$@"; }'


# By `make test` the spool is given such a disk: tests/agent/test_full_disk.py.
@pytest.mark.soak
async def test_a_disk_that_is_full_from_the_start_costs_nothing_and_two_lines(tmp_path: Path) -> None:
    async with running_receiver() as receiver:
        variables = environment(tmp_path, receiver.http)
        folder = variables["POSTEL_DATA_DIR"]
        async with agent(variables, within=[*mounting(), "sh", "-c", FULL, folder]) as process:
            await until(lambda: len(ups(receiver, "system")) >= 4)
            # Seen from without its mounts.
            await asyncio.to_thread(os.unlink, f"/proc/{process.pid}/root{folder}/filler")
            freed = len(ups(receiver, "system"))
            await until(lambda: len(ups(receiver, "system")) >= freed + 4)
            said = await stop(process)
        assert process.returncode == 0
    assert_each_second_once(seconds(points(receiver, HOST_COLUMN)))
    assert_each_second_once(list(ups(receiver, "system")))
    lines = [line for line in said.splitlines() if "spool" in line and "the agent stopped" not in line]
    assert len(lines) == 2, said
    assert "[error" in lines[0]
    assert f"{folder}/spool.db: " in lines[0]
    assert "set data_dir to another disk" in lines[0]
    assert "the spool can be written again" in lines[1]


async def test_a_tick_under_way_is_kept_when_the_agent_is_stopped(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(0.4)
        writer.write(sized(AFTER_TRAFFIC))
        await writer.drain()

    async with server(slow) as port:
        variables = environment(tmp_path, f"http://127.0.0.1:{free_port()}", DISCOVERY__ZONE_MTA_PORT=port)
        async with agent(variables) as process:
            assert process.stderr
            while b"a source appeared" not in await process.stderr.readline():
                pass
            asked.clear()
            await asyncio.wait_for(asked.wait(), 5)
            await stop(process)
        assert process.returncode == 0
    with closing(SpoolFile(Path(variables["POSTEL_DATA_DIR"]) / "spool.db", 1 << 30, 3600)) as file:
        block = file.peek(Signal.METRICS, 1 << 30)
    assert block
    assert b"zonemta.delivery.attempts" in block.body


async def test_once_prints_only_otlp_json_and_sends_nothing(tmp_path: Path) -> None:
    async with running_receiver() as receiver, server(sized(AFTER_TRAFFIC)) as port:
        variables = environment(tmp_path, receiver.http, DISCOVERY__ZONE_MTA_PORT=port)
        async with agent(variables, "--once") as process:
            out, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0
        assert receiver.taken == []
    requests = [json.loads(line) for line in out.decode().splitlines()]
    assert {next(iter(request)) for request in requests} == {"resourceMetrics", "resourceLogs"}
    names = {
        metric["name"]
        for request in requests
        for resource in request.get("resourceMetrics", [])
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }
    assert names >= {m.name for m in load_all()["zone_mta"].metrics.values() if "prometheus" in m.source}
    assert names >= {"system.cpu.time", "postel.receiver.up"}
    said = err.decode()
    assert f"looked for zone_mta at 127.0.0.1:{port}: found (its Prometheus page)" in said
    assert said.count("not found (nobody listens)") >= 4
    assert not (tmp_path / "data" / "spool.db").exists()


async def test_once_keeps_no_id_and_needs_no_folder_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_machine_id", lambda: None)
    (tmp_path / "file").write_text("in the way of a folder")
    printed: list[str] = []
    monkeypatch.setattr(printing, "put", printed.extend)
    for data_dir in (tmp_path / "file" / "data", tmp_path / "data"):
        await run_once(Settings(data_dir=data_dir))
        assert any("system.cpu.time" in line for line in printed)
        printed.clear()
    assert not await asyncio.to_thread((tmp_path / "data").exists)


async def test_once_without_any_mail_server_is_no_failure(tmp_path: Path) -> None:
    async with agent(environment(tmp_path, "http://127.0.0.1:1"), "--once") as process:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert all(list(json.loads(line)) in (["resourceMetrics"], ["resourceLogs"]) for line in out.splitlines())
    told = [line for line in err.decode().splitlines() if line.startswith("looked for ")]
    assert [line.split()[2] for line in told] == [place.source for place in places(Discovery())]
    assert all(re.fullmatch(r"looked for \w+ at 127\.0\.0\.1:\d+: (not )?found \(.+\)", line) for line in told)


async def test_a_second_agent_on_the_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    variables = environment(tmp_path, f"http://127.0.0.1:{free_port()}")
    async with agent(variables) as first:
        assert first.stderr
        await first.stderr.readline()
        async with agent(variables) as second:
            _, said = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode == 2
    folder = variables["POSTEL_DATA_DIR"]
    assert said.decode() == (
        f"postel: {folder}: another agent runs on this folder; end it, or set data_dir to one of its own\n"
    )
