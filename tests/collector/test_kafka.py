"""Kafka between the gateway and the sinks: nothing is lost or doubled, whatever is away, refused or killed.

`POSTEL_KAFKA_EVENTS` makes the long one shorter.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import psycopg
import pytest
from grpc import aio
from testbed.kafka import PASSWORD, USER, KafkaBroker

from postel.collector import collector_config
from postel.otlp.signal import Signal
from support.collector import Sink, is_healthy, log_request
from support.gateway import AUTHORITY, TOKEN, Gateway
from support.kafka import GROUP, LOGS, METRICS, KafkaGateway, Member
from support.ports import free_port
from support.running_postel import RunningPostel, until
from support.sink import RunningSink, recount, running_sink
from support.sink_load import IN_REQUEST, events, points, send_by
from support.tls_listeners import CERTIFICATES

LEFT_SECONDS = 3
"""What to-kafka.yaml leaves the calls under way at the end."""


@pytest.mark.parametrize(
    "files",
    [("gateway.yaml", "to-kafka.yaml"), ("gateway.yaml", "gateway-mtls.yaml", "to-kafka.yaml"), ("to-kafka.yaml",)],
    ids=" ".join,
)
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "secured"])
def test_each_configuration_that_writes_validates(program: Path, files: Sequence[str], secured: bool) -> None:  # noqa: FBT001
    _validate(program, files, secured=secured)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "secured"])
def test_the_configuration_that_reads_validates(program: Path, secured: bool) -> None:  # noqa: FBT001
    _validate(program, ["kafka.yaml"], secured=secured)


def _validate(program: Path, files: Sequence[str], *, secured: bool) -> None:
    environment = {"POSTEL_KAFKA_BROKERS": "kafka-1.example.org:9093,kafka-2.example.org:9093"}
    if secured:
        environment |= {
            "POSTEL_KAFKA_INSECURE": "false",
            "POSTEL_KAFKA_CA": str(AUTHORITY),
            "POSTEL_KAFKA_AUTH": '{sasl: {mechanism: SCRAM-SHA-512, username: postel, password: "a: secret"}}',
        }
    configs = [f"--config={collector_config(name)}" for name in ("agent.yaml", *files)]
    done = subprocess.run(
        [program, "validate", *configs], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Tier:
    """A broker that runs, a sink that runs, and a gateway between its senders and Kafka, not started."""

    program: Path
    folder: Path
    broker: KafkaBroker
    sink: RunningSink
    gateway: KafkaGateway

    def member(self, name: str) -> Member:
        """One of the group, not started; it speaks TLS with Kafka, which the gateway does not."""
        member = Member(self.program, self.folder / name, self.broker.secure_address, self.sink.ports[0])
        member.secure(USER, PASSWORD)
        return member

    def ask(self, query: str) -> Any:
        """The one value that the database answers."""
        with psycopg.connect(self.sink.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row
        return row[0]

    def events(self) -> int:
        """Rows of attempts to deliver."""
        return int(self.ask("SELECT count(*) FROM delivery_events"))

    def told(self) -> int:
        """The same by what the sink says of itself, which takes no time to ask."""
        return int(self.ask("SELECT coalesce(sum(stored), 0) FROM ingest_ledger WHERE destination = 'delivery_events'"))

    def points(self) -> int:
        """Points of the load's sum."""
        series = "SELECT series_id FROM otel_series WHERE metric = 'load.attempts'"
        return int(self.ask(f"SELECT count(*) FROM otel_metric_point WHERE series_id IN ({series})"))

    def assert_marked(self) -> None:
        """The group has marked all that is in Kafka."""

        def all_is() -> bool:
            # A partition without a mark had no message.
            lags = self.broker.lag(GROUP)
            return len(lags) > 0 and not any(lags.values())

        until(all_is, 60, "all is marked", pause=1)


async def send(gateway: Gateway, signal: Signal, bodies: Iterable[bytes]) -> int:
    """Hand a gateway requests until each is answered with success; how often one was refused."""
    token = (("authorization", f"Bearer {TOKEN}"),)
    credentials = grpc.ssl_channel_credentials(AUTHORITY.read_bytes())
    async with aio.secure_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
        call: Any = channel.unary_unary(signal.method)
        return await send_by(lambda body: call(body, timeout=60, metadata=token), bodies, pause=0.2)


@pytest.fixture
def tier(program: Path, tmp_path: Path, migrated_postgres: str, kafka_broker: KafkaBroker) -> Iterator[Tier]:
    with running_sink(tmp_path, migrated_postgres) as sink:
        sink.start()
        gateway = KafkaGateway(program, tmp_path / "gateway", kafka_broker.address, sink.ports[0])
        try:
            yield Tier(program, tmp_path, kafka_broker, sink, gateway)
        finally:
            gateway.end()


@contextmanager
def members(tier: Tier, *names: str) -> Iterator[list[Member]]:
    """Start so many, and end them with the block."""
    with ExitStack() as ending:
        started = [tier.member(name) for name in names]
        for member in started:
            ending.callback(member.end)
            member.start()
        yield started


