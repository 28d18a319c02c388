"""What a batch says of the node that sends it. Pure."""

from __future__ import annotations

from datetime import datetime

from timescale_sink.ingest.rows import Rows, Sighting
from timescale_sink.ingest.series import Origin

_NODE_ATTRIBUTES = ("host.arch", "os.type", "os.description", "os.name", "os.version")


def see(rows: Rows, origin: Origin, at: datetime, *, sources: list[str] | None = None) -> None:
    """Note that a node was there at a time; with ``sources``, that it has these."""
    if origin.node_id == "unknown":
        return
    resource = origin.resource
    sighting = Sighting(
        host=str(resource.get("host.name", "")),
        first=at,
        last=at,
        demo=resource.get("postel.demo") is True,
        sources=sources,
        attributes={name: resource[name] for name in _NODE_ATTRIBUTES if name in resource},
    )
    if (service := resource.get("service.name")) and (version := resource.get("service.version")):
        sighting.versions[str(service)] = str(version)
    if origin.node_id in rows.nodes:
        rows.nodes[origin.node_id].join(sighting)
    else:
        rows.nodes[origin.node_id] = sighting
