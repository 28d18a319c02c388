"""What looks at certificates, whichever servers are found: a listener need not be one of theirs."""

from __future__ import annotations

from otel_receivers.building import Source
from otel_receivers.tls import receiver

SOURCE = Source(lambda _settings: (), {}, standing=(receiver.build,))
