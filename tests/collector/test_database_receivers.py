"""The databases' own receivers, built in as collector-config/README.md says, against a real Redis and `secantusdb`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymongo
import pytest
import yaml
from testbed.backends import Backends
from testbed.program import until

from postel.collector import built_collector, collector_config
from support.bootstrap import CHECKOUT, copy_checkout
from support.collector import Collector
from support.markdown import blocks
from support.ports import free_port
from support.requirements import require
from support.sink import running_sink

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
EACH_SECOND = ("receivers::redis::collection_interval: 1s", "receivers::mongodb::collection_interval: 1s")
# What stands in the log of MongoDB's receiver for each figure that the server does not tell.
LACKING = re.compile(r"failed to collect metric ([\w.]+)")
NOT_TOLD_BY_SECANTUSDB = {
    "mongodb.cache.operations",
    "mongodb.cursor.timeout.count",
    "mongodb.global_lock.time",
}

Figures = dict[tuple[str, str], float]
"""(metric, its database, type, operation or Redis number) -> the newest value"""


@pytest.fixture(scope="module")
def receivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Collector of the manifest with the lines of the README, built as `make collector` does and kept in .build."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout") / "checkout")
    (CHECKOUT / ".build").mkdir(exist_ok=True)
    (checkout / ".build").symlink_to(CHECKOUT / ".build")
    # A developer's, so that Go's caches stay.
    (checkout / ".venv").symlink_to(sys.prefix)
    (block,) = blocks("collector-config/README.md", "yaml")
    lines = yaml.safe_load(block.text)
    manifest = checkout / "collector-config" / "builder.yaml"
    content = yaml.safe_load(manifest.read_text())
    for part, entries in lines.items():
        content[part] = content.get(part, []) + entries
    manifest.write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, "-m", "tools.bootstrap.collector", "--retry"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=800, check=True)
    built = built_collector(checkout)
    assert built
    require("database-receivers", available=built.exists(), how=done.stdout)
    return built


@pytest.fixture
def databases(receivers: Path, tmp_path: Path) -> Iterator[Collector]:
    """A Collector with the two files; nothing is said of where it sends or asks."""
    collector = Collector(receivers, tmp_path, free_port())
    collector.environment["POSTEL_NODE__ID"] = "the-node"
    yield collector
    collector.end()


FILES = [collector_config("redis.yaml"), collector_config("mongodb.yaml")]


def stored(url: str, instance: str) -> Figures:
    newest = """
        SELECT DISTINCT ON (series_id) metric,
            concat_ws(' ', resource ->> 'database', attributes ->> 'type', attributes ->> 'operation',
                attributes ->> 'db'),
            value
        FROM otel_metric_point JOIN otel_series USING (series_id)
        WHERE node_id = 'the-node' AND instance = %s
        ORDER BY series_id, time DESC"""
    with psycopg.connect(url) as connection:
        return {(metric, of): value for metric, of, value in connection.execute(newest, [instance])}


def redis(port: int, *words: str) -> str:
    command = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def test_the_figures_of_both_are_stored_as_the_servers_tell_them(
    databases: Collector, backends: Backends, tmp_path: Path, migrated_postgres: str
) -> None:
    mongo: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(port=backends.mongo_port)
    mongo.mail.messages.insert_many([{"number": number} for number in range(7)])
    mongo.mail.messages.create_index("number")
    redis(backends.redis_port, "-n", "3", "MSET", "a", "1", "b", "2")
    # A user that may ask for INFO alone, as README.md says it needs.
    redis(backends.redis_port, "ACL", "SETUSER", "watcher", "on", ">secret", "+info")
    addresses = {"redis": f"127.0.0.1:{backends.redis_port}", "mongodb": f"127.0.0.1:{backends.mongo_port}"}
    with running_sink(tmp_path, migrated_postgres) as sink:
        sink.start()
        databases.environment |= {
            "POSTEL_SINK_GRPC": sink.grpc,
            "POSTEL_REDIS": addresses["redis"],
            "POSTEL_REDIS_USERNAME": "watcher",
            "POSTEL_REDIS_PASSWORD": "secret",
            "POSTEL_MONGODB": addresses["mongodb"],
        }
        databases.start(*EACH_SECOND, files=FILES)

        def newest(name: str) -> Figures:
            return stored(migrated_postgres, addresses[name])

        until(lambda: ("redis.db.keys", "3") in newest("redis"), 20, databases.log())
        until(lambda: ("mongodb.object.count", "mail") in newest("mongodb"), 20, databases.log())
        told = dict(re.findall(r"^(\w+):(\d+)\r?$", redis(backends.redis_port, "INFO"), re.MULTILINE))
        of_redis, of_mongo = newest("redis"), newest("mongodb")
        size = mongo.mail.command("dbStats")
        databases.stop()
    mongo.close()
    assert of_redis["redis.db.keys", "3"] == 2
    # redis-cli, which asked for `told`, is a client more.
    assert of_redis["redis.clients.connected", ""] == int(told["connected_clients"]) - 1
    assert of_redis["redis.memory.used", ""] == pytest.approx(int(told["used_memory"]), rel=0.2)
    assert 0 < of_redis["redis.commands.processed", ""] <= int(told["total_commands_processed"])
    assert of_mongo["mongodb.object.count", "mail"] == size["objects"] == 7
    assert of_mongo["mongodb.collection.count", "mail"] == size["collections"] == 1
    assert of_mongo["mongodb.index.count", "mail"] == size["indexes"] == 2
    assert of_mongo["mongodb.data.size", "mail"] == size["dataSize"]
    assert of_mongo["mongodb.index.size", "mail"] == size["indexSize"]
    assert of_mongo["mongodb.operation.count", "insert"] >= 1
    assert set(LACKING.findall(databases.log())) >= NOT_TOLD_BY_SECANTUSDB


def test_a_collector_whose_databases_are_away_ends_before_postel_up_kills_it(databases: Collector) -> None:
    databases.environment |= {name: f"127.0.0.1:{free_port()}" for name in ("POSTEL_REDIS", "POSTEL_MONGODB")}
    databases.start(files=FILES)
    # Each is asked a second after the start; what waits for MongoDB says nothing meanwhile.
    until(lambda: "redis: connection pool: failed to dial" in databases.log(), 20, "Redis is asked, and away")
    start = time.monotonic()
    assert databases.stop() == 0
    assert time.monotonic() - start < 14
