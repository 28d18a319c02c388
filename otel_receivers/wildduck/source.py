"""What the agent has of WildDuck: where it is looked for, what asks it there, and where it posts what it tells."""

from __future__ import annotations

from otel_receivers.building import Source
from otel_receivers.wildduck import door, own_page, receiver
from otel_receivers.wildduck.places import places

SOURCE = Source(places, {"wildduck": receiver.build, "wildduck_metrics": own_page.build}, (door.build,))