@pytest.mark.slow
@pytest.mark.timeout(400)  # the first run of all fetches Kafka
async def test_nothing_is_lost_when_kafka_refuses_or_is_away(tier: Tier) -> None:
    broker = tier.broker
    broker.make_topic(METRICS, 1)
    # Smaller than what comes: a refusal that Kafka calls final, and that is about a setting.
    broker.make_topic(LOGS, 1, max__message__bytes=1000)
    tier.gateway.start()
    with members(tier, "member") as (member,):
        await send(tier.gateway, Signal.METRICS, points(0, 300))
        await send(tier.gateway, Signal.LOGS, events(0, 400))
        until(lambda: tier.points() == 300, 60, member.log)
        until(lambda: "MESSAGE_TOO_LARGE" in tier.gateway.log(), 30, tier.gateway.log)
        change = ("--alter", "--entity-type=topics", f"--entity-name={LOGS}")
        broker.tool("kafka-configs.sh", *change, "--add-config=max.message.bytes=17825792")
        until(lambda: tier.events() == 400, 60, tier.gateway.log)

        # What somebody else wrote there is left out, and holds up nothing.
        broker.tool("kafka-console-producer.sh", f"--topic={LOGS}", text="no OTLP\n")
        broker.kill()
        await send(tier.gateway, Signal.METRICS, points(300, 300))
        await send(tier.gateway, Signal.LOGS, [*events(400, 200), *events(600, 200)])
        # Started again meanwhile, it has them still.
        assert tier.gateway.stop() == 0
        tier.gateway.start()
        broker.start()
        until(lambda: tier.events() == 800 and tier.points() == 600, 120, lambda: tier.gateway.log() + member.log())
        assert "skipping due to message_marking config" in member.log()
        tier.assert_marked()
        assert member.stop() == 0
    assert tier.gateway.stop() == 0
    assert tier.ask("SELECT count(DISTINCT event_id) FROM delivery_events") == 800
    assert tier.ask("SELECT count(*) FROM dead_letter") == 0
    assert await recount(tier.sink.url) == []


@pytest.mark.slow
@pytest.mark.timeout(400)  # the first run of all fetches Kafka
async def test_a_gateway_ends_soon_with_a_message_that_kafka_may_have(tier: Tier) -> None:
    broker = tier.broker
    for topic in (LOGS, METRICS):
        broker.make_topic(topic, 1, max__message__bytes=17825792)
    tier.gateway.start()
    with members(tier, "member") as (member,):

        async def send_so_far(count: int) -> None:
            # Written at once: the queue waits 0.2 s for more, and Kafka's client 10 ms.
            await send(tier.gateway, Signal.LOGS, events(count - 100, 100))
            await asyncio.sleep(2)

        await send_so_far(100)
        until(lambda: tier.events() == 100, 60, member.log)

        # No broker says any more whether it has it.
        broker.pause()
        await send_so_far(200)
        broker.kill()
        assert _ends(tier.gateway) < LEFT_SECONDS + 5
        broker.start()
        tier.gateway.start()
        until(lambda: tier.events() == 200, 60, lambda: tier.gateway.log() + member.log())

        # Its connections stand.
        broker.pause()
        await send_so_far(300)
        assert _ends(tier.gateway) < LEFT_SECONDS + 5
        broker.resume()
        tier.gateway.start()
        until(lambda: tier.events() == 300, 60, lambda: tier.gateway.log() + member.log())
    assert "panic" not in tier.gateway.log()
    assert tier.ask("SELECT count(DISTINCT event_id) FROM delivery_events") == 300


def _ends(gateway: Gateway) -> float:
    """How long it takes to end by SIGTERM, seconds."""
    began = time.monotonic()
    assert gateway.stop() == 0, gateway.log()
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(400)  # the first run of all fetches Kafka
async def test_a_sink_with_tls_and_a_token_is_reached_by_kafka(
    program: Path, tmp_path: Path, kafka_broker: KafkaBroker
) -> None:
    """The gateway knows the sink too, which it tells of itself; its own door to Kafka is another."""
    for topic in (METRICS, LOGS):
        kafka_broker.make_topic(topic, 1)
    sink = Sink(free_port(), CERTIFICATES / "gateway.pem")
    port = int(sink.address.rpartition(":")[2])
    gateway = KafkaGateway(program, tmp_path / "gateway", kafka_broker.address, port)
    member = Member(program, tmp_path / "member", kafka_broker.address, port)
    sink.start()
    try:
        for collector in (gateway, member):
            collector.environment |= {
                "POSTEL_SINK_INSECURE": "false",
                "POSTEL_SINK_CA": str(AUTHORITY),
                "POSTEL_SINK_TOKEN": "of-the-sink",
            }
            collector.start()
        await send(gateway, Signal.LOGS, [log_request("by Kafka").SerializeToString()])
        until(lambda: sink.bodies() == ["by Kafka"], 60, lambda: gateway.log() + member.log())
        assert member.stop() == 0
        # What it tells of itself it tells at its end, too.
        assert gateway.stop() == 0
        assert any("postel-gateway" in str(request) for request in sink.taken)
        assert sink.authorizations == {"Bearer of-the-sink"}
    finally:
        gateway.end()
        member.end()
        sink.stop()


