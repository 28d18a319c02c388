"""The sources that are asked where they are found: a line for each name that :mod:`otel_receivers.discovery` knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from otel_receivers.building import Build, BuildDoor
from otel_receivers.rspamd import receiver as rspamd
from otel_receivers.wildduck import door as wildduck_door
from otel_receivers.wildduck import own_page as wildduck_metrics
from otel_receivers.wildduck import receiver as wildduck
from otel_receivers.zone_mta import door as zone_mta_door
from otel_receivers.zone_mta import receiver as zone_mta

SOURCES: Mapping[str, Build] = {
    "zone_mta": zone_mta.build,
    "wildduck": wildduck.build,
    "wildduck_metrics": wildduck_metrics.build,
    "rspamd_controller": rspamd.build,
}

# What sources answer at the intake's address.
DOORS: Sequence[BuildDoor] = (zone_mta_door.build, wildduck_door.build)
