"""A real WildDuck: every figure is what its API and its page say, whichever version, with and without a token."""

from __future__ import annotations

import contextlib
import imaplib
import os
import poplib
import random
import signal
import smtplib
import time
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from testbed.fixtures import NewWildDuck
from testbed.program import until
from testbed.wildduck import WildDuck

from otel_receivers.building import Context
from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Batch, Receiver, ScrapeError, Target, Tick
from otel_receivers.wildduck import own_page, receiver
from postel.settings import Discovery, Settings
from postel.signals import load_all
from support.batches import Increase
from support.counting_proxy import counting_proxy
from support.older import soaked

SECOND = 1_000_000_000
VERSIONS = ("1.51", "1.46")
PASSWORD = "a-password-of-this-test"  # noqa: S105 - as it says
DECLARATION = load_all()["wildduck"]
pytestmark = pytest.mark.slow


class Asker:
    """Asks a WildDuck as the agent does, at ticks of its own."""

    def __init__(self, server: WildDuck, folder: Path, *, token: str | None = None, port: int | None = None) -> None:
        settings = Settings(data_dir=folder, discovery=Discovery(wildduck_api_token=token))
        api = Target("127.0.0.1", port or server.api_port)
        context = Context(settings, load_all(), identify(folder, setting="node-1"), Epochs(), where=lambda _: api)
        self.users, self.mailboxes = receiver.build(context, api)
        (self.page,) = own_page.build(context, Target("127.0.0.1", server.metrics_port))
        self._tick = time.time_ns() // SECOND

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in (self.users, self.mailboxes, self.page):
            await each.close()

    async def ask(self, source: Receiver) -> Batch:
        self._tick = max(self._tick + 1, time.time_ns() // SECOND)
        return await source.collect(Tick(self._tick * SECOND))


def figures(batch: Batch) -> dict[tuple[str, ...], Any]:
    return {
        (metric.name, *map(str, point.attributes.values())): point.value  # type: ignore[union-attr] # numbers all of them
        for resource in batch.metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def told(batch: Batch) -> dict[str, dict[str, Any]]:
    """user.name -> attributes"""
    found = [
        {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in record.attributes}
        for logs in batch.events
        for scope in logs.scope_logs
        for record in scope.log_records
    ]
    return {event["user.name"]: event for event in found}


def expected_users(server: WildDuck) -> dict[tuple[str, ...], int]:
    quotas = [(each["quota"]["used"], each["quota"]["allowed"]) for each in server.users()]
    return {
        ("wildduck.user.count",): len(quotas),
        ("wildduck.storage.usage",): sum(used for used, _ in quotas),
        ("wildduck.storage.limit",): sum(allowed for _, allowed in quotas),
        ("wildduck.storage.over_quota.count",): sum(used > allowed for used, allowed in quotas),
        ("wildduck.storage.near_quota.count",): sum(0.9 * allowed <= used <= allowed for used, allowed in quotas),
    }


def expected_mailboxes(server: WildDuck) -> dict[tuple[str, ...], int]:
    found = [box for each in server.users() for box in server.mailboxes(each["id"])]
    return {
        ("wildduck.mailbox.count",): len(found),
        ("wildduck.mailbox.message.count",): sum(box["total"] for box in found),
        ("wildduck.mailbox.unseen.count",): sum(box["unseen"] for box in found),
        ("wildduck.mailbox.size",): sum(box.get("size", 0) for box in found),
    }


def expected_page(server: WildDuck) -> dict[tuple[str, ...], float]:
    """By the library's own parser, under our names."""
    names = {m.source["prometheus"]: m for m in DECLARATION.metrics.values() if "prometheus" in m.source}
    return {
        (
            names[sample.name].name,
            *(sample.labels[label] for label in names[sample.name].source["labels"]),
        ): sample.value
        for family in text_string_to_metric_families(httpx.get(server.metrics_url).text)
        for sample in family.samples
        if sample.name in names
    }


@pytest.mark.parametrize("version", VERSIONS)
async def test_users_quotas_and_mailboxes_are_those_of_the_api(
    new_wildduck: NewWildDuck, tmp_path: Path, version: str
) -> None:
    server = new_wildduck(version)
    ids = [server.add_user(f"user{number}", quota) for number, quota in enumerate((0, 1000, 2000, 10_000, 50_000))]
    server.add_message(ids[0], 5000)
    server.add_message(ids[1], 950)
    server.add_message(ids[2], 1500)
    server.add_message(ids[2], 700, "Drafts", seen=True)
    server.deliver(["user3@example.org", "user4@example.org", "user4@example.org"])
    async with Asker(server, tmp_path, token=server.token) as asker:
        users = await asker.ask(asker.users)
        mailboxes = await asker.ask(asker.mailboxes)
        assert figures(users) == expected_users(server)
        assert figures(users)["wildduck.storage.over_quota.count",] == 1
        assert figures(users)["wildduck.storage.near_quota.count",] == 1
        assert figures(mailboxes) == expected_mailboxes(server)
        assert figures(mailboxes)["wildduck.mailbox.message.count",] == 7
        assert figures(mailboxes)["wildduck.mailbox.unseen.count",] == 6
        # What WildDuck keeps in mind for the quota is what lies there.
        assert figures(mailboxes)["wildduck.mailbox.size",] == figures(users)["wildduck.storage.usage",]
        assert {*figures(users), *figures(mailboxes)} == {
            (metric.name,) for metric in DECLARATION.metrics.values() if "api" in metric.source
        }
        events = told(users)
        assert {name: event["wildduck.quota.used"] for name, event in events.items()} == {
            each["username"]: each["quota"]["used"] for each in server.users()
        }
        assert {event["user.id"] for event in events.values()} == set(ids)
        assert events["user0"]["wildduck.quota.allowed"] == 1 << 30

        # A message of more than a hundredth of a quota, a user more and one less.
        server.add_message(ids[4], 600)
        server.add_message(ids[0], 600)
        server.add_user("user5", 100)
        server.ask("DELETE", f"/users/{ids[3]}")
        users = await asker.ask(asker.users)
        assert figures(users) == expected_users(server)
        assert figures(users)["wildduck.user.count",] == 5
        changes = {n: e["wildduck.quota.reason"] for n, e in told(users).items()}
        assert changes == {"user4": "change"}


async def test_an_api_without_a_token_is_asked_without_one_and_is_enough_without_prometheus(
    new_wildduck: NewWildDuck, tmp_path: Path
) -> None:
    server = new_wildduck(token=None, prometheus=False)
    server.add_user("user0", 1000)
    async with Asker(server, tmp_path) as asker:
        with pytest.raises(ScrapeError) as caught:
            await asker.ask(asker.page)
        assert caught.value.error_type == "connection"
        assert figures(await asker.ask(asker.users)) == expected_users(server)
        await asker.ask(asker.mailboxes)
        assert figures(await asker.ask(asker.mailboxes)) == expected_mailboxes(server)


@pytest.mark.parametrize("version", soaked(VERSIONS, "1.46"))
async def test_a_wrong_token_or_none_is_named_with_its_setting(
    new_wildduck: NewWildDuck, tmp_path: Path, version: str
) -> None:
    server = new_wildduck(version)
    for token in (None, "wrong"):
        async with Asker(server, tmp_path, token=token) as asker:
            with pytest.raises(
                ScrapeError, match=r"HTTP 403 InvalidToken; set \[discovery\] wildduck_api_token"
            ) as caught:
                await asker.ask(asker.users)
        assert caught.value.error_type == "403"


# Each part by `make test`: the pace in tests/agent/test_wildduck_users.py, memory in test_wildduck_passes.py.
@pytest.mark.soak
@pytest.mark.parametrize("version", VERSIONS)
async def test_thousands_of_users_are_counted_exactly_within_the_budget(
    new_wildduck: NewWildDuck, tmp_path: Path, version: str
) -> None:
    server = new_wildduck(version)
    chance = random.Random(5)  # noqa: S311 - repeatable
    server.add_users_at_once(
        [(chance.choice((0, 10**6, 10**9, 2**40)), int(chance.random() * 1.2 * 10**6)) for _ in range(2500)]
    )
    async with counting_proxy(server.api_port) as passed:
        async with Asker(server, tmp_path, token=server.token, port=passed.port) as asker:
            batch = await asker.ask(asker.users)
        assert figures(batch) == expected_users(server)
        assert figures(batch)["wildduck.user.count",] == 2500
        assert figures(batch)["wildduck.storage.over_quota.count",] > 10
        assert len(passed.requests) == 10
        assert passed.most_in_a_second() <= 5
    assert len(told(batch)) == 2000
    assert (
        min(each["wildduck.quota.used"] for each in told(batch).values())
        >= sorted(each["quota"]["used"] for each in server.users())[500]
    )


async def test_its_own_page_is_taken_as_it_is(wildduck: WildDuck, tmp_path: Path) -> None:
    wildduck.add_user("user0", 0, password=PASSWORD)
    wildduck.add_user("user1", 0)
    wildduck.deliver(["user0@example.org", "user1@example.org"])
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        wildduck.deliver(["nobody@example.org"])
    with imaplib.IMAP4("127.0.0.1", wildduck.imap_port) as imap, contextlib.suppress(imaplib.IMAP4.error):
        imap.login("user0", PASSWORD)
        imap.select()
        imap.login("user0", "wrong")
    pop = poplib.POP3("127.0.0.1", wildduck.pop3_port)
    pop.user("user0")
    pop.pass_(PASSWORD)
    pop.quit()
    held = imaplib.IMAP4("127.0.0.1", wildduck.imap_port)
    with pytest.raises(httpx.HTTPStatusError):
        wildduck.ask("GET", f"/users/{'0' * 24}")
    time.sleep(0.3)  # noqa: ASYNC251 - the page counts what has ended
    async with Asker(wildduck, tmp_path) as asker:
        batch = await asker.ask(asker.page)
    found = figures(batch)
    assert batch.problems == ()
    assert found == expected_page(wildduck)
    assert found["wildduck.lmtp.recipients", "accepted"] == 2
    assert found["wildduck.lmtp.recipients", "rejected"] == 1
    assert found["wildduck.lmtp.messages", "success"] == 2
    assert found["wildduck.connection.count", "imap"] == 1
    assert found["wildduck.connection.count", "pop3"] == 0
    assert found["wildduck.accepted.connections", "imap", "no"] == 2
    assert found["wildduck.auth.attempts", "imap", "imap", "success"] == 1
    assert found["wildduck.pop3.commands", "pass", "ok"] == 1
    assert found["wildduck.api.requests", "GET", "/users/:user", "404"] == 1
    assert found["wildduck.message.operations", "add", "lmtp", "success"] == 2
    held.logout()


async def test_over_restarts_the_increase_is_what_was_delivered(wildduck: WildDuck, tmp_path: Path) -> None:
    wildduck.add_user("user0", 0)
    increase = Increase("wildduck.lmtp.recipients")
    delivered = 0
    async with Asker(wildduck, tmp_path) as asker:
        increase.add(await asker.ask(asker.page))
        for count in (3, 5):
            started = time.monotonic()
            wildduck.deliver(["user0@example.org"] * count)
            delivered += count
            increase.add(await asker.ask(asker.page))
            assert increase.total == delivered
            wildduck.stop()
            with pytest.raises(ScrapeError):
                await asker.ask(asker.page)
            # Its start is said in whole seconds; one that moves by two and no more is the same process.
            time.sleep(max(0, started + 3.5 - time.monotonic()))  # noqa: ASYNC251 - nothing else runs in this loop
            wildduck.start()
        wildduck.deliver(["user0@example.org"] * 7)
        increase.add(await asker.ask(asker.page))
    assert increase.total == delivered + 7


# By `make test` over pages as a cluster has them: tests/agent/test_wildduck_own_page.py.
@pytest.mark.soak
async def test_of_a_cluster_whose_worker_is_killed_nothing_is_counted_twice(
    new_wildduck: NewWildDuck, tmp_path: Path
) -> None:
    server = new_wildduck(processes=2)
    until(lambda: server.program.said().count("ready to process some mail") == 2, 30, "both workers are ready")
    server.add_user("user0", 0)
    increase = Increase("wildduck.lmtp.recipients")
    async with Asker(server, tmp_path) as asker:
        assert figures(await asker.ask(asker.page))["wildduck.service.up", "lmtp"] == 1
        increase.add(await asker.ask(asker.page))
        for _ in range(6):
            server.deliver(["user0@example.org"] * 5)
        increase.add(await asker.ask(asker.page))
        # The first series of a cluster appear where none was before: they count from when the page was first met.
        assert increase.total == 30
        children = psutil.Process(server.program.pids()[0]).children()
        assert len(children) == 2
        os.kill(children[0].pid, signal.SIGKILL)
        until(lambda: server.program.said().count("ready to process some mail") == 3, 30, "a new worker is ready")
        increase.add(await asker.ask(asker.page))
        server.deliver(["user0@example.org"] * 4)
        increase.add(await asker.ask(asker.page))
    assert 30 <= increase.total <= 34
