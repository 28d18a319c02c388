"""The agent as a program beside an Rspamd: what it sends and says, and what a wrong answer costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.otlp_receiver import Receiver, running_receiver
from support.raw_http_server import server, sized
from support.rspamd_answers import StandIn, standing_in
from support.running_agent import agent, environment, points, stop, until

RIGHT, WRONG = "right-password", "wrong-password"
pytestmark = pytest.mark.slow


def ups(receiver: Receiver) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for _, attributes, point in points(receiver, "postel.receiver.up"):
        found.setdefault(attributes["postel.receiver.name"], set()).add(point.as_int)
    return found


def errors(receiver: Receiver) -> set[tuple[str, str]]:
    return {
        (attributes["postel.receiver.name"], attributes["error.type"])
        for _, attributes, _ in points(receiver, "postel.scrape.errors")
    }


async def test_its_figures_arrive_and_the_counters_go_on_over_a_restart_of_the_agent(tmp_path: Path) -> None:
    stand_in = StandIn(password=RIGHT)
    async with running_receiver() as receiver, standing_in(stand_in) as port:
        variables = environment(
            tmp_path, receiver.http, DISCOVERY__RSPAMD_CONTROLLER_PORT=port, DISCOVERY__RSPAMD_PASSWORD=RIGHT
        )
        for _ in range(2):
            before = len(points(receiver, "rspamd.messages"))
            async with agent(variables) as process:
                await until(lambda: len(points(receiver, "rspamd.messages")) > before + 6)  # noqa: B023 - used at once
                said = await stop(process)
            assert "Traceback" not in said
    assert {instance for instance, *_ in points(receiver, "rspamd.messages")} == {f"node-1:{port}"}
    assert len({point.start_time_unix_nano for *_, point in points(receiver, "rspamd.messages")}) == 1
    assert {point.as_int for *_, point in points(receiver, "rspamd.scanned.messages")} == {15}
    assert ups(receiver)["rspamd"] == {1}
    assert errors(receiver) == set()


# By `make test` WildDuck's wrong token goes this way, and the receiver is refused: tests/agent/test_rspamd_receiver.py.
@pytest.mark.soak
async def test_a_wrong_password_is_named_once_with_its_setting_and_the_rest_goes_on(tmp_path: Path) -> None:
    stand_in = StandIn(password=RIGHT)
    async with running_receiver() as receiver, standing_in(stand_in) as port:
        variables = environment(
            tmp_path, receiver.http, DISCOVERY__RSPAMD_CONTROLLER_PORT=port, DISCOVERY__RSPAMD_PASSWORD=WRONG
        )
        async with agent(variables) as process:
            await until(lambda: len(points(receiver, "postel.scrape.errors")) > 5)
            said = await stop(process)
    assert said.count("[discovery] rspamd_password") == 1
    assert WRONG not in said
    assert errors(receiver) == {("rspamd", "401")}
    assert (ups(receiver)["rspamd"], ups(receiver)["system"]) == ({0}, {1})
    assert not points(receiver, "rspamd.messages")
    ticks = [a for _, a, _ in points(receiver, "postel.receiver.up") if a["postel.receiver.name"] == "rspamd"]
    assert len([path for path, _ in stand_in.asked if path == "/stat"]) < len(ticks)


async def test_another_server_on_the_port_that_is_set_is_down_named_once_and_shown_no_password(tmp_path: Path) -> None:
    seen = StandIn(server="nginx", pages={"/ping": b"hello", "/stat": b"hello"})
    async with running_receiver() as receiver, standing_in(seen) as port:
        variables = environment(
            tmp_path, receiver.http, DISCOVERY__RSPAMD_CONTROLLER_PORT=port, DISCOVERY__RSPAMD_PASSWORD=RIGHT
        )
        async with agent(variables) as process:
            await until(lambda: len(points(receiver, "postel.scrape.errors")) > 2)
            said = await stop(process)
    assert ups(receiver)["rspamd"] == {0}
    assert said.count("a source gave no whole answer") == 1
    assert errors(receiver) == {("rspamd", "unrecognised")}
    assert {shown for _, shown in seen.asked} == {""}


async def test_a_part_that_fails_is_named_once_counted_and_the_rest_arrives(tmp_path: Path) -> None:
    stand_in = StandIn(instead=lambda path: sized(b"{", b"HTTP/1.1 200 OK\r\n") if path == "/counters" else None)
    async with running_receiver() as receiver, standing_in(stand_in) as port, server(b"") as other:
        variables = environment(
            tmp_path,
            receiver.http,
            DISCOVERY__RSPAMD_CONTROLLER_PORT=port,
            DISCOVERY__RSPAMD_TCP_PORT=other,
        )
        async with agent(variables) as process:
            await until(lambda: len(points(receiver, "postel.scrape.errors")) > 2)
            said = await stop(process)
    assert said.count("a part of an answer was left out") == 1
    assert errors(receiver) == {("rspamd", "malformed")}
    assert points(receiver, "rspamd.messages")
    assert points(receiver, "rspamd.memory.usage")
    assert not points(receiver, "rspamd.symbol.hits")
