"""The files for Redis and MongoDB over agent.yaml, in the real Collector: whose points reach the sink, and as whose."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from testbed.program import until

from postel.collector import collector_config
from support.collector import Collector, Sink, metric_request
from support.overlays import with_stand_in
from support.ports import free_port

ADDRESSES = {"redis": "127.0.0.1:6379", "mongodb": "127.0.0.1:27017"}
each_database = pytest.mark.parametrize("name", ADDRESSES)


def post(port: int, value: float) -> None:
    httpx.post(
        f"http://127.0.0.1:{port}/v1/metrics",
        content=metric_request(value).SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
        timeout=10,
    ).raise_for_status()


def taken(sink: Sink) -> dict[float, dict[str, str]]:
    """Value of a point -> its resource."""
    return {
        resource.scope_metrics[0].metrics[0].gauge.data_points[0].as_double: {
            each.key: each.value.string_value for each in resource.resource.attributes
        }
        for request in sink.taken
        if isinstance(request, ExportMetricsServiceRequest)
        for resource in request.resource_metrics
    }


@each_database
def test_what_its_receiver_gives_is_of_this_node_and_what_the_agent_sends_stays_as_it_is(
    name: str, collector: Collector, sink: Sink, tmp_path: Path
) -> None:
    sink.start()
    port = free_port()
    collector.environment["POSTEL_NODE__ID"] = "the-node"
    collector.start(files=[with_stand_in(name, tmp_path / "laid-over", port)])
    post(port, 1.0)
    assert collector.send(metric_request(2.0)) == httpx.codes.OK
    until(lambda: len(taken(sink)) == 2, 15, "two points reach the sink")
    assert taken(sink) == {
        1.0: {"host.id": "the-node", "service.name": name, "service.instance.id": ADDRESSES[name]},
        2.0: {"host.id": "node-1"},
    }


@each_database
def test_a_file_lacks_nothing_but_its_receiver(name: str, program: Path) -> None:
    known = subprocess.run([program, "components"], capture_output=True, text=True, timeout=30, check=True).stdout
    files = (collector_config(), collector_config(f"{name}.yaml"))
    done = subprocess.run(
        [program, "validate", *(f"--config={path}" for path in files)],
        env={},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if re.search(rf"^\s*- name: {name}$", known, re.MULTILINE):
        assert done.returncode == 0, done.stderr
    else:
        assert f'unknown type: "{name}"' in done.stderr
        assert done.stderr.count("unknown type") == 1
