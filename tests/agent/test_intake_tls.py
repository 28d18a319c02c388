"""The agent's intake over TLS: what it shows and wants to see, what stays plain, and what is not opened at all.

The certificates are described in `support.gateway`; what a listener's files do is of tests/otlp/test_tls_door.py.
"""

from __future__ import annotations

import contextlib
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from otel_receivers.agent import Collecting
from otel_receivers.epochs import Epochs
from otel_receivers.intake import Intake, serving
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.spool import Spool
from postel.errors import PostelError, SettingsError
from postel.otlp import tls_door
from postel.settings import Intake as IntakeSettings
from postel.settings import Settings
from support.gateway import AUTHORITY
from support.ports import free_port
from support.tls_listeners import CERTIFICATES

EVENT = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "one"}}]}]}]}
GATEWAY, HOST = CERTIFICATES / "gateway.pem", CERTIFICATES / "host.pem"


class NoAnswerError(Exception):
    """No TLS came about, or it ended before an answer."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_door, "_LOOK_SECONDS", 0.0)


@asynccontextmanager
async def listening(host: str = "127.0.0.1", **settings: Any) -> AsyncIterator[str]:
    """An intake with all its doors; the address at which this host reaches it."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        own = IntakeSettings(address=f"{host}:{free_port()}", **settings)
        whole = Settings(data_dir=data, intake=own)
        node = identify(data, setting="node-1")
        spool = await Spool.open(data, max_bytes=1 << 20, max_age=60)
        intake = Intake(node, spool, Privacy("keep"), request_bytes=1 << 20)
        doors = Collecting(whole, node, Epochs()).doors(lambda _: [], intake)
        try:
            async with serving(whole, intake, doors):
                yield f"localhost:{own.address.rpartition(':')[2]}"
        finally:
            await spool.close()


async def post(url: str, shown: str | None = None, path: str = "/v1/logs", **headers: str) -> int:
    """The status that a sender gets who trusts the tests' authority.

    Raises:
        NoAnswerError: it gets none.
    """
    trusting = ssl.create_default_context(cafile=AUTHORITY)
    if shown:
        trusting.load_cert_chain(CERTIFICATES / f"{shown}.pem")
    try:
        async with httpx.AsyncClient(verify=trusting, trust_env=False, headers=headers) as http:
            return (await http.post(f"{url}{path}", json=EVENT)).status_code
    except (httpx.TransportError, ssl.SSLError) as error:
        raise NoAnswerError(str(error)) from error


async def test_it_shows_a_certificate_and_renews_it_without_a_restart(tmp_path: Path) -> None:
    shown = tmp_path / "shown.pem"
    shutil.copyfile(CERTIFICATES / "gateway-expired.pem", shown)
    with capture_logs() as log:
        async with listening(tls_certificate=shown) as address:
            with pytest.raises(NoAnswerError, match="certificate has expired"):
                await post(f"https://{address}")
            shutil.copyfile(GATEWAY, shown)
            assert await post(f"https://{address}") == 200
            with pytest.raises(NoAnswerError, match=r"disconnected|Reset|^$"):
                await post(f"http://{address}")
    said = {line["event"]: line for line in log}
    assert said["the intake listens"]["tls"]
    assert said["a new certificate is shown"]["certificate"] == str(shown)
    reasons = [line["reason"] for line in log if "refused connections" in line["event"] and line["at"] == "[intake]"]
    assert any("http request" in reason for reason in reasons)


async def test_it_asks_for_certificates_where_it_has_an_authority() -> None:
    with capture_logs() as log:
        async with listening(tls_certificate=GATEWAY, tls_key=GATEWAY, tls_client_ca=AUTHORITY) as address:
            for shown in (None, "host-expired", "lasting"):
                with pytest.raises(NoAnswerError):
                    await post(f"https://{address}", shown)
            assert await post(f"https://{address}", "host") == 200
    reasons = " ".join(line["reason"] for line in log if line["event"].startswith("refused connections"))
    assert "peer did not return a certificate" in reasons
    assert "certificate has expired" in reasons