async def test_a_member_listens_to_nobody(program: Path, tmp_path: Path) -> None:
    member = Member(program, tmp_path / "member", "127.0.0.1:1", 1)
    try:
        member.start()
        assert {port for _, port in member.listening()} == {int(member.health.rpartition(":")[2])}
        assert not member.storage.exists()
    finally:
        member.end()


def test_postel_collector_runs_a_member(program: Path, tmp_path: Path) -> None:
    health = free_port()
    its_own = {
        "POSTEL_COLLECTOR": str(program),
        "POSTEL_OTLP__KAFKA_MEMBER_HEALTH_ADDRESS": f"127.0.0.1:{health}",
        # Of the host's other Collector.
        "POSTEL_OTLP__COLLECTOR_LAYERS": '["to-kafka"]',
    }
    postel = RunningPostel(tmp_path, its_own)
    command = [sys.executable, "-m", "postel.cli", "collector", "--tier", "kafka-member"]
    with subprocess.Popen(command, env=postel.variables) as process:
        try:
            until(lambda: is_healthy(f"127.0.0.1:{health}"), 30, "it is well")
            assert _listening(process.pid) == {health}
            assert list(postel.data.iterdir()) == []
        finally:
            process.terminate()
        assert process.wait(30) == 0


def _listening(pid: int) -> set[int]:
    connections = psutil.Process(pid).net_connections("tcp")
    return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_three_members_store_each_of_two_million_events_once(tier: Tier) -> None:
    count = int(os.environ.get("POSTEL_KAFKA_EVENTS", "2000000")) // IN_REQUEST * IN_REQUEST
    for topic in (LOGS, METRICS):
        tier.broker.make_topic(topic, 6, max__message__bytes=17825792)
    tier.gateway.start()

    with members(tier, "one", "two", "three") as (first, *_):
        await asyncio.to_thread(
            until, lambda: tier.broker.members(GROUP, LOGS) == 3, 60, "each has partitions of its own", 1
        )
        began = time.monotonic()
        sending = asyncio.create_task(send(tier.gateway, Signal.LOGS, events(0, count)))
        await _stored(tier, count // 4)
        first.kill()
        await _stored(tier, count // 2)
        tier.broker.kill()
        await asyncio.sleep(5)
        await asyncio.to_thread(tier.broker.start)
        await _stored(tier, count * 3 // 4)
        await asyncio.to_thread(first.start)
        repeated = await sending
        await _stored(tier, count)
        took = time.monotonic() - began
        await asyncio.to_thread(tier.assert_marked)
        assert tier.ask("SELECT count(DISTINCT event_id) FROM delivery_events") == tier.events() == count
        assert tier.ask("SELECT sum(dead_lettered) + sum(conflicting) FROM ingest_ledger") == 0
        duplicates = tier.ask("SELECT coalesce(sum(duplicate), 0) FROM ingest_ledger")
        print(  # noqa: T201 - the figures
            f"{count} events in {took:.0f} s, one member and the broker killed meanwhile: each once;"
            f" {duplicates} came again, {repeated} requests were refused for want of room"
        )
        assert tier.sink.command("db", "check").stdout == "the tables hold what the ledger says\n"
        await _compare(tier, count, max(count // 20 // IN_REQUEST, 5) * IN_REQUEST)


async def _stored(tier: Tier, at_least: int, seconds: float = 3600) -> None:
    """Wait until the database has so many events."""
    await asyncio.to_thread(until, lambda: tier.told() >= at_least, seconds, lambda: tier.gateway.log()[-2000:], 0.1)


async def _compare(tier: Tier, first: int, each: int) -> None:
    """Events a second by Kafka and straight to the sink, in turns."""
    direct = Gateway(tier.program, tier.folder / "direct", tier.sink.ports[0])
    direct.start()
    seconds: dict[str, list[float]] = {"by Kafka": [], "direct": []}
    try:
        for _ in range(3):
            for way, gateway in (("by Kafka", tier.gateway), ("direct", direct)):
                bodies = list(events(first, each))
                first += each
                began = time.monotonic()
                await send(gateway, Signal.LOGS, bodies)
                await _stored(tier, first, 600)
                seconds[way].append(time.monotonic() - began)
    finally:
        direct.end()
    kafka, straight = (each / statistics.median(seconds[way]) for way in ("by Kafka", "direct"))
    print(f"events a second: {kafka:.0f} by Kafka, {straight:.0f} direct: {kafka / straight:.2f}")  # noqa: T201
    assert kafka > straight / 3
