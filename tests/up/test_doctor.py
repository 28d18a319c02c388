"""What the doctor says of a database that is not as it should be, on a real server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from postel import doctor
from postel.otlp.answers import Outcome
from postel.otlp.errors import Malformed, Retryable
from postel.settings import Database, Otlp, Settings
from support.otlp_receiver import running_receiver
from support.ports import free_port
from support.postgres import fresh_database


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url


def diagnose(url: str, folder: Path) -> list[doctor.Result]:
    settings = Settings(data_dir=folder, database=Database(url=url))

    async def collect() -> list[doctor.Result]:
        return [result async for result in doctor._database(settings)]

    return asyncio.run(collect())


def found(results: list[doctor.Result], subject: str) -> doctor.Result:
    return next(result for result in results if result.subject == subject)


def test_a_database_without_a_schema(empty: str, tmp_path: Path) -> None:
    schema = found(diagnose(empty, tmp_path), "schema")
    assert schema.verdict is doctor.Verdict.FAIL
    assert "not applied: 0001_tables.sql" in schema.text
    assert "postel db migrate" in schema.mend


def test_a_newer_schema_is_what_the_sink_refuses(migrated_database: str, tmp_path: Path) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("INSERT INTO postel_migration (name, checksum) VALUES ('0099_future.sql', 'x')")
    schema = found(diagnose(migrated_database, tmp_path), "schema")
    assert schema.verdict is doctor.Verdict.FAIL
    assert "0099_future.sql, which this Postel does not know" in schema.text
    assert schema.mend == "update Postel"


def test_a_table_that_was_dropped(migrated_database: str, tmp_path: Path) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("DROP TABLE dead_letter CASCADE")
    schema = [result for result in diagnose(migrated_database, tmp_path) if "dead_letter" in result.text]
    assert [result.verdict for result in schema] == [doctor.Verdict.FAIL]


def test_dead_letters_are_told(migrated_database: str, tmp_path: Path) -> None:
    assert "dead letters" not in {result.subject for result in diagnose(migrated_database, tmp_path)}
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dead_letter (record_id, hour, destination, reason, record)"
            " VALUES (gen_random_uuid(), date_trunc('hour', now()), 'otel_log', 'it has no time', '{}')"
        )
    assert "1 records could not be stored" in found(diagnose(migrated_database, tmp_path), "dead letters").text


def test_a_server_that_is_away(tmp_path: Path) -> None:
    away = found(diagnose("postgresql://postel@127.0.0.1:1/postel", tmp_path), "database")
    assert away.verdict is doctor.Verdict.FAIL
    assert away.mend.startswith("start the server, or correct")


def otlp(endpoint: str, protocol: str, **more: object) -> Otlp:
    return Otlp.model_validate({"endpoint": endpoint, "protocol": protocol, **more})


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_the_agents_receiver_is_asked_as_the_agent_asks_it(protocol: str) -> None:
    async with running_receiver(token="abc") as receiver:  # noqa: S106 - a test's
        endpoint, other = (receiver.grpc, receiver.http) if protocol == "grpc" else (receiver.http, receiver.grpc)
        let_in = {"headers": {"authorization": "Bearer abc"}}
        taken = await doctor._export(otlp(endpoint, protocol, **let_in))
        assert (taken.verdict, taken.text) == (doctor.Verdict.OK, f"{endpoint} takes OTLP by {protocol}")
        assert [request.ByteSize() for _, request in receiver.taken] == [0], "nothing is stored for a doctor"

        nobody = await doctor._export(otlp(endpoint, protocol))
        assert nobody.verdict is doctor.Verdict.FAIL
        assert "[otlp] headers" in nobody.mend

        wrong = await doctor._export(otlp(other, protocol, **let_in))
        assert wrong.verdict is doctor.Verdict.FAIL
        assert "[otlp] endpoint and protocol" in wrong.mend

        receiver.answer = Malformed("nothing in it")
        empty = await doctor._export(otlp(endpoint, protocol, **let_in))
        assert empty.verdict is doctor.Verdict.NOTE
        receiver.answer = Retryable(1, "the disk is full")
        full = await doctor._export(otlp(endpoint, protocol, **let_in))
        assert full.verdict is doctor.Verdict.FAIL
        assert "the disk is full" in full.text
        receiver.answer = Outcome()

    away = await doctor._export(otlp(endpoint, protocol))
    assert away.verdict is doctor.Verdict.FAIL
    assert endpoint in away.text


async def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    result = await doctor._export(otlp(f"https://127.0.0.1:{free_port()}", "http/protobuf", certificate=missing))
    assert result.verdict is doctor.Verdict.FAIL
    assert str(missing) in result.text
