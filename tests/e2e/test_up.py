"""`postel up` as a user starts it: all programs, the real Collector, the embedded database."""

import os
import pty
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from postel.collector import find_collector
from support.collector import metric_request
from support.overlays import with_stand_in
from support.ports import free_port
from support.requirements import require
from support.running_postel import RunningPostel, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FAST = {
    "POSTEL_INTERVALS__SYSTEM_METRICS": "1",
    "POSTEL_INTERVALS__ZONE_MTA_PROMETHEUS": "1",
    "POSTEL_INTERVALS__SEND_METRICS": "1",
}
SECURED = {"POSTEL_SINK__TOKEN": "a-token-of-the-test"}
PROGRAMS = ("sink", "collector", "agent", "serve")


@pytest.fixture(autouse=True)
def collector() -> None:
    require("collector", available=find_collector() is not None)


# The default is waited for by `make soak`: it sends every 30 s.
@pytest.mark.parametrize(
    ("variables", "interval"),
    [pytest.param(FAST, 1, id="each second"), pytest.param({}, 15, id="by default", marks=pytest.mark.soak)],
)
def test_rows_of_this_host_arrive_a_second_start_is_quick_and_the_end_leaves_nothing_running(
    tmp_path: Path, variables: dict[str, str], interval: int
) -> None:
    begun = time.monotonic()
    with running(tmp_path, **variables) as postel:
        until(lambda: postel.rows_of_host() >= 2, 90, "rows in metrics_system")
        first = time.monotonic() - begun
        ((apart,),) = postel.query(
            "SELECT array_agg(DISTINCT extract(epoch FROM time) %% %s) FROM metrics_system", interval
        )
        assert apart == [0]
        nodes = postel.query("SELECT id, host, demo FROM node")
        assert len(nodes) == 1
        assert nodes[0][1] == socket.gethostname()
        assert not nodes[0][2]
        assert postel.pid("collector")
        assert postel.stop(signal.SIGINT) == 0
        again = time.monotonic()
        postel.start()
        until(lambda: answers(postel.page), 10, "the page answers again", pause=0.05)
        assert time.monotonic() - again < 10
        assert postel.query("SELECT id FROM node") == [(nodes[0][0],)]
        assert postel.stop(signal.SIGTERM) == 0
        assert left(postel) == []
        assert "killed" not in postel.log.read_text()
        assert postel.log.read_text().rstrip().endswith("postel: stopped")
    assert first < 90


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


# By `make test` each of them is killed too, and no sample is missing: tests/e2e/test_no_sample_lost.py.
@pytest.mark.soak
def test_what_dies_comes_back_and_data_flows_on(tmp_path: Path) -> None:
    # With a token, so that it is seen to pass through the Collector too.
    with running(tmp_path, **FAST, **SECURED) as postel:
        until(lambda: postel.rows_of_host() >= 2, 60, "first rows")
        for program in PROGRAMS:
            before = postel.kill(program)
            until(lambda: postel.runs(program, but=before), 20, f"{program} runs again")  # noqa: B023 - used at once
            seen = postel.rows_of_host()
            until(lambda: postel.rows_of_host() > seen + 1, 60, f"rows after {program} was killed")  # noqa: B023 - as above
        assert postel.log.read_text().count("ended with signal SIGKILL") == len(PROGRAMS)


def left(postel: RunningPostel) -> list[list[str]]:
    """The processes that belong to it, all of which have its data folder in their environment."""
    return [process.cmdline() for process in psutil.process_iter() if str(postel.data) in str(environment(process))]


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


