"""Both servers over TLS with real handshakes: what they show, whose certificates they want, and what is renewed.

The certificates are described in `support.gateway`; the expired ones are known by their serial numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from postel.errors import SettingsError
from postel.otlp import tls_door
from postel.otlp.client import create_sender
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from postel.otlp.tls_door import TlsDoor, door_of, pinned
from postel.otlp.tls_files import TlsFiles
from support.gateway import AUTHORITY
from support.otlp_receiver import Receiver, running_receiver
from support.tls_listeners import CERTIFICATES, der

PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_door, "_LOOK_SECONDS", 0.0)


@contextlib.asynccontextmanager
async def serving(folder: Path, certificate: str = "gateway", clients: Path | None = None) -> AsyncIterator[Receiver]:
    """A receiver that shows a copy of a certificate, ``folder/shown.pem``."""
    show(folder, certificate)
    async with running_receiver(tls=TlsDoor("[sink]", folder / "shown.pem", None, clients)) as receiver:
        yield receiver


def show(folder: Path, certificate: str) -> None:
    """Put a certificate in place as those who renew one do: another file of the same name."""
    shutil.copyfile(CERTIFICATES / f"{certificate}.pem", folder / "new.pem")
    (folder / "new.pem").replace(folder / "shown.pem")


def endpoint(receiver: Receiver, protocol: Any) -> str:
    return f"https://localhost:{receiver.grpc_port if protocol == 'grpc' else receiver.http_port}"


async def send(receiver: Receiver, protocol: Any, shown: str | None = None) -> None:
    files = TlsFiles(AUTHORITY, CERTIFICATES / f"{shown}.pem" if shown else None)
    sender = create_sender(endpoint(receiver, protocol), protocol, tls=files, timeout=5)
    try:
        await sender.send(Signal.METRICS, b"")
    finally:
        await sender.close()


async def shown_at(port: int) -> bytes:
    """The certificate that a listener shows, DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # gRPC ends a connection without it.
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return shown
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@PROTOCOLS
async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, protocol: Any) -> None:
    async with serving(tmp_path, "gateway-expired") as receiver:
        with pytest.raises(Retryable, match=r"certificate has expired|CERTIFICATE_VERIFY_FAILED"):
            await send(receiver, protocol)
        with capture_logs() as log:
            show(tmp_path, "gateway")
            await send(receiver, protocol)
        assert len(receiver.taken) == 1
    assert [line["event"] for line in log] == ["a new certificate is shown"]