async def test_beyond_loopback_it_wants_a_token_or_certificates() -> None:
    for settings in ({}, {"tls_certificate": GATEWAY}):
        with pytest.raises(
            PostelError, match=r"0\.0\.0\.0:\d+ is open to other hosts: set \[intake\] token, or tls_cl"
        ):
            async with listening("0.0.0.0", **settings):  # noqa: S104 - it is not opened
                pass
    async with listening("0.0.0.0", tls_certificate=GATEWAY, tls_client_ca=AUTHORITY) as address:  # noqa: S104
        assert await post(f"https://{address}", "host") == 200
    token = SecretStr("t")
    async with listening("0.0.0.0", tls_certificate=GATEWAY, tls_client_ca=AUTHORITY, token=token) as address:  # noqa: S104
        # Who asks for both is shown both.
        assert await post(f"https://{address}", "host") == 401
        assert await post(f"https://{address}", "host", authorization="Bearer t") == 200


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"tls_key": GATEWAY}, r"\[intake\] tls_key: .*gateway.pem is of no tls_certificate; set that too"),
        ({"tls_client_ca": AUTHORITY}, r"\[intake\] tls_client_ca: .*authority.pem is of no tls_certificate"),
        ({"tls_certificate": AUTHORITY}, r"\[intake\] tls_certificate: .*authority.pem cannot be used"),
    ],
)
async def test_files_that_do_not_fit_are_said_before_anything_listens(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        async with listening(**settings):
            pass


async def test_its_unix_socket_stays_plain(tmp_path: Path) -> None:
    """Who may come there is said by its rights, and nothing leaves the host."""
    path = tmp_path / "intake.sock"
    async with listening(tls_certificate=GATEWAY, tls_client_ca=AUTHORITY, socket=path) as address:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as http:
            assert (await http.post("http://localhost/v1/logs", json=EVENT)).status_code == 200
        assert await post(f"https://{address}", "host") == 200
        with pytest.raises(NoAnswerError):
            await post(f"https://{address}")
    assert not path.exists()


@pytest.mark.parametrize(("tls", "status"), [(False, 400), (True, 200)])
async def test_a_name_that_points_here_is_taken_where_a_certificate_speaks_for_it(*, tls: bool, status: int) -> None:
    """WildDuck's webhook, which asks by the name that the certificate is of."""
    event = {"id": "1:1", "time": 1768471201234, "ev": "user.created", "user": "69255d6f4f2f6d6a1c3f8f01"}
    context = ssl.create_default_context(cafile=AUTHORITY)
    settings: dict[str, Any] = {"tls_certificate": GATEWAY} if tls else {}
    async with (
        listening(**settings) as address,
        httpx.AsyncClient(verify=context, trust_env=False, headers={"Host": "mail.example.org:4319"}) as http,
    ):
        url = f"{'https' if tls else 'http'}://{address}/wildduck/webhook"
        assert (await http.post(url, json=event)).status_code == status
        # A page of another origin is refused all the same.
        assert (await http.post(url, json=event, headers={"Origin": "https://evil.example"})).status_code == (
            403 if tls else 400
        )


async def test_a_flood_at_the_address_leaves_the_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "intake.sock"
    async with listening(connections=10, socket=path) as address, contextlib.AsyncExitStack() as stack:
        # By itself it gives a connection up after 5 s, which is what the rest takes on a busy machine.
        transport = httpx.AsyncHTTPTransport(uds=str(path), limits=httpx.Limits(keepalive_expiry=None))
        plugin = await stack.enter_async_context(httpx.AsyncClient(transport=transport))
        assert (await plugin.post("http://localhost/v1/logs", json=EVENT)).status_code == 200
        for _ in range(30):
            many = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            assert (await many.post(f"http://{address}/v1/logs", json=EVENT)).status_code == 200
        (kept,) = transport._pool.connections
        assert not kept.has_expired()
        assert (await plugin.post("http://localhost/v1/logs", json=EVENT)).status_code == 200
        assert transport._pool.connections == [kept]
