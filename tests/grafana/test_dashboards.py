"""Grafana's dashboards as files: what the builder makes, whole in themselves, in the units of the declarations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from postel.signals import load_all
from tools.grafana.__main__ import DASHBOARDS as FOLDER
from tools.grafana.__main__ import files
from tools.grafana.boards import BOARDS
from tools.grafana.model import Board, Panel, Reading, Shown

_CHECKOUT = Path(__file__).parents[2]
_DECLARATIONS = load_all()
# UCUM -> Grafana's id of the unit (packages/grafana-data/src/valueFormats/categories.ts); what is in braces is a count.
_UNITS = {"By": "bytes", "s": "s", "%": "percent", "1": "none"}
_RATES = {"By": "binBps"}
# What metadata.yaml says of columns of events in words.
_OF_EVENTS = {"delivery_events.duration": "s", "email_events.spam_score": "1", "email_events.symbols": "1"}
_CASES = [(board, panel) for board in BOARDS for panel in board.panels]
_IDS = [f"{board.key}: {panel.title}" for board, panel in _CASES]


def _dashboards() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob("*.json")):
        yield path.stem, json.loads(path.read_text("utf-8"))


def _drawn(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_files_are_what_the_builder_makes() -> None:
    made = files()
    assert {path: path.read_text("utf-8") for path in made if path.exists()} == made, "run: python -m tools.grafana"
    assert set(FOLDER.iterdir()) <= made.keys()


def test_ids_are_unique_and_no_data_source_is_named_by_one() -> None:
    dashboards = [dashboard for _, dashboard in _dashboards()]
    assert len({dashboard["uid"] for dashboard in dashboards}) == len(dashboards) == len(BOARDS)
    assert len({dashboard["title"] for dashboard in dashboards}) == len(dashboards)
    for dashboard in dashboards:
        # An id is of one Grafana's database.
        assert dashboard.get("id") is None
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        first, *others = dashboard["templating"]["list"]
        assert (first["type"], first["name"], first["query"]) == (
            "datasource",
            "datasource",
            "grafana-postgresql-datasource",
        )
        asked = [*others, *_drawn(dashboard), *(target for panel in _drawn(dashboard) for target in panel["targets"])]
        assert {(one["datasource"]["type"], one["datasource"]["uid"]) for one in asked} == {
            ("grafana-postgresql-datasource", "${datasource}")
        }


def test_panels_lie_beside_and_below_each_other() -> None:
    for name, dashboard in _dashboards():
        taken: dict[tuple[int, int], str] = {}
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            # The SDK leaves out what is 0.
            left, top = place.get("x", 0), place.get("y", 0)
            assert left + place["w"] <= 24, (name, panel["title"])
            for x in range(left, left + place["w"]):
                for y in range(top, top + place["h"]):
                    assert (x, y) not in taken, (name, panel["title"], taken[x, y])
                    taken[x, y] = panel["title"]


def test_variables_that_queries_use_are_there() -> None:
    for name, dashboard in _dashboards():
        there = {variable["name"] for variable in dashboard["templating"]["list"]}
        used = {
            found for panel in _drawn(dashboard) for found in re.findall(r"\$\{(\w+)", panel["targets"][0]["rawSql"])
        }
        assert used == there - {"datasource"}, name


def test_the_pages_that_a_dashboard_names_are_there() -> None:
    for board in BOARDS:
        assert board.documents
        assert all((_CHECKOUT / page).is_file() for page in board.documents), board.key


@pytest.mark.parametrize(("board", "panel"), _CASES, ids=_IDS)
def test_units_are_those_of_the_declarations(board: Board, panel: Panel) -> None:
    dashboard = json.loads((FOLDER / f"{board.key}.json").read_text("utf-8"))
    (drawn,) = (one for one in _drawn(dashboard) if one["title"] == panel.title)
    config = drawn["fieldConfig"]
    overrides = {one["matcher"]["options"]: one["properties"] for one in config.get("overrides", [])}
    assert config["defaults"]["unit"] == panel.shown.unit
    assert overrides == {name: [{"id": "unit", "value": shown.unit}] for name, shown in panel.fields.items()}
    for shown in (panel.shown, *panel.fields.values()):
        assert shown.unit in _expected(shown), shown


def _expected(shown: Shown) -> set[str]:
    """Grafana's unit of a figure, by what it is made of."""
    if shown.reading is Reading.TEXT:
        return {"string"}
    if shown.reading is Reading.TIME:
        return {"dateTimeAsIso", "s"}
    assert shown.of, "a number is a number of something"
    if shown.reading is Reading.COUNT:
        assert all(_is_declared(name) for name in shown.of)
        return {"short"}
    units = {_unit(name) for name in shown.of}
    assert len(units) == 1, "one axis, one unit"
    (unit,) = units
    if shown.reading is Reading.SHARE:
        return {"percentunit"}
    if shown.reading is Reading.RATE:
        return {_RATES.get(unit, "cps" if unit.startswith("{") else "")}
    # A share of 1 is drawn as per cent, a number without a unit is none.
    return {_UNITS.get(unit, "short" if unit.startswith("{") else "")} | ({"percentunit"} if unit == "1" else set())


