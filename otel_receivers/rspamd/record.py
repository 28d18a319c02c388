"""Records what Rspamd says as declared points, with the starts of its counters.

Rspamd stores what it has scanned and learned at its end and at each full minute, and goes on from there: over an
orderly restart the counters stand; killed, or where its controller is started anew by a reload, they are as they were
up to a minute before. A value that fell may also have been set back to 0 by an operator. Which of them it was nothing
tells, so what is left of it counted before (``sums`` of :meth:`otel_receivers.epochs.Epochs.starts`): the increase is
never more than what was scanned. Connections and the hits of symbols are not stored (3.4) and fall at each restart;
each group has epochs of its own, so that the others' stand.

Pure. Source: Rspamd, ``rspamd_controller_load_saved_stats`` of src/libserver/worker_util.c.
"""

from __future__ import annotations

from collections.abc import Mapping

from otel_receivers.epochs import Epochs
from otel_receivers.points import Recorder
from otel_receivers.receiver import Tick
from otel_receivers.rspamd.parse import Stat
from postel.signals import Declaration

ACTION = "rspamd.action"
SYMBOL = "rspamd.symbol"
# Rspamd's own rules are about 1000.
SYMBOLS = 2000


def stat(said: Stat, recorder: Recorder, declaration: Declaration, epochs: Epochs, *, source: str, tick: Tick) -> None:
    """Record an answer to ``/stat``; ``source`` names the instance for its epochs."""
    declared = declaration.attributes[ACTION].enum
    actions = {name: value for name, value in said.actions.items() if name in declared}
    for name in said.actions.keys() - actions.keys():
        recorder.problem("undeclared_value", f"/stat: action is {name[:40]!r}, none of {', '.join(map(str, declared))}")
    values = {"scanned": said.scanned, "learned": said.learned, **{f"action/{n}": v for n, v in actions.items()}}
    starts = epochs.starts(source, tick, values, together=True, sums=True)
    recorder.number("rspamd_scanned_messages", said.scanned, start_unix_nano=starts["scanned"])
    recorder.number("rspamd_learned_messages", said.learned, start_unix_nano=starts["learned"])
    for name, value in actions.items():
        recorder.number("rspamd_messages", value, {ACTION: name}, start_unix_nano=starts[f"action/{name}"])
    connections = {"connections": said.connections}
    start = epochs.starts(f"{source}/connections", tick, connections, together=True, sums=True)["connections"]
    recorder.number("rspamd_accepted_connections", said.connections, start_unix_nano=start)
    recorder.number("rspamd_uptime", said.uptime)
    if said.durations:
        recorder.number("rspamd_scan_duration", sum(said.durations) / len(said.durations))


def symbols(hits: Mapping[str, int], recorder: Recorder, epochs: Epochs, *, source: str, tick: Tick) -> None:
    """Record the hits of symbols that are their own; of more than `SYMBOLS` those that were hit most."""
    most = dict(sorted(hits.items(), key=lambda item: (-item[1], item[0]))[:SYMBOLS])
    if len(most) < len(hits):
        recorder.problem("too_many_symbols", f"/counters has {len(hits)} symbols; the {SYMBOLS} hit most are told")
    # A symbol that was known while it had no hits counts from the first on; another from when it is first told of.
    starts = epochs.starts(f"{source}/symbols", tick, most, together=False, sums=True)
    for symbol, value in most.items():
        if value:
            recorder.number("rspamd_symbol_hits", value, {SYMBOL: symbol}, start_unix_nano=starts[symbol])
