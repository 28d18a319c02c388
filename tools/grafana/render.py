"""Makes Grafana's JSON of a dashboard, by Grafana's own SDK.

Nothing of it names a data source: panels ask the one that the dashboard's first variable holds.
"""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.cog import encoder, variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models

from postel.signals import Declarations
from tools.grafana import queries
from tools.grafana.model import Board, Panel, Shown

PLUGIN = "grafana-postgresql-datasource"
# What provisioning/datasources/postel.yaml calls the data source; another one is chosen in the dashboard.
DATASOURCE = "postel"
TAG = "postel"
_SOURCE = models.DataSourceRef(type_val=PLUGIN, uid="${datasource}")
_ALL = models.VariableOption(text=["All"], value=["$__all"])


class Query(variants.Dataquery):
    """A query in SQL, as Grafana's editor stores one that was written by hand.

    Args:
        sql: with Grafana's macros and variables.
        form: `table` or `time_series`.
        source: who is asked.
        name: its own within a panel or rule.
    """

    def __init__(self, sql: str, form: str, source: models.DataSourceRef = _SOURCE, name: str = "A") -> None:
        self._sql, self._form, self._source, self._name = sql, form, source, name

    def to_json(self) -> dict[str, object]:
        """As Grafana has it."""
        return {
            "refId": self._name,
            "datasource": self._source.to_json(),
            "editorMode": "code",
            "format": self._form,
            "rawQuery": True,
            "rawSql": self._sql,
        }


class _Target(Builder[variants.Dataquery]):
    def __init__(self, query: Query) -> None:
        self._query = query

    def build(self) -> variants.Dataquery:
        return self._query


def render(board: Board, declarations: Declarations) -> str:
    """The text of a dashboard's file.

    Args:
        board: what it shows.
        declarations: what its figures are is said in the panels' descriptions.
    """
    built = (
        dashboard.Dashboard(board.title)
        .uid(f"postel-{board.key}")
        .description(f"{board.description} What the figures are: {', '.join(board.documents)} of Postel.")
        .tags([TAG])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(board.begin, "now")
        .refresh("1m")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Database")
            .type(PLUGIN)
            .current(models.VariableOption(text="Postel", value=DATASOURCE))
        )
        .with_variable(_variable("node", "Node", queries.NODE_NAMES))
        .link(
            dashboard.DashboardLink("Postel")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(as_dropdown=True)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    )
    if board.zones:
        built.with_variable(_variable("zone", "Zone", queries.ZONES))
    number = 0
    for row in board.rows:
        number += 1
        built.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            built.with_panel(_panel(panel, declarations).id(number))
    return json.dumps(built.build(), cls=encoder.JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variable(name: str, label: str, sql: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(sql)
        .datasource(_SOURCE)
        .multi(multi=True)
        .include_all(include_all=True)
        # Put into the query as it is; the word '*' is no node's id and no zone's name.
        .all_value("'*'")
        .current(_ALL)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.DISABLED)
    )


def _panel(panel: Panel, declarations: Declarations) -> Any:
    made: Any = {"stat": _stat, "table": _table}.get(panel.kind, _chart)(panel)
    made = (
        made.title(panel.title)
        .description(_description(panel, declarations))
        .datasource(_SOURCE)
        .with_target(_Target(Query(panel.sql, "table" if panel.kind in ("stat", "table") else "time_series")))
        .span(panel.width)
        .height(panel.height)
        .interval(panel.interval)
        .max_data_points(queries.POINTS)
        .unit(panel.shown.unit)
    )
    for name, shown in panel.fields.items():
        made = made.override_by_name(name, [models.DynamicConfigValue(id_val="unit", value=shown.unit)])
    if panel.levels:
        yellow, red = panel.levels
        steps = [(None, "green"), (yellow, "yellow"), (red, "red")]
        made = made.thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=value, color=color) for value, color in steps])
        )
    return made


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
        .graph_mode(options.BigValueGraphMode.NONE)
        .text_mode(options.BigValueTextMode.VALUE_AND_NAME)
        .color_mode(options.BigValueColorMode.VALUE if panel.levels else options.BigValueColorMode.NONE)
    )
    return made.no_value("nothing in this range")


def _table(panel: Panel) -> table.Panel:
    del panel
    return table.Panel().filterable(filterable=True).no_value("")


def _chart(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
        .draw_style(options.GraphDrawStyle.BARS if panel.kind == "bars" else options.GraphDrawStyle.LINE)
        .span_nulls(panel.connected)
        .axis_soft_min(0)
    )
    if panel.kind != "lines":
        made = made.fill_opacity(30).stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if panel.most is not None:
        made = made.max(panel.most)
    return made


def _description(panel: Panel, declarations: Declarations) -> str:
    shown: list[Shown] = [panel.shown, *panel.fields.values()]
    named = dict.fromkeys(name for one in shown for name in one.of)
    lines = [panel.note] if panel.note else []
    told = {text: None for name in named if (text := meaning(name, declarations))}
    return "\n\n".join([*lines, *told])


def meaning(name: str, declarations: Declarations) -> str:
    """What a column or metric is, as it is declared."""
    table_name, _, column = name.partition(".")
    if table_name in declarations.tables:
        (found,) = (one for one in declarations.columns_of(table_name) if one.name == column)
        return f"`{name}`: {declarations.metrics[found.metric].description}"
    if table_name in declarations.event_tables:
        (event_column,) = (one for one in declarations.event_tables[table_name].columns if one.name == column)
        return f"`{name}`: {event_column.description}."
    if name in declarations.metrics:
        return f"`{name}`: {declarations.metrics[name].description}"
    return ""