def _unit(name: str) -> str:
    table, _, column = name.partition(".")
    if table in _DECLARATIONS.tables:
        (found,) = (one for one in _DECLARATIONS.columns_of(table) if one.name == column)
        return _DECLARATIONS.metrics[found.metric].unit
    if table in _DECLARATIONS.event_tables:
        assert _is_declared(name)
        return _OF_EVENTS.get(name, "{row}")
    return _DECLARATIONS.metrics[name].unit


def _is_declared(name: str) -> bool:
    table, _, column = name.partition(".")
    if table in _DECLARATIONS.event_tables:
        return any(one.name == column for one in _DECLARATIONS.event_tables[table].columns)
    return name in _DECLARATIONS.metrics or any(name in source.attributes for source in _DECLARATIONS)


@pytest.mark.parametrize(("board", "panel"), _CASES, ids=_IDS)
def test_what_a_panel_says_it_shows_is_what_its_query_asks(board: Board, panel: Panel) -> None:
    del board
    for shown in (panel.shown, *panel.fields.values()):
        for name in shown.of:
            table, _, column = name.partition(".")
            if table in {*_DECLARATIONS.tables, *_DECLARATIONS.event_tables}:
                assert re.search(rf"\b{table}|\bdeferred_recipient\b", panel.sql), name
                assert re.search(rf"\b{column}", panel.sql), name
    for label in panel.fields:
        assert f'"{label}"' in panel.sql


@pytest.mark.parametrize(("board", "panel"), _CASES, ids=_IDS)
def test_names_in_queries_are_declared(board: Board, panel: Panel) -> None:
    """What stands in quotes and has dots is a metric, an event, or an attribute of one."""
    del board
    known = {"service.name", "process.pid", *_DECLARATIONS.metrics, *_DECLARATIONS.events}
    known |= {name for source in _DECLARATIONS for name in source.attributes}
    assert set(re.findall(r"'([a-z_]+(?:\.[a-z_]+)+)'", panel.sql)) <= known


def test_provisioning_is_for_these_dashboards() -> None:
    folder = FOLDER.parent / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources/postel.yaml").read_text("utf-8"))["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards/postel.yaml").read_text("utf-8"))["providers"]
    for _, dashboard in _dashboards():
        chosen = dashboard["templating"]["list"][0]
        assert (chosen["current"]["value"], chosen["query"]) == (source["uid"], source["type"])
    page = (_CHECKOUT / "docs/grafana.md").read_text("utf-8")
    asked = set(re.findall(r"\$\{(\w+)\}", json.dumps([source, provider])))
    assert asked == set(re.findall(r"^ *\| `(POSTEL_GRAFANA_\w+)` \|", page, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)\}", json.dumps(source["secureJsonData"]))) == {"POSTEL_GRAFANA_PASSWORD"}
