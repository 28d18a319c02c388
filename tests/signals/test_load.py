from pathlib import Path

import pytest

from postel.errors import DeclarationError
from postel.signals import STANDARD_COLUMNS, Kind, load, load_all
from postel.signals.sources import METRIC_SOURCES
from timescale_sink.ingest.rows import WideKey

SOURCE = """
type: fresh
scope: postel.fresh
service: fresh-server
description: A server.
attributes:
  fresh.state: {description: State., type: string, enum: [open, closed]}
  fresh.zone: {description: Zone., type: string}
tables:
  metrics_fresh: {description: Rows., interval: 30, zone: fresh.zone}
metrics:
  fresh.queue.size:
    description: Depth.
    unit: "{message}"
    gauge: {value_type: int}
    attributes: [fresh.state, fresh.zone]
    source: {prometheus: fresh_queue}
    columns:
      - {table: metrics_fresh, column: open_size, type: bigint, when: {fresh.state: open}}
events:
  fresh.started: {description: Started., severity: info, attributes: [fresh.state], source: {reader: start}}
"""


def write(folder: Path, text: str, name: str = "metadata.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_a_declaration_is_read_whole(tmp_path: Path) -> None:
    source = load([write(tmp_path, SOURCE)])["fresh"]
    metric = source.metric("fresh_queue_size")
    assert (metric.name, metric.kind, metric.unit, metric.monotonic) == (
        "fresh.queue.size",
        Kind.GAUGE,
        "{message}",
        False,
    )
    (column,) = metric.columns
    assert (column.table, column.name, column.when, column.counter) == (
        "metrics_fresh",
        "open_size",
        {"fresh.state": "open"},
        False,
    )
    assert metric.source == {"prometheus": "fresh_queue", "labels": {}}
    assert source.event("fresh_started").attributes == ("fresh.state",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type: fresh\n", "type: 3\n", "type: Input should be a valid string"),
        ('    unit: "{message}"\n', "", r"metrics.fresh.queue.size.unit: Field required"),
        ('unit: "{message}"', "unit: apples", r"metrics.fresh.queue.size.unit: String should match"),
        (
            "gauge: {value_type: int}",
            "gauge: {value_type: text}",
            r"gauge.value_type: Input should be 'int'",
        ),
        ("    gauge: {value_type: int}\n", "", "needs exactly one of gauge, sum, histogram"),
        ("fresh.queue.size:", "fresh.queue.size_bytes:", "the name ends in a unit or 'total'"),
        ("fresh.queue.size:", "Fresh.Queue:", "String should match"),
        ("[fresh.state, fresh.zone]", "[fresh.state, fresh.zone, fresh.other]", "'fresh.other' is not declared"),
        ("when: {fresh.state: open}", "when: {fresh.state: ajar}", "'ajar' is no value of fresh.state"),
        ("when: {fresh.state: open}", "when: {fresh.zone: a, fresh.no: b}", "'fresh.no' is no attribute"),
        (", when: {fresh.state: open}", "", "says nothing of fresh.state"),
        ("table: metrics_fresh, column", "table: metrics_stale, column", "no file declares the table 'metrics_stale'"),
        ("service: fresh-server", "service: fresh-server\nservices: 1", "services: Extra inputs"),
        ("severity: info", "severity: loud", "events.fresh.started.severity: Input should be"),
        (
            "value_type: int",
            "value_type: double",
            r"metrics\.fresh\.queue\.size\.columns\.open_size\.type: bigint cannot hold what .* gives: double",
        ),
        *(
            (
                "column: open_size",
                f"column: {name}",
                rf"metrics\.fresh\.queue\.size\.columns\.{name}: every table has a column of this name",
            )
            for name in STANDARD_COLUMNS
        ),
        *(
            (
                "zone: fresh.zone}",
                f"zone: fresh.zone, labels: {{{name}: fresh.state}}}}",
                rf"tables\.metrics_fresh\.labels\.{name}: every table has a column of this name",
            )
            for name in STANDARD_COLUMNS
        ),
        (
            "zone: fresh.zone}",
            "zone: fresh.zone, labels: {open_size: fresh.state}}",
            r"metrics\.fresh\.queue\.size\.columns\.open_size: metrics_fresh has a label of this name",
        ),
        *(
            (
                "{prometheus: fresh_queue}",
                source,
                rf"fresh\.queue\.size\.source: needs exactly one of {', '.join(METRIC_SOURCES)}, got {got}",
            )
            for source, got in [
                ("{promethues: fresh_queue}", "'promethues'"),
                ("{promethues: fresh_queue, labels: {state: fresh.state}}", "'promethues', 'labels'"),
                ("{prometheus: fresh_queue, reader: queue}", "'prometheus', 'reader'"),
                ("{}", "nothing"),
            ]
        ),
        *(
            (
                "{prometheus: fresh_queue}",
                f"{{{key}: fresh_queue, {names}: {{state: fresh.state}}}}",
                rf"metrics\.fresh\.queue\.size\.source\.{names}: Extra inputs are not permitted",
            )
            for key, names in [
                ("prometheus", "lables"),
                ("prometheus", "values"),
                ("instrument", "labels"),
                ("reader", "labels"),
            ]
        ),
        *(
            (
                "{prometheus: fresh_queue}",
                f"{{{key}: fresh_queue, {names}: {{state: fresh.state, zone: {ours}}}}}",
                rf"metrics\.fresh\.queue\.size\.source\.{names}\.zone: {ours!r} is {fault}",
            )
            for key, names in [("prometheus", "labels"), ("instrument", "attributes")]
            for ours, fault in [
                ("fresh.domain", r"no attribute of fresh\.queue\.size"),
                ("fresh.state", "what state gives already"),
            ]
        ),
        (
            "{prometheus: fresh_queue}",
            "{prometheus: fresh_queue, split: {fresh.domain: /zones}}",
            r"fresh\.queue\.size\.source\.split: 'fresh\.domain' is no attribute of fresh\.queue\.size",
        ),
        (
            "{prometheus: fresh_queue}",
            "{prometheus: fresh_queue, labels: {state: fresh.state}, split: {fresh.state: /zones}}",
            r"fresh\.queue\.size\.source\.split: 'fresh\.state' is what state gives already",
        ),
        ("{prometheus: fresh_queue}", "{prometheus: 3}", r"source\.prometheus: Input should be a valid string"),
        (
            "{prometheus: fresh_queue}",
            "{instrument: fresh_queue, values: {state: {true: open}}}",
            r"source\.values\.state\.1: Input should be a valid string",
        ),
        (
            "source: {reader: start}",
            "source: {prometheus: start}",
            r"events\.fresh\.started\.source: needs exactly one of api, reader, hook, plugin, webhook, got 'prom",
        ),
        (
            "source: {reader: start}",
            "source: {webhook: started, fields: {a: fresh.nothing}}",
            r"events\.fresh\.started\.source\.fields\.a: 'fresh\.nothing' is no attribute of fresh\.started",
        ),
        ("source: {reader: start}", "source: {reader: start, of: x}", r"events\.fresh\.started\.source\.of: Extra"),
        (
            "tables:\n",
            "tables:\n  metrics_fresh: {description: R., interval: 0}\n",
            "key 'metrics_fresh' is",
        ),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SOURCE
    path = write(tmp_path, SOURCE.replace(old, new))
    with pytest.raises(DeclarationError, match=message) as caught:
        load([path])
    assert str(caught.value).startswith(str(path))


def test_an_unused_attribute_is_refused(tmp_path: Path) -> None:
    text = SOURCE.replace("attributes:\n", "attributes:\n  fresh.spare: {description: S., type: int}\n", 1)
    with pytest.raises(DeclarationError, match=r"attributes\.fresh\.spare: no metric, event or table uses it"):
        load([write(tmp_path, text)])


def test_a_name_has_one_owner(tmp_path: Path) -> None:
    first = write(tmp_path, SOURCE, "a.yaml")
    second = write(tmp_path, SOURCE.replace("type: fresh", "type: stale"), "b.yaml")
    with pytest.raises(DeclarationError, match=r"b\.yaml: fresh\.queue\.size: is already declared in .*a\.yaml"):
        load([first, second])


def test_a_column_of_another_files_table_is_none_of_its_labels(tmp_path: Path) -> None:
    table = "  metrics_fresh: {description: Rows., interval: 30, zone: fresh.zone}"
    first = write(tmp_path, SOURCE.replace(table, table.replace("}", ", labels: {name: fresh.state}}")), "a.yaml")
    text = """
type: stale
scope: postel.stale
service: stale-server
description: A server.
metrics:
  stale.size:
    description: Size.
    unit: By
    gauge: {value_type: int}
    source: {reader: size}
    columns: [{table: metrics_fresh, column: name, type: bigint}]
"""
    with pytest.raises(
        DeclarationError, match=r"b\.yaml: metrics\.stale\.size\.columns\.name: metrics_fresh has a label"
    ):
        load([first, write(tmp_path, text, "b.yaml")])


def test_the_columns_that_every_table_has_are_those_that_the_sink_writes() -> None:
    assert set(STANDARD_COLUMNS) == {*WideKey._fields, "started_at"}


@pytest.mark.parametrize("key", ["prometheus", "instrument"])
def test_what_a_receiver_looks_up_feeds_one_metric_of_a_source(tmp_path: Path, key: str) -> None:
    def source(name: str, family: str) -> Path:
        other = f"""metrics:
  {name}.other.size:
    description: Depth.
    unit: By
    gauge: {{value_type: int}}
    source: {{{key}: {family}}}
"""
        text = SOURCE.replace("prometheus:", f"{key}:").replace("metrics:\n", other)
        return write(tmp_path, text.replace("fresh", name), f"{name}.yaml")

    message = rf"fresh\.queue\.size\.source\.{key}: 'fresh_queue' feeds fresh\.other\.size already"
    with pytest.raises(DeclarationError, match=rf"fresh\.yaml: metrics\.{message}"):
        load([source("fresh", "fresh_queue")])
    # Two sources may have a family of the same name, and a reader of the receiver may serve several metrics.
    declarations = load([source("fresh", "queue"), source("stale", "queue")])
    assert declarations["stale"].metric("stale_other_size").source[key] == "queue"


def test_a_reader_may_serve_several_metrics(tmp_path: Path) -> None:
    metrics = "metrics:\n" + "".join(
        f"  fresh.{name}: {{description: D., unit: By, gauge: {{value_type: int}}, source: {{reader: sizes}}}}\n"
        for name in ("large", "small")
    )
    source = load([write(tmp_path, SOURCE.replace("metrics:\n", metrics))])["fresh"]
    assert [source.metric(key).source["reader"] for key in ("fresh_large", "fresh_small")] == ["sizes", "sizes"]


def test_a_column_has_one_feeding_point(tmp_path: Path) -> None:
    column = "      - {table: metrics_fresh, column: open_size, type: bigint, when: {fresh.state: open}}\n"
    again = column.replace("open}}", "closed}}")
    with pytest.raises(DeclarationError, match=r"columns\.open_size: fresh\.queue\.size feeds this column already"):
        load([write(tmp_path, SOURCE.replace(column, column + again))])


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\t"])
def test_a_file_that_is_no_declaration_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DeclarationError) as caught:
        load([path])
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type: fresh\n? [a, b]\n: c\n", r"a list or map cannot be a key.*line 2, column 3"),
        ("type: fresh\n{a: b}: c\n", r"a list or map cannot be a key.*line 2, column 1"),
        ("tables:\n  metrics_fresh: {labels: {[a]: b}}\n", r"a list or map cannot be a key.*line 2, column 28"),
        ("tables:\n  metrics_fresh: {interval: 2025-13-45}\n", r"month must be in 1\.\.12.*line 2, column 29"),
        ("type: !!set x\n", r"a map is expected.*line 1, column 7"),
        ("type: !!float\n", r".*line 1, column 7"),
        ("type: !!int x\n", r"invalid literal for int.*line 1, column 7"),
    ],
)
def test_what_python_cannot_build_of_the_yaml_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DeclarationError, match=rf"(?s)is not YAML: {message}") as caught:
        load([path])
    assert str(caught.value).startswith(f"{path}: ")


def test_all_shipped_declarations_fit_together() -> None:
    declarations = load_all()
    assert {"agent", "zone_mta"} <= set(declarations.sources)
    assert all(metric.description.endswith(".") for metric in declarations.metrics.values())
    assert all(event.description.endswith(".") for event in declarations.events.values())
