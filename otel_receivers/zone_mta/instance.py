"""What every signal of a Zone-MTA says of who it is about."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource

from otel_receivers.node import Node
from otel_receivers.receiver import Target
from postel.signals import Declaration


def resource_of(declaration: Declaration, node: Node, target: Target, queue_id: str | None = None) -> Resource:
    """The resource of one instance.

    Args:
        declaration: of ``zone_mta``.
        node: who asks.
        target: where its API listens.
        queue_id: names the queue that instances with one database share; None: this instance's alone.
    """
    return node.resource(
        declaration.service, target=target, extra={"zonemta.queue.id": queue_id or node.instance(target)}
    )
