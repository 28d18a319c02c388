"""The dashboard of the hosts under the mail servers."""

from __future__ import annotations

from tools.grafana import counters, points, queries, tables
from tools.grafana.model import TEXT, Board, Panel, Reading, Row, Shown
from tools.grafana.tables import Figure


def _system(*columns: str) -> tuple[str, ...]:
    return tuple(f"metrics_system.{column}" for column in columns)


def _host(title: str, unit: str, column: str, *, most: float | None = None) -> Panel:
    return Panel(
        title,
        "lines",
        queries.gauges("metrics_system", {column: title}),
        Shown(unit, _system(column)),
        width=8,
        interval="15s",
        most=most,
    )


HOSTS = Board(
    "hosts",
    "Postel: hosts",
    "The hosts under the mail servers: CPU, memory, disk, network, load.",
    [
        Row(
            "At the end of the range",
            [
                tables.latest(
                    "Hosts",
                    "metrics_system",
                    {
                        "cpu_load": Figure("CPU", "percent"),
                        "load_1m": Figure("Load", "short"),
                        "memory_percent": Figure("Memory", "percent"),
                        "memory_used": Figure("Memory used", "bytes"),
                        "disk_percent": Figure("Disk", "percent"),
                        "disk_used": Figure("Disk used", "bytes"),
                        "process_count": Figure("Processes", "short"),
                    },
                    height=6,
                ),
            ],
        ),
        Row(
            "Over time",
            [
                _host("CPU", "percent", "cpu_load", most=100),
                _host("Load of a minute", "short", "load_1m"),
                _host("Processes", "short", "process_count"),
                _host("Memory", "percent", "memory_percent", most=100),
                _host("Memory used", "bytes", "memory_used"),
                Panel(
                    "Network",
                    "lines",
                    counters.rates(
                        "metrics_system",
                        {"network_in": "in", "network_out": "out"},
                        by="node",
                        sign={"network_out": "-"},
                    ),
                    Shown("binBps", _system("network_in", "network_out"), Reading.RATE),
                    note="What goes out is drawn below the axis.",
                    width=8,
                    interval="15s",
                ),
                _host("Fullest filesystem", "percent", "disk_percent", most=100),
                _host("Used on it", "bytes", "disk_used"),
                Panel(
                    "Filesystems at the end of the range",
                    "table",
                    points.latest(
                        "system.filesystem.utilization",
                        {
                            "Node": "node",
                            "Mounted at": "attributes ->> 'system.filesystem.mountpoint'",
                            "Used": "value",
                        },
                        rest="WHERE attributes ->> 'system.filesystem.state' = 'used'\nORDER BY \"Used\" DESC, 1, 2",
                    ),
                    TEXT,
                    {"Used": Shown("percentunit", ("system.filesystem.utilization",))},
                    width=8,
                ),
            ],
        ),
    ],
    ["docs/reference/system.md"],
)
