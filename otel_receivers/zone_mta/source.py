"""Where a Zone-MTA is looked for, and what asks it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from otel_receivers.building import Source
from otel_receivers.discovery import Place, page
from otel_receivers.receiver import Target, target_of
from otel_receivers.zone_mta import door, receiver
from postel.settings import Discovery


def _places(settings: Discovery) -> Sequence[Place]:
    first = Place(
        "zone_mta",
        (Target(settings.zone_mta_host, settings.zone_mta_port),),
        page(settings.zone_mta_metrics_path, rb"^# TYPE zonemta_"),
        settings="zone_mta_port and zone_mta_metrics_path",
    )
    # Each once, however often it is named: the points of two receivers would be the same points.
    further = dict.fromkeys(target_of(address) for address in settings.zone_mta_instances)
    keys = "zone_mta_instances and zone_mta_metrics_path"
    return (
        first,
        *(
            replace(first, targets=(target,), settings=keys, which=str(target))
            for target in further
            if target not in first.targets
        ),
    )


SOURCE = Source(_places, {"zone_mta": receiver.build}, (door.build,))
