"""A real Rspamd on free ports of loopback, with its distribution's own rules, that asks no DNS and scans in 2 ms.

It keeps its ports and what it counted over `stop` and `start`, as on a real host. Sources named here are files of
Rspamd 3.4.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

import httpx
from testbed.program import Program

from support.ports import free_ports

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""A line that makes any message spam: rejected, before a rule is asked."""

PASSWORD = "testbed-password"  # noqa: S105 - of servers that live for one test

# Modules that ask DNS or the network, and those whose lists are of no use without.
_ASKING = (
    *("arc", "asn", "dkim", "dkim_signing", "dmarc", "fuzzy_check", "hfilter", "mx_check", "once_received"),
    *("phishing", "rbl", "spf", "url_redirector", "whitelist"),
)
# Of the 9628 suffixes of the distribution's list a compilation would be made at each first start, for 10 s.
_SUFFIXES = "com\nnet\norg\nexample\ntest\n"


def message(body: str, sender: str = "a@example.org", recipient: str = "b@example.org") -> str:
    """A message that the rules find nothing to blame in, but for its body; no two have one id."""
    headers = {
        "Date": formatdate(),
        "Message-ID": make_msgid(domain="example.org"),
        "From": sender,
        "To": recipient,
        "Subject": "A message of the testbed",
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "7bit",
    }
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + f"\r\n{body}\r\n"


class Rspamd:
    """One instance: a scanner and a controller."""

    def __init__(
        self,
        folder: Path,
        *,
        program: Path,
        redis: tuple[int, int] | None = None,
        trusts_loopback: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Write the configuration; nothing starts yet.

        Args:
            folder: where configuration, data and log lie; made when it is not there.
            program: Rspamd itself.
            redis: port and number of the Redis database that learned messages go to; None: it cannot learn.
            trusts_loopback: whether the controller answers without a password, as the distribution sets it up.
            settings: more files of `override.d`, name -> text, such as `{"actions.conf": "reject = 8;"}`.
        """
        self.port, self.controller_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.controller_url = f"http://127.0.0.1:{self.controller_port}"
        self._folder = folder
        data = folder / "data"
        for name, text in {**self._configuration(redis, trusts_loopback=trusts_loopback), **(settings or {})}.items():
            path = folder / "override.d" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (folder / "suffixes.dat").write_text(_SUFFIXES)
        data.mkdir()
        variables = {"LOCAL_CONFDIR": folder, "DBDIR": data, "LOGDIR": data, "RUNDIR": data}
        self.program = Program(
            "rspamd",
            [
                # --insecure: as root its workers would change to a user who may not write here.
                *(program, "--no-fork", "--insecure", "--config", "/etc/rspamd/rspamd.conf"),
                *(f"--var={name}={value}" for name, value in variables.items()),
            ],
            folder / "rspamd.log",
        )
        self._client = httpx.Client(headers={"Password": PASSWORD}, timeout=30, trust_env=False)

    def start(self) -> None:
        """Start it; returns when scanner and controller answer.

        Raises:
            AssertionError: it is not ready within 60 s; the message ends with its log.
        """
        self.program.start(self._is_ready, 60)

    def stop(self) -> None:
        """SIGTERM: what it counted is stored."""
        self.program.stop()

    def kill(self) -> None:
        """SIGKILL: what it counted since it last stored that, at the minute, is lost."""
        self.program.kill()

    def close(self) -> None:
        """Kill it and let go of its connections."""
        self.kill()
        self._client.close()

    def forget(self) -> None:
        """While it is stopped: away with all that it counted, as after a new installation."""
        shutil.rmtree(self._folder / "data")
        (self._folder / "data").mkdir()

    def scan(self, text: str, **headers: str) -> dict[str, Any]:
        """What `/checkv2` of the scanner says of a message.

        Args:
            text: as it came, header and body.
            headers: of the request, `IP="192.0.2.1"`, `From="a@example.org"` (the envelope's).
        """
        return dict(self._ask("POST", f"{self.url}/checkv2", text, headers))

    def learn(self, text: str, *, spam: bool) -> None:
        """Teach the classifier a message; httpx.HTTPStatusError where it refuses, as one that it knows already."""
        self._ask("POST", f"{self.controller_url}/learn{'spam' if spam else 'ham'}", text, {})

    def ask(self, path: str) -> Any:
        """A JSON answer of the controller: `/stat`, `/counters`, `/statreset`."""
        return self._ask("GET", f"{self.controller_url}{path}")

    def metrics_page(self) -> bytes:
        """The body of the controller's `GET /metrics`."""
        return self._client.get(f"{self.controller_url}/metrics").raise_for_status().content

    def _ask(self, method: str, url: str, text: str | None = None, headers: Mapping[str, str] | None = None) -> Any:
        return self._client.request(method, url, content=text, headers=headers).raise_for_status().json()

    def _is_ready(self) -> bool:
        try:
            pings = [self._client.get(f"{url}/ping", timeout=2) for url in (self.url, self.controller_url)]
        except httpx.TransportError:
            return False
        return all(answer.is_success for answer in pings)

    def _configuration(self, redis: tuple[int, int] | None, *, trusts_loopback: bool) -> dict[str, str]:
        options = f"""
            filters = "chartable,regexp";
            url_tld = "{self._folder}/suffixes.dat";
            disable_hyperscan = true;
            dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; sockets = 1; }}
            # How many hits each symbol had is added up this often; the distribution's is a minute.
            cache_reload = 1s;
            # Loopback is as foreign as any other address, so that mail from there is judged.
            local_addrs = [];
        """
        trusted = '"127.0.0.1"' if trusts_loopback else ""
        files = {
            "options.inc": options,
            "logging.inc": 'type = "console";\nlevel = "info";\n',
            "worker-normal.inc": f'bind_socket = "127.0.0.1:{self.port}";\ncount = 1;\n',
            "worker-controller.inc": (
                f'bind_socket = "127.0.0.1:{self.controller_port}";\ncount = 1;\npassword = "{PASSWORD}";\n'
                f"secure_ip = [{trusted}];\n"
            ),
            "worker-proxy.inc": "enabled = false;\ncount = -1;\n",
            **{f"{module}.conf": "enabled = false;\n" for module in _ASKING},
        }
        if redis is not None:
            port, number = redis
            files["classifier-bayes.conf"] = (
                f'backend = "redis";\nservers = "127.0.0.1:{port}";\ndb = "{number}";\nmin_learns = 1;\n'
            )
        return files
