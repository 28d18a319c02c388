"""Where a Zone-MTA is looked for, and what asks it there."""

from __future__ import annotations

from collections.abc import Sequence

from otel_receivers.building import Source
from otel_receivers.discovery import Place, page
from otel_receivers.receiver import Target
from otel_receivers.zone_mta import door, receiver
from postel.settings import Discovery


def _places(settings: Discovery) -> Sequence[Place]:
    return (
        Place(
            "zone_mta",
            (Target(settings.zone_mta_host, settings.zone_mta_port),),
            page(settings.zone_mta_metrics_path, rb"^# TYPE zonemta_"),
            settings="zone_mta_port and zone_mta_metrics_path",
        ),
    )


SOURCE = Source(_places, {"zone_mta": receiver.build}, (door.build,))
