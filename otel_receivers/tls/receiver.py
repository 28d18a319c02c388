"""Looks at the certificates of listeners, slowly, and tells at each tick how long they still hold.

The ticks come more often than the looks: what was seen is told again, for the alert rules know it by the last hour. A
listener that could not be looked at is looked at again at the next tick.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from otel_receivers.building import Context
from otel_receivers.points import Recorder, well_formed
from otel_receivers.receiver import Batch, Receiver, ScrapeError, Target, Tick
from otel_receivers.tls import handshake, parse
from otel_receivers.tls.handshake import Listener, listener_of
from otel_receivers.tls.parse import Certificate, CertificateError

_NANOS = 1_000_000_000
# Seconds from tick to tick at most.
_TICK_S = 300
_LOOPBACK = "127.0.0.1"
_SUBMISSION_PORTS = ("smtp", 587), ("tls", 465), ("tls", 443)
# The ports of IMAP and POP3, and those of WildDuck's own defaults.
_MAILBOX_PORTS = ("imap", 143), ("tls", 993), ("tls", 9993), ("pop3", 110), ("tls", 995), ("tls", 9995)


def build(context: Context) -> Sequence[Receiver]:
    """One receiver for each listener that the settings name, or one for what listens on this host."""
    listed = context.settings.discovery.tls_listeners
    if listed is None:
        return (CertificateReceiver(context, _usual(context)),)
    # Each once, however often it is named.
    listeners = {listener.target: listener for listener in map(listener_of, listed)}
    return [CertificateReceiver(context, (listener,), target) for target, listener in listeners.items()]


def _usual(context: Context) -> tuple[Listener, ...]:
    discovery = context.settings.discovery
    listeners = {
        Target(host, port): Listener(Target(host, port), protocol)
        for host, ports in (
            (_LOOPBACK, (("smtp", discovery.haraka_smtp_port), *_SUBMISSION_PORTS)),
            (discovery.wildduck_host, _MAILBOX_PORTS),
        )
        for protocol, port in ports
    }
    return tuple(listeners.values())


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at a listener gave; no certificate: it offers no TLS.

    Attributes:
        at: when it was, monotonic seconds.
    """

    certificate: Certificate | None
    at: float


class CertificateReceiver:
    """Listeners that are looked at together; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        context: the agent.
        listeners: which.
        target: the one that has to answer; None: those that are there, of all.
        timeout: seconds for a look.
    """

    def __init__(
        self,
        context: Context,
        listeners: Sequence[Listener],
        target: Target | None = None,
        *,
        timeout: float = handshake.TIMEOUT,
    ) -> None:
        self._declaration = context.declarations["tls"]
        self._every = context.settings.intervals.tls_certificates
        self.name = f"{self._declaration.type}@{target}" if target else self._declaration.type
        self.interval = min(self._every, _TICK_S)
        self.target = target
        self._resource = context.node.resource(self._declaration.service, target=target)
        self._listeners = listeners
        self._timeout = timeout
        self._looks: dict[Target, _Look] = {}

    async def collect(self, tick: Tick) -> Batch:
        """Tell what is known, after a look at what is due; see :class:`~otel_receivers.receiver.Receiver`."""
        recorder = Recorder(self._declaration, self._resource, tick)
        # Half a tick less, or the tick of the moment itself would often come a little too early.
        due = time.monotonic() - self._every + self.interval / 2
        looked = [one for one in self._listeners if one.target not in self._looks or self._looks[one.target].at < due]
        errors = filter(None, await asyncio.gather(*(self._look(listener) for listener in looked)))
        for error in errors:
            if self.target is not None:
                raise error
            # A port at which nobody listens is none of this host's listeners.
            if error.error_type != "connection":
                recorder.problem(error.error_type, str(error))
        for target, look in self._looks.items():
            if look.certificate is not None:
                recorder.number(
                    "tls_certificate_time_left",
                    look.certificate.not_after - tick.time_unix_nano // _NANOS,
                    {
                        "server.address": target.host,
                        "server.port": target.port,
                        "tls.certificate.name": well_formed(look.certificate.name),
                    },
                )
        return recorder.batch()

    async def close(self) -> None:
        """Nothing is held open."""

    async def _look(self, listener: Listener) -> ScrapeError | None:
        """Look at one; what was seen before is forgotten where nothing is seen now."""
        self._looks.pop(listener.target, None)
        try:
            der = await handshake.certificate(listener, timeout=self._timeout)
            shown = parse.read(der) if der is not None else None
        except CertificateError as error:
            return ScrapeError("certificate", f"{listener.protocol}://{listener.target}: what it shows {error}")
        except ScrapeError as error:
            return error
        if shown is None and self.target is not None:
            return ScrapeError("no_tls", f"{listener.protocol}://{listener.target}: offers no TLS")
        self._looks[listener.target] = _Look(shown, time.monotonic())
        return None
