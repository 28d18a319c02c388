"""The real Collector as a gateway, and as what sends to one from a host: the shipped files over agent.yaml.

Certificates are those of `certificates/`, made with OpenSSL by one authority whose key is gone: `gateway` and
`gateway-expired` for localhost and 127.0.0.1, `host` and `host-expired` for who sends. The expired ones ended on 1
April 2020, the others end with the year 2125.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from postel.collector import collector_config
from support.collector import Collector
from support.tls_listeners import CERTIFICATES

AUTHORITY = CERTIFICATES / "authority.pem"
TOKEN = "token-of-the-hosts"  # noqa: S105 - a test's


class Gateway(Collector):
    """A gateway with copies of its files, which a test may exchange.

    Args:
        program: the Collector.
        folder: for all that it keeps; made.
        sink_port: of the sink's gRPC on loopback.
        mtls: whether it wants certificates of senders in place of tokens.
        vendor: the endpoint of a second backend.
    """

    def __init__(
        self, program: Path, folder: Path, sink_port: int, *, mtls: bool = False, vendor: str | None = None
    ) -> None:
        folder.mkdir()
        super().__init__(program, folder, sink_port)
        self.files = [collector_config("gateway.yaml")]
        if mtls:
            self.files.append(collector_config("gateway-mtls.yaml"))
        if vendor:
            self.files.append(collector_config("vendor.yaml"))
            self.environment["POSTEL_VENDOR"] = vendor
        self.certificate = folder / "tls.pem"
        self.tokens = folder / "tokens"
        self.grpc_port = int(self.environment["POSTEL_COLLECTOR_GRPC"].rpartition(":")[2])
        self.http_port = int(self.url.rpartition(":")[2])
        self.environment |= {
            "POSTEL_GATEWAY_CERTIFICATE": str(self.certificate),
            "POSTEL_GATEWAY_KEY": str(self.certificate),
            "POSTEL_GATEWAY_TOKENS": str(self.tokens),
            "POSTEL_GATEWAY_CLIENT_CA": str(AUTHORITY),
            "POSTEL_NODE__ID": "gateway-1",
        }
        self.show("gateway")
        self.tokens.write_text(f"{TOKEN} of all hosts\n")

    def show(self, certificate: str) -> None:
        """Put that certificate in place."""
        shutil.copyfile(CERTIFICATES / f"{certificate}.pem", self.certificate)

    def spawn(self, *overrides: str, files: Sequence[Path] = ()) -> None:
        """As :meth:`Collector.spawn`, with its own files before ``files``."""
        super().spawn(*overrides, files=[*self.files, *files])


def send_to(
    collector: Collector, gateway: Gateway, *, token: str = TOKEN, certificate: str | None = None
) -> list[Path]:
    """Let a host's Collector send to a gateway.

    Args:
        collector: of the host; its environment is changed.
        gateway: where it sends.
        token: that it shows.
        certificate: that it shows in place of the token.

    Returns:
        The files to start it with.
    """
    shown = collector.storage.with_name("token")
    shown.write_text(f"{token}\n")
    collector.environment |= {
        "POSTEL_GATEWAY": f"localhost:{gateway.grpc_port}",
        "POSTEL_GATEWAY_CA": str(AUTHORITY),
        "POSTEL_GATEWAY_TOKEN": str(shown),
    }
    files = [collector_config("to-gateway.yaml")]
    if certificate:
        path = str(CERTIFICATES / f"{certificate}.pem")
        collector.environment |= {"POSTEL_GATEWAY_CLIENT_CERTIFICATE": path, "POSTEL_GATEWAY_CLIENT_KEY": path}
        files.append(collector_config("to-gateway-mtls.yaml"))
    return files
