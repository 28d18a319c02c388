"""What a node is called on the page: as short as still tells it from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from timescale_sink.api.series import Node

DEMO_SUFFIX = " (demo)"


def names(nodes: Sequence[Node]) -> dict[str, str]:
    """Node id -> name, each once: the host without the domain that all share, and the id where hosts are alike.

    A node of synthetic data is called so wherever it is named.
    """
    hosts = {node.id: _without(node.host or node.id, _shared_domain([node.host for node in nodes])) for node in nodes}
    count = Counter(hosts.values())
    return {
        node.id: hosts[node.id]
        + (f" ({node.id[:8]})" if count[hosts[node.id]] > 1 else "")
        + (DEMO_SUFFIX if node.demo else "")
        for node in nodes
    }


def _shared_domain(hosts: Sequence[str]) -> str:
    domains = {host.partition(".")[2] for host in hosts}
    return domains.pop() if len(domains) == 1 and len(hosts) > 1 else ""


def _without(host: str, domain: str) -> str:
    return host.removesuffix(f".{domain}") if domain else host
