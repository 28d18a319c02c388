import importlib
import inspect
import pkgutil
import re
from enum import Enum
from types import ModuleType

import pytest
from opentelemetry.metrics import Counter, Meter, ObservableGauge, UpDownCounter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.semconv._incubating import attributes as attribute_modules
from opentelemetry.semconv._incubating.metrics import process_metrics, system_metrics

from otel_receivers.system.readers import READERS
from postel.signals import Declaration, Kind, load_all

SPECIFIED = sorted(n for n in load_all()["system"].metrics if n.startswith(("system.", "process.")))
# What the conventions name and this source leaves out, each for its reason.
LEFT_OUT = {
    "system.filesystem.lock.count": "no reader of ours asks for locks",
    "system.memory.linux.hugepages.reserved": "part of free",
    "system.memory.linux.hugepages.surplus": "part of usage",
    "system.memory.linux.hugepages.utilization": "usage and limit say it",
}


def deprecated(module: ModuleType, name: str) -> bool:
    """Whether the text under a constant says so; the decorators on functions and classes do not reach constants."""
    text = re.search(rf'^{name}: Final = .*?\n"""(.*?)"""', inspect.getsource(module), re.DOTALL | re.MULTILINE)
    return text is not None and "Deprecated: " in text[1]


def specified_instruments() -> dict[str, object]:
    """Every instrument that the conventions create, deprecated ones apart."""
    meter: Meter = MeterProvider(shutdown_on_exit=False).get_meter("test")
    found = {}
    for module in (system_metrics, process_metrics):
        for name, create in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("create_") and not deprecated(module, name.removeprefix("create_").upper()):
                wants_callbacks = "callbacks" in inspect.signature(create).parameters
                instrument = create(meter, None) if wants_callbacks else create(meter)
                found[instrument.name] = instrument
    return found


INSTRUMENTS = specified_instruments()


def specified_attributes() -> tuple[set[str], dict[str, set[str]]]:
    """Every attribute name in force, and the known values of those that have some."""
    names: set[str] = set()
    values: dict[str, set[str]] = {}
    for info in pkgutil.iter_modules(attribute_modules.__path__, attribute_modules.__name__ + "."):
        if not info.name.rpartition(".")[2].startswith(("system_", "process_", "cpu_", "disk_", "network_")):
            continue
        module = importlib.import_module(info.name)
        for constant, value in vars(module).items():
            if constant.isupper() and isinstance(value, str) and not deprecated(module, constant):
                names.add(value)
                enum = getattr(module, "".join(w.capitalize() for w in constant.split("_")) + "Values", None)
                if isinstance(enum, type) and issubclass(enum, Enum):
                    values[value] = {member.value for member in enum}
    return names, values


@pytest.mark.parametrize("name", SPECIFIED)
def test_name_unit_and_kind_are_those_of_the_conventions(declaration: Declaration, name: str) -> None:
    metric = declaration.metrics[name]
    assert name in INSTRUMENTS, "the conventions do not have it, or no longer"
    instrument = INSTRUMENTS[name]
    kinds: dict[tuple[Kind, bool], type] = {
        (Kind.SUM, True): Counter,
        (Kind.SUM, False): UpDownCounter,
        (Kind.GAUGE, False): ObservableGauge,
    }
    if name == "system.cpu.frequency" or name.endswith("utilization"):
        assert metric.kind is Kind.GAUGE
    assert isinstance(instrument, kinds[metric.kind, metric.monotonic])
    assert instrument.unit == metric.unit  # type: ignore[attr-defined]


def test_attributes_and_their_values_are_those_of_the_conventions(declaration: Declaration) -> None:
    names, values = specified_attributes()
    assert "system.filesystem.mode" in names
    assert values["process.state"] == {"running", "sleeping", "stopped", "defunct"}
    ours = {n for m in declaration.metrics.values() for n in m.attributes}
    assert ours <= names
    for name in ours:
        if name in values and (enum := declaration.attributes[name].enum):
            assert set(enum) <= values[name], name


def test_every_system_metric_of_the_conventions_is_declared_or_left_out_for_a_reason(
    declaration: Declaration,
) -> None:
    conventions = {name for name in INSTRUMENTS if name.startswith("system.")}
    assert conventions - set(declaration.metrics) == set(LEFT_OUT)


def test_every_typed_column_of_the_host_has_its_point(declaration: Declaration) -> None:
    columns = {column.name: column.type for column in load_all().columns_of("metrics_system")}
    assert columns == {
        "cpu_load": "double precision",
        "memory_percent": "double precision",
        "memory_used": "bigint",
        "disk_used": "bigint",
        "disk_percent": "double precision",
        "network_in": "bigint",
        "network_out": "bigint",
        "load_1m": "double precision",
        "process_count": "bigint",
    }
    assert declaration.tables["metrics_system"].interval == 15


def test_no_reader_is_left_without_a_metric(declaration: Declaration) -> None:
    named = {m.source["reader"] for m in declaration.metrics.values() if "reader" in m.source}
    assert named == set(READERS)
