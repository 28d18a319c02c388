"""Sources that come and go, the node that starts and boots: each said once, by an event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from structlog.testing import capture_logs

from otel_receivers import discovery, sources
from otel_receivers.node import Node, identify
from otel_receivers.receiver import Target
from otel_receivers.sources import SourceWatch
from otel_receivers.spool import Spool
from postel.otlp.signal import Signal
from postel.settings import Discovery, Settings
from postel.signals import load_all
from support.ports import free_ports
from support.raw_http_server import server, sized
from support.zone_mta_pages import AFTER_TRAFFIC

AGENT = load_all()["agent"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    ports = free_ports(5)
    discovery = Discovery(
        zone_mta_port=ports[0],
        wildduck_api_port=ports[1],
        haraka_smtp_port=ports[2],
        rspamd_tcp_port=ports[3],
        rspamd_controller_port=ports[4],
    )
    return Settings(data_dir=tmp_path, discovery=discovery)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return identify(tmp_path, setting="node-1")


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    opened = await Spool.open(tmp_path, max_bytes=8 << 20, max_age=3600)
    yield opened
    await opened.close()


async def stored(spool: Spool) -> list[LogRecord]:
    records: list[LogRecord] = []
    while (block := await spool.peek(Signal.LOGS, 1 << 20)) is not None:
        request = ExportLogsServiceRequest.FromString(block.body)
        records += (r for resource in request.resource_logs for s in resource.scope_logs for r in s.log_records)
        await spool.remove(block.ids)
    return records


def attributes(record: LogRecord) -> dict[str, object]:
    return {
        a.key: getattr(a.value, a.value.WhichOneof("value") or "")
        for a in record.attributes
        if a.value.WhichOneof("value") != "array_value"
    }


def watched(record: LogRecord) -> list[str]:
    (told,) = [a.value.array_value.values for a in record.attributes if a.key == "postel.node.sources"]
    return [value.string_value for value in told]


def looking_at(settings: Settings, **ports: int | None) -> Settings:
    return settings.model_copy(update={"discovery": settings.discovery.model_copy(update=ports)})


async def test_a_first_start_registers_the_node_and_does_not_call_it_a_boot(
    settings: Settings, node: Node, spool: Spool
) -> None:
    with capture_logs() as logs:
        await SourceWatch(settings, AGENT, node, {}).start(spool)
    (record,) = await stored(spool)
    assert record.event_name == "postel.node.registered"
    assert attributes(record)["host.boot.id"] == node.boot_id
    assert watched(record) == ["system"]
    assert (await spool.state())[sources.BOOT_ID] == node.boot_id
    (said,) = (entry["event"] for entry in logs)
    assert said.startswith("looked for mail servers: found: ")
    assert "; not found: zone_mta, wildduck, " in said


async def test_one_line_says_what_was_found_and_what_listens_in_anothers_place(
    settings: Settings, node: Node, spool: Spool
) -> None:
    async with server(sized(AFTER_TRAFFIC)) as first, server(sized(b"ok", b"HTTP/1.1 200 OK\r\n")) as second:
        with capture_logs() as logs:
            watch = SourceWatch(looking_at(settings, zone_mta_port=first, rspamd_tcp_port=second), AGENT, node, {})
            await watch.start(spool)
    (said,) = (entry["event"] for entry in logs if entry["event"].startswith("looked for"))
    assert f": found: zone_mta at 127.0.0.1:{first}" in said
    assert "; not found: wildduck, " in said
    assert f", rspamd at 127.0.0.1:{second} (listens, is another server), rspamd_controller" in said


async def test_a_boot_is_said_where_the_boot_id_is_another(settings: Settings, node: Node, spool: Spool) -> None:
    await SourceWatch(settings, AGENT, node, {sources.BOOT_ID: "another"}).start(spool)
    records = {record.event_name: record for record in await stored(spool)}
    assert records["postel.node.booted"].time_unix_nano == node.boot_time_unix_nano
    await SourceWatch(settings, AGENT, node, await spool.state()).start(spool)
    assert "postel.node.booted" not in {record.event_name for record in await stored(spool)}


async def test_a_source_that_comes_and_goes_is_said_once_each_over_restarts(
    settings: Settings, node: Node, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_ROUND_SECONDS", 0.05)

    async def run(state: Mapping[str, str], rounds: int) -> list[Mapping[str, Target]]:
        watch = SourceWatch(current, AGENT, node, state)
        await watch.start(spool)
        seen = []
        async for listening in watch.run(spool):
            seen.append(listening)
            if len(seen) == rounds:
                break
        return seen

    async with server(sized(AFTER_TRAFFIC)) as port:
        current = looking_at(settings, zone_mta_port=port)
        assert "zone_mta" in (await run({}, 3))[0]
        records = await stored(spool)
        assert [record.event_name for record in records] == ["postel.node.registered", "postel.source.appeared"]
        assert attributes(records[1]) == {
            "postel.source.name": "zone_mta",
            "server.address": "127.0.0.1",
            "server.port": port,
            "log.record.uid": attributes(records[1])["log.record.uid"],
        }
        assert [watched(record) for record in records] == [["system", "zone_mta"]] * 2
        # A new start of the agent meets it again and says nothing.
        await run(await spool.state(), 3)
        (record,) = await stored(spool)
        assert (record.event_name, watched(record)) == ("postel.node.registered", ["system", "zone_mta"])
    # Now it is gone; it stays in the set of those to be scraped, which is what tells that it is down.
    state = await spool.state()
    assert json.loads(state[sources.SOURCES])["zone_mta"] == ["127.0.0.1", port]
    monkeypatch.setattr(SourceWatch, "_is_due", lambda *_: True)
    seen = await run(state, 4)
    assert all("zone_mta" in listening for listening in seen)
    records = await stored(spool)
    assert [record.event_name for record in records] == ["postel.node.registered", "postel.source.lost"]
    # It was not lost yet when the agent started.
    assert [watched(record) for record in records] == [["system", "zone_mta"], ["system"]]
    assert "zone_mta" not in json.loads((await spool.state())[sources.SOURCES])
    # Also by an agent that starts after it was lost, for as long as it may come back.
    state = await spool.state()
    assert "zone_mta" in (await run(state, 1))[0]
    await stored(spool)
    listened = json.loads(state[sources.LISTENED])
    listened["zone_mta"] -= sources._MISSED_FOR
    assert "zone_mta" not in (await run({**state, sources.LISTENED: json.dumps(listened)}, 1))[0]


async def test_a_lost_source_is_told_with_all_places_where_it_was_looked_for(
    settings: Settings, node: Node, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = free_ports(2)
    monkeypatch.setattr(discovery, "_WILDDUCK_PORTS", (first, second))
    monkeypatch.setattr(sources, "_ROUND_SECONDS", 0.05)
    monkeypatch.setattr(SourceWatch, "_is_due", lambda *_: True)
    known = {sources.SOURCES: json.dumps({"wildduck": ["127.0.0.1", second]})}
    watch = SourceWatch(looking_at(settings, wildduck_api_port=None), AGENT, node, known)
    await watch.start(spool)
    rounds = watch.run(spool)
    await anext(rounds)
    await anext(rounds)
    _, lost = await stored(spool)
    assert lost.body.string_value == (
        f"wildduck no longer answers at 127.0.0.1:{second}; "
        f"at 127.0.0.1:{first}: nobody listens; at 127.0.0.1:{second}: nobody listens."
    )


async def test_each_event_of_a_round_tells_what_is_watched_after_all_of_it(
    settings: Settings, node: Node, spool: Spool
) -> None:
    """The reader keeps the list of whichever event came last."""
    rspamd = sized(b"pong\r\n", b"HTTP/1.1 200 OK\r\nServer: rspamd/3.4\r\n")
    async with server(sized(AFTER_TRAFFIC)) as first, server(rspamd) as second:
        both = looking_at(settings, zone_mta_port=first, rspamd_tcp_port=second)
        await SourceWatch(both, AGENT, node, {}).start(spool)
    records = await stored(spool)
    assert [attributes(record).get("postel.source.name") for record in records] == [None, "zone_mta", "rspamd"]
    assert [watched(record) for record in records] == [["system", "rspamd", "zone_mta"]] * 3


async def test_a_place_where_another_server_listens_is_scraped_too(
    settings: Settings, node: Node, spool: Spool
) -> None:
    """An error page in Zone-MTA's place is worth a `postel.receiver.up` of 0."""
    async with server(sized(b"<html></html>", b"HTTP/1.1 500 Oh\r\n")) as port:
        watch = SourceWatch(looking_at(settings, zone_mta_port=port), AGENT, node, {})
        await watch.start(spool)
        async for listening in watch.run(spool):
            assert "zone_mta" in listening
            break
        await asyncio.sleep(0)
    assert [record.event_name for record in await stored(spool)] == ["postel.node.registered"]