# The first argument is where the rest prints to.
INTO_PIPE = ("sh", "-c", 'exec "$@" >"$0" 2>&1')
# Opened for reading too, it becomes the controlling terminal of the session that the command leads.
ON_TERMINAL = ("sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1')


# By `make test` the supervisor shows it, with other programs: tests/up/test_supervisor.py.
@pytest.mark.soak
def test_a_log_whose_reader_left_ends_nothing(tmp_path: Path) -> None:
    # As `postel up 2>&1 | tee log`, where Ctrl-C ends tee at once.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with running(tmp_path, **FAST, under=(*INTO_PIPE, str(pipe))) as postel:
        until(lambda: postel.rows_of_host() >= 1, 60, "first rows")
        os.close(reader)
        before = postel.kill("agent")
        until(lambda: postel.runs("agent", but=before), 20, "agent runs again")
        seen = postel.rows_of_host()
        until(lambda: postel.rows_of_host() > seen + 1, 60, "rows after the agent was killed")
        assert postel.stop(signal.SIGINT) == 0
        assert left(postel) == []


@pytest.fixture
def terminal() -> Iterator[tuple[str, Callable[[], None]]]:
    """The name of a terminal, and what hangs it up."""
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    os.close(slave)
    with os.fdopen(master) as end:
        yield name, end.close


def test_a_terminal_that_hangs_up_ends_it_in_order(tmp_path: Path, terminal: tuple[str, Callable[[], None]]) -> None:
    # As `postel up` in an ssh session that drops.
    name, hang_up = terminal
    with running(tmp_path, under=(*ON_TERMINAL, name), POSTEL_COLLECTOR="none") as postel:
        until(lambda: answers(postel.page), 30, "the page answers")
        hang_up()
        assert postel.end() == 0
        assert left(postel) == []


def test_under_nohup_it_outlives_its_terminal(tmp_path: Path, terminal: tuple[str, Callable[[], None]]) -> None:
    name, hang_up = terminal
    with running(tmp_path, under=(*ON_TERMINAL, name, "nohup"), POSTEL_COLLECTOR="none") as postel:
        until(lambda: answers(postel.page), 30, "the page answers")
        hang_up()
        time.sleep(1)
        assert answers(postel.page)
        assert postel.stop(signal.SIGTERM) == 0
        assert (tmp_path / "nohup.out").read_text().rstrip().endswith("postel: stopped")


def test_an_address_in_use_is_named_with_its_setting_and_nothing_starts(tmp_path: Path) -> None:
    postel = RunningPostel(tmp_path)
    with socket.create_server(("127.0.0.1", postel.ports["sink_http"])):
        ended = postel.command("up")
    assert ended.returncode == 2
    assert f"127.0.0.1:{postel.ports['sink_http']} is in use by another program" in ended.stderr
    assert "[sink] http_address" in ended.stderr
    assert not (postel.data / "postgres").exists()


@pytest.mark.parametrize(
    "secured", [pytest.param(SECURED, id="token"), pytest.param({}, id="no token", marks=pytest.mark.soak)]
)
def test_without_a_collector_the_agent_sends_straight_to_the_sink_and_says_so(
    tmp_path: Path, secured: dict[str, str]
) -> None:
    with running(tmp_path, **FAST, **secured, POSTEL_COLLECTOR="none") as postel:
        until(lambda: postel.rows_of_host() >= 2, 60, "rows without a Collector")
        assert "POSTEL_COLLECTOR is none: the agent sends straight to the sink" in postel.log.read_text()
        with pytest.raises(LookupError):
            postel.pid("collector")


def test_the_demo_is_seen_marked_and_can_be_removed(tmp_path: Path) -> None:
    count = "SELECT count(*) FROM metrics_zonemta WHERE node_id = 'postel-demo'"
    with running(tmp_path, "--demo", **FAST) as postel:
        until(lambda: (postel.query(count) or [(0,)])[0][0] > 300, 90, "the demo's day")
        until(
            lambda: postel.query("SELECT 1 FROM node WHERE demo AND id = 'postel-demo'"),
            30,
            "the demo's node is marked",
        )
        until(lambda: postel.rows_of_host() > 240, 60, "the demo's host")
        assert postel.stop() == 0
        postel.arguments = ()
        postel.start()
        until(lambda: answers(postel.page), 20, "the page answers")
        before = postel.query("SELECT count(*) FROM metrics_system WHERE node_id <> 'postel-demo'")
        removed = postel.command("demo", "--remove")
        assert removed.returncode == 0, removed.stderr
        assert postel.query(count) == [(0,)]
        assert postel.query("SELECT count(*) FROM node WHERE demo") == [(0,)]
        assert postel.query("SELECT count(*) FROM metrics_system WHERE node_id <> 'postel-demo'") >= before
        assert postel.command("db", "check").returncode == 0


def test_the_doctor_finds_a_running_postel_well_and_names_what_is_missing_of_a_stopped_one(tmp_path: Path) -> None:
    with running(tmp_path, **FAST) as postel:
        until(lambda: postel.rows_of_host() >= 2, 60, "first rows")
        well = postel.command("doctor")
        assert well.returncode == 0, well.stdout
        for subject in ("database", "schema", "samples", "sink", "collector", "agent", "spool", "page"):
            assert f"ok    {subject}: " in well.stdout
        assert postel.stop() == 0
    ill = postel.command("doctor")
    assert ill.returncode == 1
    for subject in ("database", "sink", "collector", "agent", "page"):
        assert re.search(rf"FAIL  {subject}: .*\n      mend: .*postel up", ill.stdout), ill.stdout


def test_what_a_folder_of_ones_own_adds_to_the_collector_is_stored_as_this_nodes(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "collector.d"
    with_stand_in("redis", folder, port)
    (folder / "notes.txt").write_text("not YAML: {")
    with running(tmp_path, **FAST, POSTEL_OTLP__COLLECTOR_CONFIG_DIR=str(folder)) as postel:
        until(postel.rows_of_host, 90, "rows of the agent, which came through the same Collector")
        request = metric_request(0.5)
        request.resource_metrics[0].resource.Clear()
        request.resource_metrics[0].scope_metrics[0].metrics[0].name = "redis.cpu.time"
        request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].time_unix_nano = time.time_ns()
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/metrics",
            content=request.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
        )
        assert answer.status_code == httpx.codes.OK
        stored = (
            "SELECT node.id, series.resource ->> 'service.name' FROM otel_metric_point"
            " JOIN otel_series AS series USING (series_id) JOIN node ON node.id = series.resource ->> 'host.id'"
            " WHERE series.metric = 'redis.cpu.time'"
        )
        found = until(lambda: postel.query(stored), 30, "the point is stored")
        assert found == [(postel.query("SELECT id FROM node")[0][0], "redis")]


def test_a_folder_for_the_collector_that_is_not_there_is_named_and_nothing_starts(tmp_path: Path) -> None:
    postel = RunningPostel(tmp_path, {"POSTEL_OTLP__COLLECTOR_CONFIG_DIR": str(tmp_path / "missing")})
    postel.start()
    assert postel.end() == 2
    assert f"[otlp] collector_config_dir is {tmp_path / 'missing'}: No such file" in postel.log.read_text()