async def test_files_that_do_not_fit_change_nothing_and_are_told_of_once(tmp_path: Path) -> None:
    """A key of another certificate, half a file, none: what was shown before goes on being shown."""
    async with serving(tmp_path) as receiver:
        ports = (receiver.grpc_port, receiver.http_port)
        whole, other = ((CERTIFICATES / f"{name}.pem").read_text() for name in ("gateway", "host"))
        mixed = _key_of(other) + whole.replace(_key_of(whole), "")
        for content in (mixed, whole[: len(whole) // 2], ""):
            (tmp_path / "shown.pem").write_text(content)
            with capture_logs() as log:
                for port in (*ports, *ports):
                    assert await shown_at(port) == der("gateway")
            (line,) = [line for line in log if "connections" not in line]
            assert line["log_level"] == "error"
            assert line["event"].startswith("the certificate of before is still shown")
            assert f"[sink] tls_certificate: {tmp_path / 'shown.pem'} cannot be used: " in line["reason"]
        (tmp_path / "shown.pem").unlink()
        for port in ports:
            assert await shown_at(port) == der("gateway")

        show(tmp_path, "lasting")
        for port in ports:
            assert await shown_at(port) == der("lasting")


def _key_of(pem: str) -> str:
    key: str
    (key,) = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n", pem, re.DOTALL)
    return key


@PROTOCOLS
async def test_who_shows_no_certificate_or_an_expired_one_is_refused(tmp_path: Path, protocol: Any) -> None:
    async with serving(tmp_path, clients=AUTHORITY) as receiver:
        with capture_logs() as log:
            for shown in (None, "host-expired", "lasting"):
                with pytest.raises(Retryable):
                    await send(receiver, protocol, shown)
            assert not receiver.taken
            await send(receiver, protocol, "host")
        assert len(receiver.taken) == 1
    if protocol == "http/protobuf":
        reasons = " ".join(line["reason"] for line in log if line["event"].startswith("refused connections"))
        assert "peer did not return a certificate" in reasons
        assert "certificate has expired" in reasons


@PROTOCOLS
async def test_the_authority_of_senders_is_renewed_too(tmp_path: Path, protocol: Any) -> None:
    clients = tmp_path / "clients.pem"
    shutil.copyfile(CERTIFICATES / "lasting.pem", clients)
    async with serving(tmp_path, clients=clients) as receiver:
        with pytest.raises(Retryable):
            await send(receiver, protocol, "host")
        shutil.copyfile(AUTHORITY, clients)
        await send(receiver, protocol, "host")
        assert len(receiver.taken) == 1


def greet(
    port: int, alpn: str, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """Have an answer and end in order; whether the session was taken up, and the one of this connection."""
    words = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as made,
    ):
        made.sendall(words if alpn == "h2" else b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        if not made.recv(4096):
            raise ConnectionError("closed without a word")
        said = bool(made.session_reused), made.session
        with contextlib.suppress(OSError):
            made.unwrap()
        return said


@pytest.mark.parametrize(
    ("alpn", "version"), [("h2", "TLSv1_2"), ("h2", "TLSv1_3"), ("http/1.1", "TLSv1_2"), ("http/1.1", "TLSv1_3")]
)
async def test_a_kept_session_stands_for_no_certificate(tmp_path: Path, alpn: str, version: str) -> None:
    """It shows none, so whoever had one that has expired, or whose authority is gone, would come in for days."""
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.load_cert_chain(CERTIFICATES / "host.pem")
    context.maximum_version = ssl.TLSVersion[version]
    context.set_alpn_protocols([alpn])
    clients = tmp_path / "clients.pem"
    shutil.copyfile(AUTHORITY, clients)
    async with serving(tmp_path, clients=clients) as receiver:
        port = receiver.grpc_port if alpn == "h2" else receiver.http_port
        if (alpn, version) == ("http/1.1", "TLSv1_2"):
            # Where certificates are asked for, 1.2 is not spoken.
            with pytest.raises(OSError), capture_logs() as log:  # noqa: PT011 - the reason is in the server's log
                await asyncio.to_thread(greet, port, alpn, context, None)
            assert [line["reason"] for line in log] == ["[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol"]
            return
        _, kept = await asyncio.to_thread(greet, port, alpn, context, None)
        taken_up, kept = await asyncio.to_thread(greet, port, alpn, context, kept)
        assert not taken_up
        shutil.copyfile(CERTIFICATES / "lasting.pem", clients)
        with pytest.raises(OSError, match=r"EOF|reset|closed|ALERT"):
            await asyncio.to_thread(greet, port, alpn, context, kept)


@PROTOCOLS
async def test_a_plain_connection_gets_nothing(tmp_path: Path, protocol: Any) -> None:
    async with serving(tmp_path) as receiver:
        sender = create_sender(endpoint(receiver, protocol).replace("https", "http"), protocol, timeout=5)
        with pytest.raises(Retryable), capture_logs() as log:
            await sender.send(Signal.METRICS, b"")
        await sender.close()
        assert not receiver.taken
    if protocol == "http/protobuf":
        assert [(line["at"], line["reason"]) for line in log] == [("[sink]", "[SSL: HTTP_REQUEST] http request")]


@pytest.mark.parametrize(
    ("certificate", "key", "clients", "fault"),
    [
        ("none", None, None, r"\[sink\] tls_certificate: .*none.pem cannot be used: .*No such file"),
        ("authority", None, None, r"\[sink\] tls_certificate: .*authority.pem cannot be used"),
        ("gateway", "host", None, r"tls_certificate: .*gateway.pem and .*host.pem cannot be used: .*MISMATCH"),
        ("gateway", None, "none", r"\[sink\] tls_client_ca: .*none.pem cannot be used"),
        (None, "gateway", None, r"\[sink\] tls_key: .*gateway.pem is of no tls_certificate; set that too"),
        (None, None, "gateway", r"\[sink\] tls_client_ca: .*gateway.pem is of no tls_certificate"),
    ],
)
def test_what_cannot_be_shown_is_said_at_the_start(
    certificate: str | None, key: str | None, clients: str | None, fault: str
) -> None:
    paths = [CERTIFICATES / f"{name}.pem" if name else None for name in (certificate, key, clients)]
    with pytest.raises(SettingsError, match=fault):
        door_of("[sink]", *paths)


def test_a_key_may_be_in_the_same_file_or_another() -> None:
    assert door_of("[sink]", None, None, None) is None
    shown = CERTIFICATES / "gateway.pem"
    for key in (None, shown):
        door = door_of("[sink]", shown, key, None)
        assert door
        assert door.shown().chain == shown.read_bytes()


async def test_the_own_host_trusts_the_file_itself(tmp_path: Path) -> None:
    """Whatever name it is of; but no other certificate."""

    async def come(port: int, certificate: str) -> None:
        context = pinned("[sink]", CERTIFICATES / f"{certificate}.pem")
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with serving(tmp_path) as receiver:
        await come(receiver.http_port, "gateway")
        with pytest.raises(ssl.SSLCertVerificationError):
            await come(receiver.http_port, "lasting")
