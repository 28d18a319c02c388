"""Scrapes a Zone-MTA: HTTP here, meaning in :mod:`otel_receivers.zone_mta.parse`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from otel_receivers.building import Context
from otel_receivers.epochs import Epochs
from otel_receivers.http_page import PAGE_BYTES, TIMEOUT, ScrapedPage
from otel_receivers.node import Node
from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, Receiver, Target, Tick
from otel_receivers.zone_mta import parse
from otel_receivers.zone_mta.instance import resource_of
from otel_receivers.zone_mta.queue import ZoneMtaQueueReceiver
from postel.signals import Declaration


def build(context: Context, target: Target) -> Sequence[Receiver]:
    """The receivers of a Zone-MTA: its own page, and its queue by zones."""
    declaration = context.declarations["zone_mta"]
    discovery, intervals = context.settings.discovery, context.settings.intervals
    page = ZoneMtaReceiver(
        declaration,
        context.node,
        context.epochs,
        interval=intervals.zone_mta_prometheus,
        target=target,
        path=discovery.zone_mta_metrics_path,
        queue_id=discovery.zone_mta_queue_id,
        name=context.name(declaration.type),
    )
    queue = ZoneMtaQueueReceiver(
        declaration,
        resource_of(declaration, context.node, target, discovery.zone_mta_queue_id),
        interval=intervals.zone_mta_queue,
        target=target,
        name=context.name(f"{declaration.type}_queue"),
    )
    return page, queue


class ZoneMtaReceiver:
    """One Zone-MTA instance; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``zone_mta``.
        node: who asks.
        epochs: of the agent.
        interval: seconds.
        target: where its API listens.
        path: of its Prometheus page.
        queue_id: names the queue that instances with one database share; None: this instance's alone.
        name: of the receiver; None: the source's.
        timeout: seconds for a whole page.
        page_bytes: of a page at most.
    """

    def __init__(
        self,
        declaration: Declaration,
        node: Node,
        epochs: Epochs,
        *,
        interval: int,
        target: Target,
        path: str = "/metrics",
        queue_id: str | None = None,
        name: str | None = None,
        timeout: float = TIMEOUT,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.name = name or declaration.type
        self.interval = interval
        self.target: Target | None = target
        self._declaration = declaration
        self._epochs = epochs
        self._source = f"{self.name}/{target}"
        self._resource = resource_of(declaration, node, target, queue_id)
        self._page = ScrapedPage(f"http://{target}{path}", timeout=timeout, limit=page_bytes)

    async def collect(self, tick: Tick) -> Batch:
        """Scrape once; see :class:`~otel_receivers.receiver.Receiver`."""
        return await self._page.read(partial(self._read, tick))

    async def close(self) -> None:
        """Close the connection."""
        await self._page.close()

    def _read(self, tick: Tick, body: bytes) -> Batch:
        reading = parse.read(body, self._declaration)
        recorder = Recorder(self._declaration, self._resource, tick)
        parse.record(reading, recorder, self._epochs, source=self._source, tick=tick)
        return recorder.batch()