WILDDUCK = sized(b"{}", b"HTTP/1.1 404 Not Found\r\nServer: WildDuck API\r\n")


async def asked(watch: SourceWatch, spool: Spool, rounds: int = 1) -> list[Mapping[str, Target]]:
    seen = []
    async for targets in watch.run(spool):
        seen.append(targets)
        if len(seen) == rounds:
            break
    return seen


async def test_where_a_port_is_only_guessed_another_server_is_not_shown_the_token(
    settings: Settings, node: Node, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server(sized(b"hello")) as port:
        monkeypatch.setattr(discovery, "_WILDDUCK_PORTS", (port,))
        guessing = SourceWatch(looking_at(settings, wildduck_api_port=None), AGENT, node, {})
        await guessing.start(spool)
        assert await asked(guessing, spool) == [{}]
        named = SourceWatch(looking_at(settings, wildduck_api_port=port), AGENT, node, {})
        await named.start(spool)
        assert await asked(named, spool) == [{"wildduck": Target("127.0.0.1", port)}]


async def test_it_is_asked_where_it_was_found_also_after_it_moved_and_after_a_restart(
    settings: Settings, node: Node, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_ROUND_SECONDS", 0.05)
    monkeypatch.setattr(SourceWatch, "_is_due", lambda *_: True)
    first, second = free_ports(2)
    monkeypatch.setattr(discovery, "_WILDDUCK_PORTS", (first, second))
    guessing = looking_at(settings, wildduck_api_port=None)
    known = {sources.SOURCES: json.dumps({"wildduck": ["127.0.0.1", first]})}
    async with server(WILDDUCK) as port:
        monkeypatch.setattr(discovery, "_WILDDUCK_PORTS", (first, port))
        watch = SourceWatch(guessing, AGENT, node, known)
        assert watch.where("wildduck") == Target("127.0.0.1", first)
        assert watch.where("imap") is None
        seen = await asked(watch, spool, 2)
        assert [targets["wildduck"].port for targets in seen] == [first, port]
        assert watch.where("wildduck") == Target("127.0.0.1", port)
    await asked(watch, spool, 5)
    state = await spool.state()
    assert "wildduck" not in json.loads(state[sources.SOURCES]), "it is lost"
    back = SourceWatch(guessing, AGENT, node, state)
    assert await asked(back, spool) == [{"wildduck": Target("127.0.0.1", port)}]
    # Settings that name another place win.
    elsewhere = SourceWatch(looking_at(settings, wildduck_api_port=second), AGENT, node, state)
    assert await asked(elsewhere, spool) == [{"wildduck": Target("127.0.0.1", second)}]


@pytest.mark.parametrize("text", ["", "[]", "3", '{"zone_mta": 3}', '{"zone_mta": ["a", "b"]}', "\x00"])
async def test_an_unreadable_state_is_as_if_nothing_was_known(
    settings: Settings, node: Node, spool: Spool, text: str
) -> None:
    await SourceWatch(
        settings, AGENT, node, dict.fromkeys((sources.SOURCES, sources.LISTENED, sources.ASKED), text)
    ).start(spool)
    assert [record.event_name for record in await stored(spool)] == ["postel.node.registered"]


async def test_of_several_zone_mtas_each_comes_and_goes_by_itself(
    settings: Settings, node: Node, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_ROUND_SECONDS", 0.05)
    async with server(sized(AFTER_TRAFFIC)) as first:
        async with server(sized(AFTER_TRAFFIC)) as second:
            discovery = settings.discovery.model_copy(
                update={"zone_mta_port": first, "zone_mta_instances": (f"127.0.0.1:{second}",)}
            )
            both = settings.model_copy(update={"discovery": discovery})
            watch = SourceWatch(both, AGENT, node, {})
            watch._places = tuple(replace(place, interval=0.0) for place in watch._places)
            await watch.start(spool)
            here, there = Target("127.0.0.1", first), Target("127.0.0.1", second)
            assert (watch.where("zone_mta"), watch.all_of("zone_mta")) == (here, [here, there])
            records = await stored(spool)
            appeared = [attributes(record) for record in records if record.event_name == "postel.source.appeared"]
            assert [(told["postel.source.name"], told["server.port"]) for told in appeared] == [
                ("zone_mta", first),
                ("zone_mta", second),
            ]
        await asked(watch, spool, rounds=3)
        (lost,) = [record for record in await stored(spool) if record.event_name == "postel.source.lost"]
        assert (attributes(lost)["postel.source.name"], attributes(lost)["server.port"]) == ("zone_mta", second)
        # The other one is still there, and the one that is down is asked on.
        assert watched(lost) == ["system", "zone_mta"]
        assert watch.all_of("zone_mta") == [here, there]
        again = SourceWatch(both, AGENT, node, await spool.state())
        assert again.all_of("zone_mta") == [here, there]
