"""One message of a queue: Zone-MTA's answer becomes what an operator asks for, at the agent's door and in a shell."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from otel_receivers.agent import Collecting
from otel_receivers.epochs import Epochs
from otel_receivers.intake import Intake, serving
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.prometheus import PageError
from otel_receivers.receiver import ScrapeError, Target
from otel_receivers.spool import Spool
from otel_receivers.zone_mta.lookup import Lookup
from otel_receivers.zone_mta.message import LogLine, is_id, message
from postel import message as command
from postel.cli import main
from postel.errors import PostelError
from postel.settings import Discovery, Settings
from postel.settings import Intake as IntakeSettings
from postel.settings import Privacy as PrivacySettings
from support.gateway import AUTHORITY
from support.ports import free_port
from support.silent_server import silent_server
from support.stand_in import Request, standing_in
from support.tls_listeners import CERTIFICATES
from support.zone_mta_answers import MESSAGE, MESSAGE_ID, NO_MESSAGE, StandIn

RECORDED = json.loads(MESSAGE)
TIME = "2026-11-24T15:39:"


def answering(request: Request) -> tuple[int, Any]:
    found = request.path == f"/message/{MESSAGE_ID}"
    return (200, MESSAGE) if found else (404, NO_MESSAGE)


def test_the_recorded_message() -> None:
    found = message(MESSAGE, MESSAGE_ID)
    assert (found.id, found.message_id) == (MESSAGE_ID, "<9d26644d-61ab-4048-9480-3b0d27c1f148@lab.test>")
    assert (found.from_address, found.queued) == ("sender@lab.test", f"{TIME}06.750Z")
    assert (found.interface, found.client_address, found.body_size) == ("feeder", "127.0.0.1", 6)
    first, second = found.recipients
    assert (first.seq, first.address, second.address) == ("001", "defer9@dest.test", "defer8@other.test")
    assert (first.status, first.zone, first.in_delivery, first.attempts) == ("deferred", "default", False, 1)
    assert (first.first_deferred, first.last_deferred) == (f"{TIME}07.782Z", f"{TIME}07.782Z")
    assert first.next_attempt == f"{TIME}12.782Z"
    assert first.response == "451 4.7.1 Greylisted, try again later"
    assert first.log[0] == LogLine(f"{TIME}07.769Z", "network", "Connection established to 127.0.0.1:12625")
    assert first.log[-1] == LogLine(f"{TIME}07.777Z", "server", "451 4.7.1 Greylisted, try again later")


def test_what_is_due_says_no_more_than_that() -> None:
    content = json.loads(MESSAGE)
    content["messages"] = [
        {"id": MESSAGE_ID, "seq": "001", "zone": "z", "recipient": "a@two.test", "status": "QUEUED", "lock": {"x": 1}}
    ]
    (only,) = message(json.dumps(content).encode(), MESSAGE_ID).recipients
    assert (only.status, only.in_delivery, only.attempts, only.next_attempt, only.log) == (
        "queued",
        True,
        None,
        None,
        (),
    )


def test_an_address_without_a_domain_is_hidden_too() -> None:
    content = json.loads(MESSAGE)
    content["meta"]["from"] = content["messages"][0]["recipient"] = "ann"
    shown = message(json.dumps(content).encode(), MESSAGE_ID).to_dict(Privacy("domain"))
    assert "ann" not in (shown["from_address"], shown["recipients"][0]["address"])


async def test_of_several_on_one_database_each_tells_of_its_own_attempts() -> None:
    locked = json.loads(MESSAGE)
    locked["messages"][1]["lock"] = {"x": 1}
    one, another = StandIn(instead=answering), StandIn(instead=lambda _: (200, json.dumps(locked).encode()))
    async with standing_in(one) as first, standing_in(another) as second:
        targets = [Target("127.0.0.1", first), Target("127.0.0.1", second), Target("127.0.0.1", free_port())]
        found = await Lookup(lambda: targets, Privacy("keep")).find(MESSAGE_ID)
    assert found
    assert [recipient["in_delivery"] for recipient in found["recipients"]] == [False, True]


async def test_who_waits_for_those_before_is_answered_in_time_too() -> None:
    with silent_server() as endpoint:
        silent = Target("127.0.0.1", int(endpoint.rpartition(":")[2]))
        lookup = Lookup(lambda: [silent], Privacy("keep"), timeout=0.5, within=0.7)
        began = time.monotonic()
        ends = await asyncio.gather(*(lookup.find(MESSAGE_ID) for _ in range(16)), return_exceptions=True)
        assert time.monotonic() - began < 3  # one pair after the other, it would be 4 s
        assert [getattr(end, "error_type", end) for end in ends] == ["timeout"] * 16
        # Those who gave up left their places.
        with pytest.raises(ScrapeError, match=r"no whole answer within 0\.5 s"):
            await lookup.find(MESSAGE_ID)


def test_nothing_of_the_mails_header_is_told() -> None:
    assert "Subject: hello" in MESSAGE.decode()
    assert "hello" not in json.dumps(message(MESSAGE, MESSAGE_ID).to_dict())


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ([("client", "AUTH PLAIN AGFubgBzZWNyZXQ=")], ["AUTH PLAIN (not shown)"]),
        ([("client", "auth xoauth2 dXNlcj1hbm4=\r\n")], ["auth xoauth2 (not shown)"]),
        (
            [("client", "AUTH LOGIN"), ("server", "334 VXNl"), ("client", "YW5u"), ("server", "334 UGFz"),
             ("client", "c2VjcmV0"), ("server", "235 ok"), ("client", "MAIL FROM:<>")],
            ["AUTH LOGIN", "334 VXNl", "(not shown)", "334 UGFz", "(not shown)", "235 ok", "MAIL FROM:<>"],
        ),
        ([("server", "250-AUTH PLAIN LOGIN")], ["250-AUTH PLAIN LOGIN"]),
    ],
)  # fmt: skip
def test_what_a_client_shows_to_authenticate_is_not_told(lines: list[tuple[str, str]], shown: list[str]) -> None:
    content = json.loads(MESSAGE)
    content["messages"][0]["deferred"]["log"] = [{"tnx": kind, "message": text} for kind, text in lines]
    found = message(json.dumps(content).encode(), MESSAGE_ID)
    assert [line.text for line in found.recipients[0].log] == shown


@pytest.mark.parametrize("length", range(0, len(MESSAGE), 7))
def test_cut_at_any_byte_it_is_refused(length: int) -> None:
    with pytest.raises(PageError):
        message(MESSAGE[:length], MESSAGE_ID)


@given(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255))
def test_with_any_byte_changed_it_is_read_or_refused(place: int, byte: int) -> None:
    body = bytearray(MESSAGE)
    body[place] = byte
    try:
        found = message(bytes(body), MESSAGE_ID)
    except PageError:
        return
    json.dumps(found.to_dict())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["log", "time", "next", "x"]), inner),
    max_leaves=6,
)  # fmt: skip


@example({}, "", "seq")
@given(JSON, JSON, st.sampled_from(["deferred", "lock", "status", "seq", "recipient", "id"]))
def test_whatever_stands_in_its_parts_it_is_read_or_refused(meta: Any, value: Any, name: str) -> None:
    content = {**RECORDED, "meta": meta, "messages": [{**RECORDED["messages"][0], name: value}]}
    try:
        found = message(json.dumps(content).encode(), MESSAGE_ID)
    except PageError:
        return
    json.dumps(found.to_dict())
    assert found.recipients[0].seq


def test_an_answer_about_another_message_is_refused() -> None:
    with pytest.raises(PageError):
        message(MESSAGE, "1a20e35f47d000e1af")


@pytest.mark.parametrize("text", ["1a20e35f47d000e1ae", "A", "0" * 64])
def test_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize("text", ["", "0" * 65, "..", "a/b", "a?b", "a%2Fb", "a b", "a\n", "é", "1a20/001", "a.b", "٤"])
def test_what_no_id_is(text: str) -> None:
    assert not is_id(text)


@asynccontextmanager
async def door(
    tmp_path: Path, port: int = 0, *, token: str | None = None, intake: Mapping[str, Any] = {}, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The intake of an agent that asks Zone-MTA at this port, if any."""
    settings = Settings(
        data_dir=tmp_path,
        intake=IntakeSettings(address=f"127.0.0.1:{free_port()}", token=SecretStr(token) if token else None, **intake),
        **options,
    )
    node = identify(tmp_path, setting="node-1")
    collecting = Collecting(settings, node, Epochs())
    targets = {"zone_mta": [Target("127.0.0.1", port)]} if port else {}
    spool = await Spool.open(tmp_path, max_bytes=64 << 20, max_age=3600)
    takes = Intake(node, spool, Privacy("keep"), request_bytes=1 << 20)
    try:
        async with (
            serving(settings, takes, collecting.doors(lambda source: targets.get(source, []))),
            httpx.AsyncClient(base_url=f"http://{settings.intake.address}", trust_env=False) as http,
        ):
            yield http
    finally:
        await spool.close()


