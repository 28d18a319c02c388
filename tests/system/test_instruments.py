from __future__ import annotations

import time

import pytest
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor

from otel_receivers.system import instruments
from otel_receivers.system.census import Budget
from otel_receivers.system.instruments import Instruments
from otel_receivers.system.rename import Point, config, rename
from postel.signals import Declaration


def test_names_attributes_and_values_become_declared_ones(declaration: Declaration) -> None:
    points = [
        Point("system.cpu.time", {"cpu": 1, "state": "irq"}, 1.5),
        Point("system.cpu.time", {"cpu": 1, "state": "softirq"}, 2.0),
        Point("system.cpu.time", {"cpu": 2, "state": "irq"}, 0.25),
        Point("system.network.dropped_packets", {"device": "eth0", "direction": "receive"}, 7),
        Point("process.open_file_descriptor.count", {}, 9),
    ]
    found = {(r.metric.name, *r.attributes.items()): r.value for r in rename(declaration, points)}
    assert found == {
        ("system.cpu.time", ("cpu.mode", "interrupt")): 3.75,
        ("system.network.packet.dropped", ("network.interface.name", "eth0"), ("network.io.direction", "receive")): 7,
        ("process.unix.file_descriptor.count",): 9,
    }


@pytest.mark.parametrize(
    "point",
    [
        Point("system.thread_count", {}, 1),
        Point("system.cpu.time", {"cpu": 1, "state": "guest"}, 1),
        Point("system.network.io", {"otel.metric.overflow": True}, 1),
    ],
)
def test_what_is_not_declared_is_dropped(declaration: Declaration, point: Point) -> None:
    assert not list(rename(declaration, [point]))


def test_every_declared_instrument_is_one_of_the_instrumentation(declaration: Declaration) -> None:
    asked = config(declaration)
    assert set(asked) <= set(SystemMetricsInstrumentor()._config)
    assert asked["system.disk.io"] == ["read", "write"]
    assert asked["process.memory.usage"] is None


def test_a_fresh_provider_forgets_devices_and_loses_no_tick(
    declaration: Declaration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_COLLECTS_OF_ONE_PROVIDER", 2)
    asked = Instruments(config(declaration))
    providers = set()
    counts = []
    for _ in range(5):
        counts.append(len(list(asked.collect())))
        providers.add(id(asked._provider))
    assert min(counts) > 20
    assert len(providers) > 1
    asked.close()


def test_a_costly_source_pauses_in_proportion_to_its_cost() -> None:
    def burn(seconds: float) -> str:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        return "counted"

    budget = Budget(share=0.5)
    assert budget.spend(lambda: burn(0.05)) == "counted"
    assert budget.spend(lambda: "counted") is None
    time.sleep(0.15)
    assert budget.spend(lambda: "counted") == "counted"
    assert budget.spend(lambda: "counted") == "counted"  # what is cheap never pauses
