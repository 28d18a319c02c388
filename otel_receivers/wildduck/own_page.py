"""Scrapes WildDuck's own Prometheus page, where that is on: HTTP here, meaning in ``parse``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from otel_receivers import page_points
from otel_receivers.building import Context
from otel_receivers.epochs import Epochs, Life
from otel_receivers.http_page import PAGE_BYTES, TIMEOUT, ScrapedPage
from otel_receivers.node import Node
from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, Receiver, Target, Tick
from otel_receivers.wildduck import parse
from postel.signals import Declaration


def build(context: Context, target: Target) -> Sequence[Receiver]:
    """The receiver of a WildDuck's own page."""
    receiver = MetricsReceiver(
        context.declarations["wildduck"],
        context.node,
        context.epochs,
        interval=context.settings.intervals.wildduck_prometheus,
        target=target,
        api=lambda: context.where("wildduck"),
    )
    return (receiver,)


class MetricsReceiver:
    """The Prometheus page of one WildDuck; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``wildduck``.
        node: who asks.
        epochs: of the agent.
        interval: seconds.
        target: where the page is.
        api: where the same WildDuck's API listens, which names the instance in all that is said of it.
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
        api: Callable[[], Target | None],
        timeout: float = TIMEOUT,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.name = f"{declaration.type}_metrics"
        self.interval = interval
        self.target: Target | None = target
        self._declaration = declaration
        self._node = node
        self._epochs = epochs
        self._api = api
        self._page = ScrapedPage(f"http://{target}/metrics", timeout=timeout, limit=page_bytes)

    async def collect(self, tick: Tick) -> Batch:
        """Scrape once; see :class:`~otel_receivers.receiver.Receiver`."""
        return await self._page.read(partial(self._read, tick))

    async def close(self) -> None:
        """Close the connection."""
        await self._page.close()

    def _read(self, tick: Tick, body: bytes) -> Batch:
        page = parse.own_page(body, self._declaration)
        start = page.process_start_unix_nano
        named = self._api() or self.target
        starts = self._epochs.starts(
            # Readers know a counter by its instance: under another name it is another, met for the first time.
            f"{self.name}/{named}",
            tick,
            page_points.counters_of(page.points),
            life=None if start is None else Life(start),
            together=True,
            # The page of several workers is their sum, which falls when one of them ends.
            sums=start is None,
        )
        recorder = Recorder(self._declaration, self._node.resource(self._declaration.service, target=named), tick)
        page_points.record(page.points, page.problems, recorder, starts)
        return recorder.batch()