async def test_the_door_shows_a_message(tmp_path: Path) -> None:
    stand_in = StandIn(instead=answering)
    async with standing_in(stand_in) as port, door(tmp_path, port) as http:
        answer = await http.get(f"/zone-mta/message/{MESSAGE_ID}")
        assert (answer.status_code, answer.json()) == (200, message(MESSAGE, MESSAGE_ID).to_dict())
        gone = await http.get("/zone-mta/message/1a20e35f47d000e1af")
        assert (gone.status_code, "no queue" in gone.json()["error"]) == (404, True)
        # The intake goes on beside it.
        assert (await http.post("/v1/logs", json={"resourceLogs": []})).status_code == 200


@pytest.mark.parametrize(
    "path", ["..%2f..%2fqueued", "1a20e35f47d000e1ae%2F001", "a%3Fb", "a%0d%0aDELETE", "%2e%2e", "1a+20"]
)
async def test_nothing_but_an_id_reaches_zone_mta(path: str, tmp_path: Path) -> None:
    stand_in = StandIn(instead=answering)
    async with standing_in(stand_in) as port, door(tmp_path, port) as http:
        assert (await http.get(f"/zone-mta/message/{path}")).status_code in (400, 404)
    assert stand_in.paths() == []


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST"])
async def test_messages_are_only_looked_at(method: str, tmp_path: Path) -> None:
    stand_in = StandIn(instead=answering)
    async with standing_in(stand_in) as port, door(tmp_path, port) as http:
        assert (await http.request(method, f"/zone-mta/message/{MESSAGE_ID}")).status_code == 405
    assert stand_in.paths() == []


