"""The agent as a program beside a WildDuck: what it sends, says and costs."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from testbed.fixtures import NewWildDuck

from support.counting_proxy import counting_proxy
from support.otlp_receiver import Receiver, running_receiver
from support.raw_http_server import server, sized
from support.running_agent import agent, environment, points, stop, until
from support.stand_in import Request, standing_in
from support.wildduck_answers import METRICS, StandIn, user

SECOND = 1_000_000_000
RIGHT, WRONG = "right-token", "wrong-token"
NOT_WILDDUCK = b"HTTP/1.1 200 OK\r\nServer: nginx\r\n"


def values(receiver: Receiver, name: str) -> list[int]:
    return [point.as_int for *_, point in points(receiver, name)]


def snapshots(receiver: Receiver) -> list[dict[str, Any]]:
    return [
        {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in record.attributes}
        for _, request in receiver.taken
        if isinstance(request, ExportLogsServiceRequest)
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if record.event_name == "wildduck.quota.snapshot"
    ]


def ups(receiver: Receiver) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for _, attributes, point in points(receiver, "postel.receiver.up"):
        found.setdefault(attributes["postel.receiver.name"], set()).add(point.as_int)
    return found


@pytest.mark.slow
async def test_users_mailboxes_and_its_page_arrive_as_one_instance_and_are_remembered(tmp_path: Path) -> None:
    stand_in = StandIn([user(number, number * 10) for number in range(1, 4)], token=RIGHT)
    async with running_receiver() as receiver, standing_in(stand_in) as port, server(sized(METRICS)) as page:
        variables = environment(
            tmp_path,
            receiver.http,
            DISCOVERY__WILDDUCK_API_PORT=port,
            DISCOVERY__WILDDUCK_METRICS_PORT=page,
            DISCOVERY__WILDDUCK_API_TOKEN=RIGHT,
        )
        async with agent(variables) as process:
            await until(lambda: points(receiver, "wildduck.mailbox.message.count"))
            await until(lambda: points(receiver, "wildduck.lmtp.recipients"))
            await until(lambda: snapshots(receiver))
            said = await stop(process)
        assert "Traceback" not in said
        instances = {
            i
            for name in ("wildduck.user.count", "wildduck.mailbox.count", "wildduck.lmtp.recipients")
            for i, *_ in points(receiver, name)
        }
        assert instances == {f"node-1:{port}"}
        assert set(values(receiver, "wildduck.user.count")) == {3}
        assert set(values(receiver, "wildduck.mailbox.count")) == {6}
        assert ups(receiver)["wildduck"] == ups(receiver)["wildduck_metrics"] == {1}
        assert sorted(each["user.name"] for each in snapshots(receiver)) == ["user1", "user2", "user3"]
        # Another start tells nobody anew, and has the mailboxes from before at once.
        receiver.taken.clear()
        stand_in.requests.clear()
        async with agent(variables) as process:
            await until(lambda: len(points(receiver, "wildduck.user.count")) > 2)
            await stop(process)
        assert len(snapshots(receiver)) < 3
    assert stand_in.most_in_a_second() <= 5


@pytest.mark.slow
async def test_a_wrong_token_is_named_once_with_its_setting_and_the_rest_goes_on(tmp_path: Path) -> None:
    stand_in = StandIn([user(1)], token=RIGHT)
    async with running_receiver() as receiver, standing_in(stand_in) as port, server(sized(METRICS)) as page:
        variables = environment(
            tmp_path,
            receiver.http,
            DISCOVERY__WILDDUCK_API_PORT=port,
            DISCOVERY__WILDDUCK_METRICS_PORT=page,
            DISCOVERY__WILDDUCK_API_TOKEN=WRONG,
        )
        async with agent(variables) as process:
            await until(lambda: len(points(receiver, "postel.scrape.errors")) > 5)
            await until(lambda: points(receiver, "wildduck.service.up"))
            said = await stop(process)
    assert said.count("[discovery] wildduck_api_token") == 1
    assert "InvalidToken" in said
    assert WRONG not in said
    assert {(a["postel.receiver.name"], a["error.type"]) for _, a, _ in points(receiver, "postel.scrape.errors")} == {
        ("wildduck", "403")
    }
    assert ups(receiver)["wildduck"] == {0}
    assert ups(receiver)["wildduck_metrics"] == ups(receiver)["system"] == {1}
    assert not points(receiver, "wildduck.user.count")
    asked = stand_in.of("/users")
    assert len(asked) < len(
        [a for _, a, _ in points(receiver, "postel.receiver.up") if a["postel.receiver.name"] == "wildduck"]
    )


@pytest.mark.slow
async def test_another_server_on_the_port_that_is_set_is_down_and_named(tmp_path: Path) -> None:
    async with running_receiver() as receiver, server(sized(b"hello", NOT_WILDDUCK)) as port:
        variables = environment(tmp_path, receiver.http, DISCOVERY__WILDDUCK_API_PORT=port)
        async with agent(variables) as process:
            await until(lambda: ups(receiver).get("wildduck"))
            said = await stop(process)
    assert ups(receiver)["wildduck"] == {0}
    assert f"wildduck at 127.0.0.1:{port} (listens, is another server; see [discovery] wildduck_api_port)" in said
    assert said.count("a source gave no whole answer") == 1


@pytest.mark.slow
async def test_a_mailbox_server_that_fails_says_so_and_its_users_go_on(tmp_path: Path) -> None:
    def instead(request: Request) -> tuple[int, Any] | None:
        return (500, {"code": "InternalDatabaseError"}) if request.path.endswith("/mailboxes") else None

    stand_in = StandIn([user(number) for number in range(1, 30)], instead=instead)
    async with running_receiver() as receiver, standing_in(stand_in) as port:
        variables = environment(tmp_path, receiver.http, DISCOVERY__WILDDUCK_API_PORT=port)
        async with agent(variables) as process:
            await until(lambda: 0 in ups(receiver).get("wildduck_mailboxes", ()), 40)
            await stop(process)
    assert ups(receiver)["wildduck"] == {1}
    assert not points(receiver, "wildduck.mailbox.count")
    assert stand_in.most_in_a_second() <= 5


class Watch:
    """The largest memory of an agent, and how often it said how many users there are."""

    def __init__(self, pid: int, receiver: Receiver) -> None:
        self._process = psutil.Process(pid)
        self._receiver = receiver
        self._seen = 0
        self.resident = 0
        self.counts = 0

    async def until(self, counts: int, limit: float) -> None:
        deadline = time.monotonic() + limit
        while self.counts < counts:
            assert time.monotonic() < deadline, f"{self.counts} of {counts} readings within {limit} s"
            self.resident = max(self.resident, self._process.memory_info().rss)
            # Only what is new: who looks at it all again each time holds up the server that notes when it is asked.
            new = Receiver(taken=self._receiver.taken[self._seen :])
            self._seen += len(new.taken)
            self.counts += len(points(new, "wildduck.user.count"))
            await asyncio.sleep(0.2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_wildduck_of_twenty_thousand_users(tmp_path: Path, new_wildduck: NewWildDuck) -> None:
    """Issue 3, Shows 3: all counted, quota sums exact against the API, within the request budget."""
    wildduck = new_wildduck()
    wildduck.add_users_at_once([(number % 7 * 10**8, number * 31_337 % 7 * 10**8) for number in range(20_000)])
    quotas = [(each["quota"]["used"], each["quota"]["allowed"]) for each in wildduck.users()]
    async with running_receiver() as receiver, counting_proxy(wildduck.api_port) as passed:
        variables = environment(
            tmp_path,
            receiver.http,
            DISCOVERY__WILDDUCK_API_PORT=passed.port,
            DISCOVERY__WILDDUCK_METRICS_PORT=wildduck.metrics_port,
            DISCOVERY__WILDDUCK_API_TOKEN=wildduck.token,
            INTERVALS__WILDDUCK_API_QUERY=120,
        )
        async with agent(variables) as process:
            watch = Watch(process.pid, receiver)
            # The database that stands in for MongoDB takes seconds over a page of so many; readings then go over ticks.
            await watch.until(2, 1500)
            said = await stop(process)
    assert "Traceback" not in said
    assert set(values(receiver, "wildduck.user.count")) == {20_000} == {len(quotas)}
    assert set(values(receiver, "wildduck.storage.usage")) == {sum(used for used, _ in quotas)}
    assert set(values(receiver, "wildduck.storage.limit")) == {sum(allowed for _, allowed in quotas)}
    assert set(values(receiver, "wildduck.storage.over_quota.count")) == {sum(u > a > 0 for u, a in quotas)}
    # Of those told of by the first reading a few may be due again, each at its time of the day.
    assert len(snapshots(receiver)) == 2 * 2000
    assert len({each["user.id"] for each in snapshots(receiver)}) > 3900
    print(  # noqa: T201 - the figure
        f"20,000 users: {len(passed.requests)} requests, {passed.most_in_a_second()} in a second and"
        f" {passed.most_open} connections at most, agent at most {watch.resident / 2**20:.1f} MiB resident"
    )
    assert passed.most_in_a_second() <= 5
    assert watch.resident < 150 * 2**20


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_hundred_thousand_users_cost_the_agent_little_memory(tmp_path: Path) -> None:
    """Against a stand-in, as filling a real one takes longer than what is to be shown."""
    stand_in = StandIn([user(number, number, 1 << 30) for number in range(1, 100_001)])
    async with running_receiver() as receiver, standing_in(stand_in) as port:
        variables = environment(
            tmp_path, receiver.http, DISCOVERY__WILDDUCK_API_PORT=port, INTERVALS__WILDDUCK_API_QUERY=240
        )
        async with agent(variables) as process:
            watch = Watch(process.pid, receiver)
            await watch.until(2, 900)
            said = await stop(process)
    assert "Traceback" not in said
    assert set(values(receiver, "wildduck.user.count")) == {100_000}
    assert set(values(receiver, "wildduck.storage.usage")) == {100_000 * 100_001 // 2}
    times = [point.time_unix_nano // SECOND for *_, point in points(receiver, "wildduck.user.count")]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [240]
    print(  # noqa: T201 - the figure
        f"100,000 users: {len(stand_in.requests)} requests, {stand_in.most_in_a_second()} in a second at most,"
        f" agent at most {watch.resident / 2**20:.1f} MiB resident"
    )
    assert stand_in.most_in_a_second() <= 5
    assert watch.resident < 150 * 2**20
