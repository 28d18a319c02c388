"""What a batch says of the node that sends it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from timescale_sink.ingest.rows import Rows, Sighting
from timescale_sink.ingest.series import Origin
from timescale_sink.ingest.values import canonical

_NODE_ATTRIBUTES = ("host.arch", "os.type", "os.description", "os.name", "os.version")
# A node that says nothing new of itself is written again when this much of its time has passed.
_EVERY = timedelta(seconds=10)
# Of all nodes that are remembered, and of the objects of each. A sender may name a new node, with texts of any length,
# in each request.
_BOOK_BYTES = 8 << 20
_ENTRY_BYTES = 1000


class NodeBook:
    """What was written of nodes lately, so that a node's row is not each batch's."""

    def __init__(self) -> None:
        self._nodes: dict[str, Sighting] = {}
        self._bytes = 0

    def news(self, nodes: Mapping[str, Sighting]) -> dict[str, Sighting]:
        """The sightings that say something new, or of nodes that were not written for a while."""
        return {id_: seen for id_, seen in nodes.items() if seen.tells_more_than(self._nodes.get(id_), _EVERY)}

    def add(self, nodes: Mapping[str, Sighting]) -> None:
        """Remember what is written of these; without room for one, the book begins anew. What never fits is not."""
        for id_, seen in nodes.items():
            size = _size(id_, seen)
            if size > _BOOK_BYTES:
                continue
            if self._bytes + size > _BOOK_BYTES:
                self.clear()
            self._nodes[id_] = seen
            self._bytes += size

    def clear(self) -> None:
        """Forget all of them."""
        self._nodes.clear()
        self._bytes = 0


def _size(node_id: str, seen: Sighting) -> int:
    """About the bytes that an entry takes."""
    return _ENTRY_BYTES + len(canonical([node_id, seen.host, seen.sources, seen.versions, seen.attributes]))


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