async def test_with_a_token_only_who_shows_it_is_answered(tmp_path: Path) -> None:
    stand_in = StandIn(instead=answering)
    async with standing_in(stand_in) as port, door(tmp_path, port, token="right") as http:  # noqa: S106
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert (await http.get(f"/zone-mta/message/{MESSAGE_ID}", headers=headers)).status_code == 401
        assert stand_in.paths() == []
        headers = {"Authorization": "Bearer right"}
        assert (await http.get(f"/zone-mta/message/{MESSAGE_ID}", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"), [({"Host": "evil.example:4319"}, 400), ({"Origin": "https://evil.example"}, 403)]
)
async def test_without_a_token_no_page_of_another_origin_is_answered(
    headers: dict[str, str], status: int, tmp_path: Path
) -> None:
    stand_in = StandIn(instead=answering)
    async with standing_in(stand_in) as port, door(tmp_path, port) as http:
        assert (await http.get(f"/zone-mta/message/{MESSAGE_ID}", headers=headers)).status_code == status
    assert stand_in.paths() == []


@pytest.mark.parametrize(
    ("addresses", "shown"), [("domain", "@dest.test"), ("hash", "@dest.test"), ("keep", "defer9@dest.test")]
)
async def test_of_addresses_only_what_may_leave_this_host_is_shown(addresses: Any, shown: str, tmp_path: Path) -> None:
    stand_in = StandIn(instead=answering)
    privacy = PrivacySettings(addresses=addresses)
    async with standing_in(stand_in) as port, door(tmp_path, port, privacy=privacy) as http:
        answer = await http.get(f"/zone-mta/message/{MESSAGE_ID}")
    assert answer.json()["recipients"][0]["address"].endswith(shown)
    assert ("defer9@" in answer.text) == (addresses == "keep")
    assert ("sender@" in answer.text) == (addresses == "keep")


async def test_without_a_zone_mta_it_says_so(tmp_path: Path) -> None:
    async with door(tmp_path) as http:
        answer = await http.get(f"/zone-mta/message/{MESSAGE_ID}")
    assert (answer.status_code, "zone_mta_host" in answer.json()["error"]) == (503, True)


@pytest.mark.parametrize(
    ("status", "content"), [(500, {"error": "x"}), (200, b"<html>"), (200, {"messages": []}), (200, b" " * (5 << 20))]
)
async def test_a_zone_mta_that_gives_no_answer_is_named(status: int, content: Any, tmp_path: Path) -> None:
    async with standing_in(StandIn(instead=lambda _: (status, content))) as port, door(tmp_path, port) as http:
        answer = await http.get(f"/zone-mta/message/{MESSAGE_ID}")
    assert answer.status_code == 502
    assert str(port) in answer.json()["error"]


async def test_the_command_asks_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with standing_in(StandIn(instead=answering)) as port, door(tmp_path, port, token="right") as http:  # noqa: S106
        at = IntakeSettings(address=http.base_url.netloc.decode(), token=SecretStr("right"))
        settings = Settings(data_dir=tmp_path, intake=at, discovery=Discovery(zone_mta_port=free_port()))
        capsys.readouterr()
        assert await command.run(settings, MESSAGE_ID, as_json=True) == 0
        assert json.loads(capsys.readouterr().out) == message(MESSAGE, MESSAGE_ID).to_dict()
        assert await command.run(settings, "1a20e35f47d000e1af", as_json=False) == 1
        assert "waits in no queue" in capsys.readouterr().err


SHOWN = {"tls_certificate": CERTIFICATES / "gateway.pem", "tls_client_ca": AUTHORITY}


async def test_the_command_asks_the_agent_over_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trusts the very certificate that the agent shows; where one is asked for, it shows its own or says that."""
    async with standing_in(StandIn(instead=answering)) as port, door(tmp_path, port, intake=SHOWN) as http:
        address = http.base_url.netloc.decode()

        async def ask(**intake: Any) -> int:
            at = IntakeSettings(address=address, **intake)
            return await command.run(Settings(data_dir=tmp_path, intake=at), MESSAGE_ID, as_json=True)

        host = CERTIFICATES / "host.pem"
        capsys.readouterr()
        assert await ask(**SHOWN, tls_client_certificate=host, tls_client_key=host) == 0
        assert json.loads(capsys.readouterr().out) == message(MESSAGE, MESSAGE_ID).to_dict()
        with pytest.raises(
            PostelError, match=r"https://.*; it wants a certificate: set \[intake\] tls_client_certificate"
        ):
            await ask(**SHOWN)
        # Another program on the port is not taken for nobody.
        with pytest.raises(PostelError, match=r"CERTIFICATE_VERIFY_FAILED.*; does an agent of Postel listen there\?"):
            await ask(tls_certificate=host)


async def test_where_no_agent_runs_the_command_asks_zone_mta(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with standing_in(StandIn(instead=answering)) as port:
        settings = Settings(
            data_dir=tmp_path,
            intake=IntakeSettings(address=f"127.0.0.1:{free_port()}"),
            discovery=Discovery(zone_mta_port=port),
        )
        assert await command.run(settings, MESSAGE_ID, as_json=False) == 0
    text = capsys.readouterr().out
    assert f"Message:      {MESSAGE_ID}\n" in text
    assert "001 defer9@dest.test: deferred in zone default\n" in text
    assert f"    next attempt: {TIME}12.782Z\n" in text
    assert f"    {TIME}07.771Z server   250-localhost\n".replace("07.771", "07.772") in text


def test_no_control_character_of_a_server_reaches_the_terminal() -> None:
    content = json.loads(MESSAGE)
    content["messages"][0]["deferred"]["response"] = "451 \x1b]0;owned\x07\r\n later"
    found = message(json.dumps(content).encode(), MESSAGE_ID).to_dict()
    assert all(line.isprintable() for line in command.described(found))


def test_the_command_refuses_what_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(main, ["message", "../queued"])
    assert (result.exit_code, "no queue id" in result.output) == (2, True)
