"""A real WildDuck tells the agent of its users by a webhook, and the receiver has each event once."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from testbed.fixtures import NewWildDuck
from testbed.program import Program, until
from testbed.wildduck import WildDuck

from otel_receivers.wildduck import door
from postel.signals import load_all
from support.gateway import AUTHORITY
from support.markdown import blocks, run, variables
from support.older import soaked
from support.otlp_thread import LogRecord, OtlpThread
from support.running_agent import environment
from support.tls_listeners import CERTIFICATES

VERSIONS = ("1.51", "1.46")
TOKEN = "a-token-of-this-test"  # noqa: S105 - as it says
PASSWORDS = ("a-first-password-of-this-test", "a-second-password-of-this-test")
# WildDuck does not know of what it speaks: lib/api/domainaliases.js asks for the id alone, lib/user-handler.js has
# `asp._id` where `asp` is the id, lib/mailbox-handler.js does not wait for the id.
NOT_SAID_WHICH = {"wildduck.domainalias.deleted", "wildduck.asp.deleted", "wildduck.mailbox.created"}
pytestmark = pytest.mark.slow


class Agent(Program):
    """An agent that asks one WildDuck, and whose intake has a token."""

    def __init__(self, tmp_path: Path, receiver: OtlpThread, server: WildDuck, *, tls: bool) -> None:
        self._scheme = "https" if tls else "http"
        self.variables = environment(
            tmp_path,
            receiver.endpoint,
            INTAKE__TOKEN=TOKEN,
            DISCOVERY__WILDDUCK_API_PORT=server.api_port,
            DISCOVERY__WILDDUCK_API_TOKEN=server.token,
            INTERVALS__WILDDUCK_API_QUERY=300,
            **({"INTAKE__TLS_CERTIFICATE": CERTIFICATES / "gateway.pem"} if tls else {}),
        )
        command = [sys.executable, "-m", "postel.cli", "agent"]
        super().__init__("agent", command, tmp_path / "agent.log", environment=self.variables)

    def begin(self) -> None:
        self.start(lambda: "the intake listens" in self.said())

    @property
    def url(self) -> str:
        return f"{self._scheme}://postel:{TOKEN}@{self.variables['POSTEL_INTAKE__ADDRESS']}{door.PATH}"


@contextlib.contextmanager
def running(tmp_path: Path, receiver: OtlpThread, server: WildDuck, *, tls: bool = False) -> Iterator[Agent]:
    agent = Agent(tmp_path, receiver, server, tls=tls)
    try:
        agent.begin()
        yield agent
        assert "Traceback" not in agent.log.read_text()
    finally:
        agent.kill()


def register(server: WildDuck, agent: Agent, *types: str) -> None:
    server.ask("POST", "/webhooks", json={"type": types or ["*"], "url": agent.url})


def register_by_the_page(server: WildDuck, agent: Agent) -> None:
    """As otel_receivers/wildduck/README.md says."""
    (block,) = blocks("otel_receivers/wildduck/README.md", "sh")
    names = {
        "http://127.0.0.1:8080": f"http://127.0.0.1:{server.api_port}",
        "TOKEN-OF-WILDDUCK": str(server.token),
        "http://127.0.0.1:4319/wildduck/webhook": agent.url,
    }
    command = block.text
    for name, mine in names.items():
        assert name in command
        command = command.replace(name, mine)
    assert json.loads(run(command, agent.log.parent, variables()))["success"]


def told(receiver: OtlpThread) -> list[LogRecord]:
    """What came by webhook, in order of the occurrences."""
    kinds = {event.name for event in load_all()["wildduck"].events.values() if "webhook" in event.source}
    return sorted((record for record in receiver.records() if record.name in kinds), key=lambda record: record.time)


def names(receiver: OtlpThread) -> list[str]:
    return [record.name.removeprefix("wildduck.") for record in told(receiver)]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_becomes_of_a_user_is_told_once(
    new_wildduck: NewWildDuck, otlp_receiver: OtlpThread, tmp_path: Path, version: str
) -> None:
    server = new_wildduck(version)
    with running(tmp_path, otlp_receiver, server) as agent:
        # Two webhooks here: each event is posted twice.
        register_by_the_page(server, agent)
        register(server, agent, "user.*")
        began = time.time_ns()
        user = server.add_user("ann", password=PASSWORDS[0])
        server.ask("PUT", f"/users/{user}", json={"password": PASSWORDS[1]})
        server.ask("DELETE", f"/users/{user}")
        three = {"user.created", "user.password.changed", "user.delete.started"}
        until(lambda: three <= set(names(otlp_receiver)), 20, "all is told")
        time.sleep(1)  # what would come twice
        events = told(otlp_receiver)

    assert len({event.uid for event in events}) == len({(event.name, event.time) for event in events})
    once = {event.uid: event for event in events}.values()
    counted = Counter(event.name for event in once)
    assert counted["wildduck.user.created"] == 1
    assert counted["wildduck.user.password.changed"] == 1
    assert counted["wildduck.user.delete.started"] == 1
    assert {event.attributes["user.id"] for event in once if event.name.startswith("wildduck.user.")} == {user}
    (created,) = [event for event in once if event.name == "wildduck.user.created"]
    assert created.attributes == {"user.id": user, "user.name": "ann", "wildduck.address": "ann@example.org"}
    assert began <= created.time <= time.time_ns()
    assert created.resource["service.instance.id"] == f"node-1:{server.api_port}"
    assert not [text for text in PASSWORDS if text in str(otlp_receiver.requests())]
    assert TOKEN not in agent.log.read_text()


@pytest.mark.parametrize("version", soaked(VERSIONS, "1.46"))
def test_everything_that_its_api_lets_one_do_is_told_by_a_name_of_its_own(
    new_wildduck: NewWildDuck, otlp_receiver: OtlpThread, tmp_path: Path, version: str
) -> None:
    server = new_wildduck(version)
    with running(tmp_path, otlp_receiver, server) as agent:
        register(server, agent)
        expected = set(everything(server))
        until(lambda: expected <= set(names(otlp_receiver)), 30, f"{expected - set(names(otlp_receiver))} is told")
        events = told(otlp_receiver)

    assert set(names(otlp_receiver)) - {"mailbox.created"} == expected - {"mailbox.created"}
    attributes = {event.name: event.attributes for event in events}
    (forwarded,) = [event.attributes for event in events if event.name == "wildduck.forward.added"]
    assert forwarded["wildduck.forward.target"] == "smtp://mx.example.org"
    spam = attributes["wildduck.marked.spam"]
    assert spam["email.message_id"] == "<1@example.org>"
    assert spam["wildduck.message.from.address"] == "bob@example.org"
    made = attributes["wildduck.domainalias.created"]
    assert made["wildduck.domain"] == "alias.example"
    assert attributes["wildduck.domainalias.deleted"]["wildduck.domain.alias.id"] == made["wildduck.domain.alias.id"]
    assert attributes["wildduck.address.domain.renamed"] == {
        "wildduck.domain": "new.example",
        "wildduck.domain.previous": "old.example",
    }
    assert "A secret" not in str(otlp_receiver.requests())
    for event in events:
        declared = load_all().events[event.name]
        missing = set(declared.attributes) - set(event.attributes)
        # No filter forwards here.
        assert missing <= {"wildduck.filter.id"} or event.name in NOT_SAID_WHICH, event


def everything(server: WildDuck) -> Iterator[str]:
    """Do one thing after the other; what each is to be told by."""

    def ask(method: str, url: str, **content: Any) -> dict[str, Any]:
        return server.ask(method, url, json=content)

    user = server.add_user("ann", password=PASSWORDS[0])
    home = f"/users/{user}"
    yield "user.created"
    address = ask("POST", f"{home}/addresses", address="second@old.example")["id"]
    yield "address.user.created"
    ask("PUT", "/addresses/renameDomain", oldDomain="old.example", newDomain="new.example")
    yield "address.domain.renamed"
    server.ask("DELETE", f"{home}/addresses/{address}")
    yield "address.user.deleted"
    forwarded = ask("POST", "/addresses/forwarded", address="all@example.org", targets=["bob@example.net"])["id"]
    yield "address.forwarded.created"
    server.ask("DELETE", f"/addresses/forwarded/{forwarded}")
    yield "address.forwarded.deleted"
    alias = ask("POST", "/domainaliases", alias="alias.example", domain="example.org")["id"]
    yield "domainalias.created"
    server.ask("DELETE", f"/domainaliases/{alias}")
    yield "domainalias.deleted"
    ask("PUT", home, targets=["smtp://bob:A secret@mx.example.org:25".replace(" ", "")])
    yield "forward.added"
    query = {"from": "bob@example.org"}
    made = ask("POST", f"{home}/filters", name="A secret", query=query, action={"seen": True})["id"]
    yield "filter.created"
    server.ask("DELETE", f"{home}/filters/{made}")
    yield "filter.deleted"
    ask("PUT", f"{home}/autoreply", status=True, text="A secret")
    yield "autoreply.user.enabled"
    ask("PUT", f"{home}/autoreply", status=False)
    yield "autoreply.user.disabled"
    password = ask("POST", f"{home}/asps", description="A secret", scopes=["imap"])["id"]
    yield "asp.created"
    server.ask("DELETE", f"{home}/asps/{password}")
    yield "asp.deleted"
    ask("PUT", f"{home}/2fa/custom")
    yield "mfa.custom.enabled"
    server.ask("DELETE", f"{home}/2fa/custom")
    yield "mfa.custom.disabled"
    ask("PUT", f"{home}/2fa/custom")
    server.ask("DELETE", f"{home}/2fa")
    yield "mfa.disabled"
    yield from mailboxes(server, user)
    ask("PUT", home, password=PASSWORDS[1])
    yield "user.password.changed"
    server.ask("DELETE", home)
    yield "user.delete.started"


def mailboxes(server: WildDuck, user: str) -> Iterator[str]:
    """Make, rename and delete one, and move a message to the junk and back."""
    home = f"/users/{user}/mailboxes"
    mailbox = server.ask("POST", home, json={"path": "A secret"})["id"]
    yield "mailbox.created"
    server.ask("PUT", f"{home}/{mailbox}", json={"path": "Another secret"})
    yield "mailbox.renamed"
    server.ask("DELETE", f"{home}/{mailbox}")
    yield "mailbox.deleted"
    folders = {each["path"]: each["id"] for each in server.mailboxes(user)}
    raw = b"From: Bob <bob@example.org>\r\nSubject: A secret\r\nMessage-ID: <1@example.org>\r\n\r\nx"
    path = f"{home}/{{}}/messages"
    server.ask("POST", path.format(folders["INBOX"]), content=raw, headers={"Content-Type": "message/rfc822"})
    for source, destination, name in (("INBOX", "Junk", "marked.spam"), ("Junk", "INBOX", "marked.ham")):
        (message,) = server.ask("GET", path.format(folders[source]))["results"]
        move = {"message": str(message["id"]), "moveTo": folders[destination]}
        server.ask("PUT", path.format(folders[source]), json=move)
        yield name
        # What it tells is read from the message, where that still is.
        time.sleep(1)


def test_over_tls_it_trusts_whom_node_trusts(
    new_wildduck: NewWildDuck, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    server = new_wildduck(environment={"NODE_EXTRA_CA_CERTS": str(AUTHORITY)})
    with running(tmp_path, otlp_receiver, server, tls=True) as agent:
        assert agent.url.startswith("https://")
        register(server, agent)
        user = server.add_user("ann", password=PASSWORDS[0])
        until(lambda: "user.created" in names(otlp_receiver), 20, "it is told")
        (event, *_) = told(otlp_receiver)
    assert event.attributes["user.id"] == user


def test_what_the_agent_could_not_take_comes_again(
    new_wildduck: NewWildDuck, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    """WildDuck tries five times, 2, 4, 8 and 16 s after the time before."""
    server = new_wildduck()
    with running(tmp_path, otlp_receiver, server) as agent:
        register(server, agent)
        agent.kill()
        user = server.add_user("ann", password=PASSWORDS[0])
        with pytest.raises(httpx.ConnectError):
            httpx.get(agent.url)
        time.sleep(2)
        agent.begin()
        until(lambda: names(otlp_receiver), 20, "it is told")
        (event,) = told(otlp_receiver)
    assert event.attributes["user.id"] == user
