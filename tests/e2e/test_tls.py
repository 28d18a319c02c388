"""`postel up` whose intake, sink and page are reached over TLS, intake and sink by who shows a certificate."""

from __future__ import annotations

import json
import shutil
import ssl
import time
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from postel.collector import find_collector
from support.gateway import AUTHORITY
from support.requirements import require
from support.running_postel import running, until
from support.tls_listeners import CERTIFICATES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


# The shorter way is seen by `make soak`.
@pytest.mark.parametrize(
    "collector", [pytest.param(True, id="collector"), pytest.param(False, id="straight", marks=pytest.mark.soak)]
)
def test_all_of_it_over_tls(tmp_path: Path, *, collector: bool) -> None:
    require("collector", available=find_collector() is not None)
    shown = tmp_path / "shown.pem"
    shutil.copyfile(CERTIFICATES / "gateway.pem", shown)
    variables = {
        "POSTEL_INTERVALS__SYSTEM_METRICS": "1",
        "POSTEL_INTERVALS__SEND_METRICS": "1",
        "POSTEL_INTAKE__TLS_CERTIFICATE": str(shown),
        "POSTEL_INTAKE__TLS_CLIENT_CA": str(AUTHORITY),
        "POSTEL_SINK__TLS_CERTIFICATE": str(shown),
        "POSTEL_SINK__TLS_CLIENT_CA": str(AUTHORITY),
        "POSTEL_SINK__TLS_CA": str(AUTHORITY),
        "POSTEL_SINK__TLS_CLIENT_CERTIFICATE": str(CERTIFICATES / "host.pem"),
        "POSTEL_SERVE__TLS_CERTIFICATE": str(shown),
        **({} if collector else {"POSTEL_COLLECTOR": "none"}),
    }
    trusting = ssl.create_default_context(cafile=AUTHORITY)
    plugin = ssl.create_default_context(cafile=AUTHORITY)
    plugin.load_cert_chain(CERTIFICATES / "host.pem")
    with running(tmp_path, **variables) as postel:
        until(lambda: postel.rows_of_host() >= 2, 90, "rows in metrics_system")
        page = postel.page.replace("http://", "https://")
        until(lambda: page in postel.log.read_text(), 20, "the page's address in the log")
        assert httpx.get(page, verify=trusting, timeout=20).status_code == httpx.codes.OK
        with connect(f"{page.replace('https', 'wss')}api/v1/live", ssl=trusting) as live:
            live.send('{"type": "events", "id": "e", "table": "email_events"}')
            assert json.loads(live.recv(10))["type"] == "subscribed"
        with pytest.raises(httpx.TransportError):
            httpx.get(postel.page)

        # What a plugin sends goes all of the way.
        intake = f"https://127.0.0.1:{postel.ports['intake']}/v1/logs"
        record = {"eventName": "test.over_tls", "timeUnixNano": str(time.time_ns())}
        event = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
        assert httpx.post(intake, json=event, verify=plugin).status_code == httpx.codes.OK
        until(lambda: postel.query("SELECT 1 FROM otel_log WHERE event_name = 'test.over_tls'"), 60, "the event")

        # Who shows no certificate is refused, and the sink's log says why.
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://127.0.0.1:{postel.ports['sink_http']}/readyz", verify=trusting)
        until(lambda: "peer did not return a certificate" in postel.log.read_text(), 10, "the sink's line")

        said = postel.command("doctor").stdout
        for address in (f"https://127.0.0.1:{postel.ports['sink_http']}/readyz", f"{page}healthz"):
            assert f"{address} answers" in said, said
        if collector:
            assert postel.pid("collector")
        else:
            assert "straight to the sink" in postel.log.read_text()
