"""A real Haraka on a free port of loopback, with plugins of the testbed that decide as addresses and headers say.

It keeps its port and its outbound queue over `stop`, `kill` and `start`. Sources named here are files of `Haraka`
3.3.4; 3.1.7, whose addresses are another package's, is started in the same way.
"""

from __future__ import annotations

import json
import shutil
import smtplib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.backends import listens
from testbed.program import Program
from testbed.rspamd import Rspamd

from support.node import Node
from support.older import soaked
from support.ports import free_port

NEWEST = "3.3.4"
RELEASES = {NEWEST: "haraka-3.3", "3.1.7": "haraka-3.1"}
"""Its versions, and the folders of `tests/testbed/npm` that pin them."""
OLDER_IN_SOAK = soaked(RELEASES, "3.1.7")
"""For a test beside which a quicker one runs on each of them."""

PLUGINS = Path(__file__).parent / "haraka_plugins"
WILDDUCK = "wildduck"
LMTP = "queue/lmtp"
DISCARD = "queue/discard"


class Haraka:
    """One instance: a process that does all, or a master and workers."""

    def __init__(
        self,
        folder: Path,
        *,
        node: Node,
        packages: Path,
        version: str = NEWEST,
        plugin: Path | None = None,
        plugin_settings: str = "",
        storage: str = WILDDUCK,
        lmtp_port: int | None = None,
        relay_port: int | None = None,
        rspamd: Rspamd | None = None,
        nodes: int = 0,
        max_bytes: int = 26_214_400,
        inactivity_s: int = 300,
        plugins: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Write the configuration; nothing starts yet.

        Args:
            folder: where configuration, queue and log lie; made when it is not there.
            node: what it runs on.
            packages: the folder whose `node_modules` hold it.
            version: the one that `packages` holds.
            plugin: Postel's plugin as it is packed; None: it is not loaded.
            plugin_settings: the text of `config/postel.ini`.
            storage: what stores: `WILDDUCK` (its stand-in), `LMTP` (to lmtp_port) or `DISCARD`.
            lmtp_port: where LMTP delivers to.
            relay_port: where mail from relay.test is relayed to.
            rspamd: what scans, by haraka-plugin-rspamd.
            nodes: workers; 0: one process does all.
            max_bytes: of a message; more is refused.
            inactivity_s: seconds after which it closes a silent connection.
            plugins: further plugins, before those that store.
            config: more files of `config/`, name -> text.
        """
        self.version = version
        self.port = free_port()
        self._folder = folder
        self._stored = folder / "stored.jsonl"
        config_folder = folder / "config"
        config_folder.mkdir(parents=True, exist_ok=True)
        (folder / "queue").mkdir(exist_ok=True)
        shutil.copytree(PLUGINS, folder / "plugins", dirs_exist_ok=True)
        if plugin:
            shutil.copytree(plugin, folder / "node_modules" / "haraka-plugin-postel")
        haraka = packages / "node_modules" / "Haraka"
        # It needs the whole file.
        connection = (haraka / "config" / "connection.ini").read_text()
        (config_folder / "connection.ini").write_text(connection.replace("\nbytes=26214400", f"\nbytes={max_bytes}"))
        loaded = [
            *(["postel"] if plugin else []),
            "judge",
            # WildDuck knows its recipients itself; the others take all of a host.
            *([] if storage == WILDDUCK else ["rcpt_to.in_host_list"]),
            *(["rspamd"] if rspamd else []),
            *plugins,
            storage,
        ]
        files = {
            "plugins": "\n".join(loaded),
            "smtp.ini": f"listen=127.0.0.1:{self.port}\nnodes={nodes}\ninactivity_timeout={inactivity_s}\n",
            "me": "mx.haraka.test\n",
            "log.ini": "[main]\nlevel=info\ntimestamps=true\n",
            "host_list": "here.test\n",
            "postel.ini": plugin_settings,
            "judge.ini": f"port={relay_port or 0}\n",
            "wildduck.ini": f"stored={self._stored}\n",
            "lmtp.ini": f"host=127.0.0.1\nport={lmtp_port or 24}\n",
            # The shortest that it takes.
            "outbound.ini": "temp_fail_intervals=5s,5s\nenable_tls=false\n",
            "rspamd.ini": self._rspamd_ini(rspamd),
            **(config or {}),
        }
        for name, text in files.items():
            (config_folder / name).write_text(text)
        self.program = Program(
            "haraka",
            [node.path, haraka / "bin" / "haraka", "-c", folder],
            folder / "haraka.log",
            environment={
                "NODE_COMPILE_CACHE": str(packages / ".compile-cache"),
                **({"YES_REALLY_DO_DISCARD": "1"} if storage == DISCARD else {}),
            },
        )

    def start(self) -> None:
        """Start it; returns when it greets.

        Raises:
            AssertionError: it does not within 30 s; the message ends with its log.
        """
        self.program.start(lambda: listens(self.port) and self._greets())

    def stop(self) -> None:
        """SIGTERM, of which it ends on the spot, as of a service manager's."""
        self.program.stop()

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        self.program.kill()

    def client(self, hello: str = "client.test") -> smtplib.SMTP:
        """A connection that has said EHLO; to be closed by the caller."""
        client = smtplib.SMTP("127.0.0.1", self.port, timeout=30)
        client.ehlo(hello)
        return client

    def stored(self) -> list[dict[str, Any]]:
        """What WildDuck's stand-in stored: id, recipient and size of each message and mailbox."""
        return [json.loads(line) for line in self._stored.read_text().splitlines()] if self._stored.exists() else []

    def queued(self) -> list[Path]:
        """The files of its outbound queue."""
        return [file for file in (self._folder / "queue").iterdir() if not file.name.startswith(".")]

    def _greets(self) -> bool:
        try:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=2) as client:
                return client.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False

    @staticmethod
    def _rspamd_ini(rspamd: Rspamd | None) -> str:
        # Loopback is not asked about by default.
        return f"port={rspamd.port if rspamd else 0}\nhost=127.0.0.1\n[check]\nlocal_ip=true\nprivate_ip=true\n"
