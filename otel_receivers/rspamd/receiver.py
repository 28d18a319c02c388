"""Asks Rspamd's controller: HTTP here, meaning in :mod:`otel_receivers.rspamd.parse` and ``record``.

``/stat`` is what must be had. The page (which Rspamd has since 3.0) and the symbols are asked for after it, and where
one of them fails the rest stands. The password is shown to nobody whose header does not say Rspamd at that tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from otel_receivers import page_points
from otel_receivers.building import Context
from otel_receivers.epochs import Epochs
from otel_receivers.http_page import PAGE_BYTES, TIMEOUT, ScrapedPage, StatusError, client, server_header
from otel_receivers.node import Node
from otel_receivers.patience import REFUSED, Patience
from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, Receiver, ScrapeError, Target, Tick
from otel_receivers.rspamd import parse, record
from otel_receivers.rspamd.symbols import OwnHits
from postel.signals import Declaration

_NOT_FOUND = "404"
_ELSEWHERE = {"301", "302", "303", "307", "308", "404", "405"}
# Of the interval, for each of four questions.
_SHARE = 0.2


def build(context: Context, target: Target) -> Sequence[Receiver]:
    """The receiver of an Rspamd's controller."""
    password = context.settings.discovery.rspamd_password
    receiver = RspamdReceiver(
        context.declarations["rspamd"],
        context.node,
        context.epochs,
        interval=context.settings.intervals.rspamd_controller,
        target=target,
        password=password.get_secret_value() if password else None,
    )
    return (receiver,)


class RspamdReceiver:
    """One Rspamd instance; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``rspamd``.
        node: who asks.
        epochs: of the agent.
        interval: seconds.
        target: where its controller listens.
        password: of the controller; None: it asks for none.
        timeout: seconds for a whole answer.
        page_bytes: of an answer at most.
    """

    def __init__(
        self,
        declaration: Declaration,
        node: Node,
        epochs: Epochs,
        *,
        interval: int,
        target: Target,
        password: str | None = None,
        timeout: float = TIMEOUT,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.name = declaration.type
        self.interval = interval
        self.target: Target | None = target
        self._declaration = declaration
        self._epochs = epochs
        self._source = f"{declaration.type}/{target}"
        self._resource = node.resource(declaration.service, target=target)
        self._base = f"http://{target}"
        self._timeout = min(timeout, interval * _SHARE)
        self._patience = Patience(interval)
        self._own_hits = OwnHits()
        self._without_password = client() if password else None
        headers = {"Accept": "*/*", **({"Password": password} if password else {})}
        self._stat, self._metrics, self._counters = (
            ScrapedPage(f"{self._base}/{name}", timeout=self._timeout, limit=page_bytes, headers=headers)
            for name in ("stat", "metrics", "counters")
        )

    async def collect(self, tick: Tick) -> Batch:
        """Ask once; see :class:`~otel_receivers.receiver.Receiver`."""
        self._patience.check()
        await self._recognise()
        recorder = Recorder(self._declaration, self._resource, tick)

        def read_stat(body: bytes) -> None:
            said = parse.stat(body)
            record.stat(said, recorder, self._declaration, self._epochs, source=self._source, tick=tick)

        def read_metrics(body: bytes) -> None:
            page = parse.page(body, self._declaration)
            page_points.record(page.points, page.problems, recorder, {})

        def read_counters(body: bytes) -> None:
            hits = self._own_hits.tell(parse.counters(body))
            record.symbols(hits, recorder, self._epochs, source=self._source, tick=tick)

        try:
            await self._stat.read(read_stat)
        except StatusError as error:
            raise self._said(error) from None
        self._patience.answered()
        await self._also(self._metrics, read_metrics, recorder)
        await self._also(self._counters, read_counters, recorder)
        return recorder.batch()

    async def close(self) -> None:
        """Close the connections."""
        for each in (self._stat, self._metrics, self._counters):
            await each.close()
        if self._without_password is not None:
            await self._without_password.aclose()

    async def _recognise(self) -> None:
        """Before the password is shown."""
        if self._without_password is None:
            return
        url = f"{self._base}/ping"
        server = await server_header(self._without_password, url, timeout=self._timeout)
        if not server.startswith("rspamd"):
            raise ScrapeError(
                "unrecognised",
                f"{url}: the answer's header does not say Rspamd, so that it is not shown the password; see [discovery]"
                " rspamd_controller_port",
            )

    async def _also(self, page: ScrapedPage, read: Callable[[bytes], None], recorder: Recorder) -> None:
        try:
            await page.read(read)
        except ScrapeError as error:
            # Before 3.0 there was no page.
            if page is not self._metrics or error.error_type != _NOT_FOUND:
                recorder.problem(error.error_type, str(error))

    def _said(self, error: StatusError) -> ScrapeError:
        message = str(error)
        if error.error_type in REFUSED:
            refusal = ScrapeError(
                error.error_type, f"{message}; set [discovery] rspamd_password to the password of its controller"
            )
            self._patience.refused(refusal)
            return refusal
        if error.error_type in _ELSEWHERE:
            message += "; if that is no Rspamd, see [discovery] rspamd_controller_port"
        return ScrapeError(error.error_type, message)
