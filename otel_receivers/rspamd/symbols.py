"""Tells the symbols whose hits are their own.

Rspamd counts hits by rule. Of a symbol that another's rule sets (a virtual one, such as ``RDNS_NONE``, which
``ONCE_RECEIVED`` sets) ``/counters`` shows that rule's figures, and nothing says so. But it shows them always: a symbol
whose figures once differed from those of every other symbol is no such one, and no rule of one. Those alone are told.

Pure logic over explicit state. Source: Rspamd, ``symcache::counters`` of src/libserver/symcache/symcache_impl.cxx.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Mapping

from otel_receivers.rspamd.parse import Counter


class OwnHits:
    """Learns from each answer which symbols share figures; one instance for one Rspamd."""

    def __init__(self) -> None:
        # Symbols of one class had equal figures in every answer so far.
        self._class: dict[str, int] = {}

    def tell(self, counters: Mapping[str, Counter]) -> dict[str, int]:
        """The hits that are surely a symbol's own; 0 too, as no rule of it and no other's had any.

        Args:
            counters: a whole answer.
        """
        # Where rules were set up anew any of them may be virtual now.
        before = self._class if counters.keys() == self._class.keys() else dict.fromkeys(counters, 0)
        numbers: dict[tuple[int, Counter], int] = {}
        now = {symbol: numbers.setdefault((before[symbol], said), len(numbers)) for symbol, said in counters.items()}
        self._class = now
        sizes = Multiset(now.values())
        return {symbol: said.hits for symbol, said in counters.items() if said.hits == 0 or sizes[now[symbol]] == 1}
