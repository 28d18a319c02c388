"""What WildDuck tells a webhook becomes an event once, and nothing of it that was not asked for."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import SecretStr

from otel_receivers.building import Context
from otel_receivers.epochs import Epochs
from otel_receivers.intake import Intake, serving
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.receiver import Target
from otel_receivers.spool import Request, Spool, SpoolError
from otel_receivers.wildduck import door
from otel_receivers.wildduck.webhook import Vocabulary
from postel.otlp.errors import Malformed
from postel.otlp.signal import Signal
from postel.settings import Intake as IntakeSettings
from postel.settings import Privacy as PrivacySettings
from postel.settings import Settings
from postel.signals import load_all
from support.otlp_thread import LogRecord, records
from support.ports import free_port

DECLARATION = load_all()["wildduck"]
VOCABULARY = Vocabulary(DECLARATION, names=True)
USER = "69255d6f4f2f6d6a1c3f8f01"
# As WildDuck 1.51.1 sends it.
CREATED = {
    "id": "69255d6f4f2f6d6a1c3f8f0a:1",
    "time": 1768471201234,
    "ev": "user.created",
    "user": USER,
    "username": "ann",
    "name": "Ann Lee",
    "address": "ann@example.org",
}


@asynccontextmanager
async def running(
    tmp_path: Path,
    *,
    token: str | None = None,
    privacy: Literal["keep", "hash", "domain"] = "keep",
    target: Target | None = None,
) -> AsyncIterator[tuple[Spool, httpx.AsyncClient]]:
    settings = Settings(
        data_dir=tmp_path,
        intake=IntakeSettings(address=f"127.0.0.1:{free_port()}", token=SecretStr(token) if token else None),
        privacy=PrivacySettings(addresses=privacy),
    )
    spool = await Spool.open(tmp_path, max_bytes=64 << 20, max_age=3600)
    node = identify(tmp_path, setting="node-1")
    intake = Intake(node, spool, Privacy(privacy), request_bytes=1 << 20)
    context = Context(settings, load_all(), node, Epochs(), all_of=lambda _: [target] if target else [], ingest=intake)
    try:
        async with (
            serving(settings, intake, [door.build(context)]),
            httpx.AsyncClient(base_url=f"http://{settings.intake.address}", trust_env=False) as http,
        ):
            yield spool, http
    finally:
        await spool.close()


async def stored(spool: Spool) -> list[LogRecord]:
    block = await spool.peek(Signal.LOGS, 1 << 20)
    return records(ExportLogsServiceRequest.FromString(block.body)) if block else []


async def test_a_user_that_was_created_is_an_event_of_wildducks(tmp_path: Path) -> None:
    async with running(tmp_path, target=Target("127.0.0.1", 8080)) as (spool, http):
        answer = await http.post(door.PATH, json=CREATED)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        (event,) = await stored(spool)
    assert (event.name, event.time, event.severity) == ("wildduck.user.created", 1768471201234000000, "INFO")
    assert event.attributes == {"user.id": USER, "user.name": "ann", "wildduck.address": "ann@example.org"}
    assert event.resource["service.instance.id"] == "node-1:8080"
    assert (event.resource["service.name"], event.resource["host.id"]) == ("wildduck", "node-1")
    assert "service.version" not in event.resource
    assert event.body == "WildDuck: user.created"


async def test_privacy_holds_here_too(tmp_path: Path) -> None:
    async with running(tmp_path, privacy="domain") as (spool, http):
        await http.post(door.PATH, json=CREATED)
        (event,) = await stored(spool)
    assert event.attributes == {"user.id": USER, "wildduck.address": "@example.org"}
    # As the agent would ask it, where it was not found.
    assert event.resource["service.instance.id"] == "node-1:8080"


@pytest.mark.parametrize(
    ("name", "other"), [("user", "other-user"), ("time", 1768471201235), ("ev", "user.delete.started"), ("extra", 1)]
)
def test_an_event_has_one_id_however_often_it_is_told(name: str, other: Any) -> None:
    def uid(content: dict[str, Any]) -> str:
        return VOCABULARY.read(json.dumps(content).encode()).uid

    first = uid(CREATED)
    assert uid(dict(reversed(CREATED.items()))) == first
    # Another webhook, or the same event put into the queue again.
    assert uid({**CREATED, "id": "69255d6f4f2f6d6a1c3f8f0b:2"}) == first
    assert uid({key: value for key, value in CREATED.items() if key != "id"}) == first
    assert uid({**CREATED, name: other}) != first
    assert uid({**CREATED, "id": "of the event itself"}) != first


def test_nothing_is_taken_that_is_not_declared() -> None:
    told = VOCABULARY.read(
        json.dumps(
            {
                "ev": "marked.spam",
                "user": USER,
                "mailbox": "69255d6f4f2f6d6a1c3f8f02",
                "messageId": "<1@example.org>",
                "subject": "Secret",
                "from": {"name": "Secret", "address": "bob@example.org"},
                "to": [{"address": "Secret"}],
                "password": "Secret",
            }
        ).encode()
    )
    assert told.attributes == {
        "user.id": USER,
        "wildduck.mailbox.id": "69255d6f4f2f6d6a1c3f8f02",
        "email.message_id": "<1@example.org>",
        "wildduck.message.from.address": "bob@example.org",
    }
    assert "Secret" not in repr(told)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("bob@example.org", "bob@example.org"),
        ("smtp://bob:secret@mx.example.org:25", "smtp://mx.example.org"),
        ("https://example.org/hook/secret?key=secret", "https://example.org"),
        ("http://[secret", "http://"),
    ],
)
def test_a_forwarding_url_shows_no_secret(target: str, shown: str) -> None:
    told = VOCABULARY.read(json.dumps({"ev": "forward added", "user": USER, "target": target}).encode())
    assert told.attributes == {"user.id": USER, "wildduck.forward.target": shown}
    assert DECLARATION.event(told.key).name == "wildduck.forward.added"


def test_what_is_not_known_is_told_by_its_name() -> None:
    told = VOCABULARY.read(b'{"ev":"channel.opened","user":7,"time":true}')
    assert (told.key, told.attributes, told.time_unix_nano) == (
        "other",
        {"wildduck.event.name": "channel.opened"},
        None,
    )
    assert VOCABULARY.read(b'{"ev":"*"}').attributes == {"wildduck.event.name": "*"}


@pytest.mark.parametrize("token", [None, "a-secret-of-this-test"])
async def test_what_is_no_event_is_refused_and_the_connection_lives_on(tmp_path: Path, token: str | None) -> None:
    async with running(tmp_path, token=token) as (spool, http):
        if token:
            http.headers["authorization"] = f"Bearer {token}"
        json_type = {"content-type": "application/json"}
        for body in (b"", b"{", b"[]", b"{}", b'{"ev":7}', b'{"ev":""}', b"\xff", b'{"ev":"\\ud800"}'):
            answer = await http.post(door.PATH, content=body, headers=json_type)
            assert answer.status_code == 400, body
            assert answer.json()["message"]
        assert (await http.post(door.PATH, data={"ev": "x"})).status_code == 415
        assert (await http.get(door.PATH)).status_code == 405
        assert (await http.post(door.PATH, content=b"x" * (5 << 20), headers=json_type)).status_code == 413
        foreign = await http.post(door.PATH, json=CREATED, headers={"origin": "http://evil.test"})
        assert foreign.status_code == 403
        assert await stored(spool) == []
        assert (await http.post(door.PATH, json=CREATED)).status_code == 200


async def test_the_token_may_stand_in_the_url(tmp_path: Path) -> None:
    async with running(tmp_path, token="a-secret-of-this-test") as (spool, http):  # noqa: S106 - as it says
        for given in (
            "",
            "Bearer another",
            "Basic !!!",
            "Basic " + base64.b64encode(b"postel:another").decode(),
            "Basic " + base64.b64encode(b"a-secret-of-this-test").decode(),
        ):
            assert (await http.post(door.PATH, json=CREATED, headers={"authorization": given})).status_code == 401
        assert await stored(spool) == []
        url = f"http://postel:a-secret-of-this-test@{http.base_url.netloc.decode()}{door.PATH}"
        assert (await http.post(url, json=CREATED)).status_code == 200


async def test_a_disk_that_takes_nothing_lets_wildduck_come_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (spool, http):
        await spool._call(lambda store: store.on_file(lambda file: file._db.execute("PRAGMA max_page_count = 20")))
        with contextlib.suppress(SpoolError):
            await spool.take([Request(Signal.LOGS, b"x" * 100_000, 1)])
        large = {**CREATED, "ev": "forward added", "target": "x" * 1000}
        answers = [await http.post(door.PATH, json={**large, "time": 1768471201234 + n}) for n in range(60)]
        assert answers[-1].status_code == 503
        assert answers[-1].headers["retry-after"] == "5"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=10,
    ).flatmap(
        lambda value: st.fixed_dictionaries(
            {"ev": st.sampled_from(sorted(VOCABULARY._events)) | st.text()},
            optional={
                name: st.just(value)
                for name in ("user", "time", "id", "from", "result", "credential", "target", "value", "username")
            },
        )
    )
)
def test_any_object_is_an_event_or_refused(content: dict[str, Any]) -> None:
    try:
        told = VOCABULARY.read(json.dumps(content).encode())
    except Malformed:
        return
    event = DECLARATION.event(told.key)
    assert set(told.attributes) <= set(event.attributes)
    assert told.time_unix_nano is None or 0 < told.time_unix_nano < 2**63


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(Malformed):
        VOCABULARY.read(b'{"ev":"user.created","x":' + b"[" * 300 + b"]" * 300 + b"}")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        VOCABULARY.read(body)
