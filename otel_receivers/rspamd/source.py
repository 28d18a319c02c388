"""Where Rspamd's controller is looked for, and what asks it there."""

from __future__ import annotations

from collections.abc import Sequence

from otel_receivers.building import Source
from otel_receivers.discovery import Place, server_header
from otel_receivers.receiver import Target
from otel_receivers.rspamd import receiver
from postel.settings import Discovery


def _places(settings: Discovery) -> Sequence[Place]:
    return (
        Place(
            "rspamd_controller",
            (Target(settings.rspamd_host, settings.rspamd_controller_port),),
            server_header("/ping", "rspamd"),
            settings="rspamd_controller_port",
            trusted="rspamd_controller_port" in settings.model_fields_set,
        ),
    )


SOURCE = Source(_places, {"rspamd_controller": receiver.build})
