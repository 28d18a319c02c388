"""What a listener of ours shows of itself over TLS, and whose certificates it wants to see; renewed without a restart.

Contract: files that are changed are read anew by a later handshake, all of them together. Files that do not fit each
other, or are none, change nothing: a line in the log says so, and what was shown before is shown on. Whoever fails in a
handshake is in the log too.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from postel.errors import SettingsError
from postel.log import Throttle
from postel.otlp.tls_files import Stamp, stamp_of

# The files are not looked at more often, however many connect.
_LOOK_SECONDS = 1.0
# And this often where nobody does: who renews a certificate hears soon that it is of no use.
_WATCH_SECONDS = 60.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Shown:
    """What the files held when they were read.

    Attributes:
        context: for connections, without a way to renewed files.
        chain: the certificate and those of its issuers, PEM.
        key: of the certificate, PEM.
        clients: whose certificates are asked for, PEM; None: nobody's.
    """

    context: ssl.SSLContext
    chain: bytes
    key: bytes
    clients: bytes | None


class TlsDoor:
    """The files of one listener, or of several that show the same.

    Args:
        section: of the settings, such as ``[sink]``, for messages.
        certificate: that is shown, and those of its issuers, PEM.
        key: of it, PEM; None: it is in the same file.
        clients: the authority whose certificates senders must show, PEM; None: they need none.

    Raises:
        SettingsError: a file cannot be read, or they do not fit each other.
    """

    def __init__(self, section: str, certificate: Path, key: Path | None = None, clients: Path | None = None) -> None:
        self._section = section
        self._certificate = certificate
        self._key = key or certificate
        self._clients = clients
        self._refused: defaultdict[str, Throttle] = defaultdict(Throttle)
        # gRPC asks from threads of its own.
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._stamp, self._shown = self._read()

    @property
    def wants_certificates(self) -> bool:
        """Whether senders must show one."""
        return self._clients is not None

    def shown(self) -> Shown:
        """What is shown now: what the files hold, as far as that can be used."""
        with self._lock:
            if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
                self._looked_at = time.monotonic()
                self._renew()
            return self._shown

    def context(self) -> ssl.SSLContext:
        """A context for a server, which shows what :meth:`shown` is at each handshake."""
        refuse = self._refuse

        class Heard(ssl.SSLObject):
            """Says why a handshake failed: asyncio says it to nobody."""

            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    refuse(error)
                    raise

        made = self._made()
        made.sslobject_class = Heard
        # Called in each handshake, also where the client names no server, before a certificate is chosen.
        made.sni_callback = self._choose
        return made

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at the files now and then within the block, also while nobody connects."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            await asyncio.to_thread(self.shown)

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self.shown().context

    def _refuse(self, error: ssl.SSLError) -> None:
        # OpenSSL has a word for each reason, so these are few.
        if count := self._refused[error.reason or ""]():
            reason = re.sub(r" \(_ssl\.c:\d+\)$", "", error.strerror or str(error))
            _log.warning("refused connections: no TLS came about", connections=count, reason=reason, at=self._section)

    def _renew(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._stamp, self._shown = self._read()
        except SettingsError as error:
            _log.error("the certificate of before is still shown: the new one cannot be used", reason=str(error))
        else:
            _log.info("a new certificate is shown", certificate=str(self._certificate))

    def _stamp_now(self) -> Stamp:
        return stamp_of(self._certificate, self._key, self._clients)

    def _read(self) -> tuple[Stamp, Shown]:
        """Read all of the files.

        Raises:
            SettingsError: one cannot be used, or is written at this moment.
        """
        stamp = self._stamp_now()
        context = self._made()
        try:
            chain, key = self._certificate.read_bytes(), self._key.read_bytes()
            clients = self._clients.read_bytes() if self._clients else None
        except OSError as error:
            raise SettingsError(f"{self._section} tls_certificate: {error}") from None
        if self._stamp_now() != stamp:
            raise SettingsError(f"{self._section} tls_certificate: {self._certificate} is being written")
        return stamp, Shown(context, chain, key, clients)

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # A session that is taken up again shows no certificate: one that has expired since, or whose authority is gone,
        # would go on being taken. TLS 1.2 knows sessions by ids too, and Python has no switch for OpenSSL's store.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        if self._clients:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            # A key with a password would be asked for at the terminal; so it cannot be used.
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            names = " and ".join(dict.fromkeys((str(self._certificate), str(self._key))))
            raise SettingsError(f"{self._section} tls_certificate: {names} cannot be used: {error}") from None
        if self._clients:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._clients)
            except OSError as error:
                raise SettingsError(f"{self._section} tls_client_ca: {self._clients} cannot be used: {error}") from None
        return context


def door_of(section: str, certificate: Path | None, key: Path | None, clients: Path | None) -> TlsDoor | None:
    """The door of a section's settings; None: it has no TLS.

    Raises:
        SettingsError: as of :class:`TlsDoor`, or what belongs to a certificate is set without one.
    """
    if certificate is not None:
        return TlsDoor(section, certificate, key, clients)
    for name, path in (("tls_key", key), ("tls_client_ca", clients)):
        if path is not None:
            raise SettingsError(f"{section} {name}: {path} is of no tls_certificate; set that too")
    return None


def pinned(
    section: str, certificate: Path | None, shown: Path | None = None, shown_key: Path | None = None
) -> ssl.SSLContext:
    """A context of a client on the server's own host: it trusts this certificate alone, whatever name it is of.

    Args:
        section: of the settings, for messages.
        certificate: of the server; None: it has no TLS, and the context trusts nobody.
        shown: that the client shows; None: none.
        shown_key: of it; None: it is in the same file.

    Raises:
        SettingsError: one cannot be used.
    """
    if certificate is None:
        # Nothing has to be loaded for what is not used.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context = ssl.create_default_context(cafile=certificate)
    except OSError as error:
        raise SettingsError(f"{section} tls_certificate: {certificate} cannot be used: {error}") from None
    # No authority stands above it here.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    if shown:
        try:
            context.load_cert_chain(shown, shown_key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise SettingsError(f"{section} tls_client_certificate: {shown} cannot be used: {error}") from None
    return context
