"""What the doctor says of what is not as it should be; of a database, on a real server."""

import asyncio
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from postel import doctor
from postel.doctor import database, files, network, on_disk
from postel.doctor.result import Check, Result, Verdict
from postel.otlp.answers import Outcome
from postel.otlp.errors import Malformed, Retryable
from postel.services.install import Record
from postel.settings import Database, Intake, Otlp, Serve, Settings, Sink
from support.otlp_receiver import running_receiver
from support.ports import free_port, free_ports
from support.postgres import fresh_database
from support.requirements import require
from support.running_agent import agent, environment, stop


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url


def diagnose(url: str, folder: Path) -> list[Result]:
    settings = Settings(data_dir=folder, database=Database(url=url))
    return asyncio.run(results_of(database.check, settings))


async def results_of(check: Check, settings: Settings) -> list[Result]:
    return [result async for result in check(settings)]


def found(results: list[Result], subject: str) -> Result:
    return next(result for result in results if result.subject == subject)


def test_a_database_without_a_schema(empty: str, tmp_path: Path) -> None:
    schema = found(diagnose(empty, tmp_path), "schema")
    assert schema.verdict is Verdict.FAIL
    assert "not applied: 0001_tables.sql" in schema.text
    assert "postel db migrate" in schema.mend


def test_a_newer_schema_is_what_the_sink_refuses(migrated_postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(migrated_postgres, autocommit=True) as connection:
        connection.execute("INSERT INTO postel_migration (name, checksum) VALUES ('0099_future.sql', 'x')")
    schema = found(diagnose(migrated_postgres, tmp_path), "schema")
    assert schema.verdict is Verdict.FAIL
    assert "0099_future.sql, which this Postel does not know" in schema.text
    assert schema.mend == "update Postel"


def test_a_table_that_was_dropped(migrated_postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(migrated_postgres, autocommit=True) as connection:
        connection.execute("DROP TABLE dead_letter CASCADE")
    schema = [result for result in diagnose(migrated_postgres, tmp_path) if "dead_letter" in result.text]
    assert [result.verdict for result in schema] == [Verdict.FAIL]


def test_dead_letters_are_told(migrated_postgres: str, tmp_path: Path) -> None:
    assert "dead letters" not in {result.subject for result in diagnose(migrated_postgres, tmp_path)}
    with psycopg.connect(migrated_postgres, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dead_letter (record_id, hour, destination, reason, record)"
            " VALUES (gen_random_uuid(), date_trunc('hour', now()), 'otel_log', 'it has no time', '{}')"
        )
    assert "1 records could not be stored" in found(diagnose(migrated_postgres, tmp_path), "dead letters").text


def test_a_server_that_is_away(tmp_path: Path) -> None:
    away = found(diagnose("postgresql://postel@127.0.0.1:1/postel", tmp_path), "database")
    assert away.verdict is Verdict.FAIL
    assert away.mend.startswith("start the server, or correct")


def otlp(endpoint: str, protocol: str, **more: object) -> Otlp:
    return Otlp.model_validate({"endpoint": endpoint, "protocol": protocol, **more})


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_the_agents_receiver_is_asked_as_the_agent_asks_it(protocol: str) -> None:
    async with running_receiver(token="abc") as receiver:  # noqa: S106 - a test's
        endpoint, other = (receiver.grpc, receiver.http) if protocol == "grpc" else (receiver.http, receiver.grpc)
        let_in = {"headers": {"authorization": "Bearer abc"}}
        taken = await network.export(otlp(endpoint, protocol, **let_in))
        assert (taken.verdict, taken.text) == (Verdict.OK, f"{endpoint} takes OTLP by {protocol}")
        assert [request.ByteSize() for _, request in receiver.taken] == [0], "nothing is stored for a doctor"

        nobody = await network.export(otlp(endpoint, protocol))
        assert nobody.verdict is Verdict.FAIL
        assert "[otlp] headers" in nobody.mend

        wrong = await network.export(otlp(other, protocol, **let_in))
        assert wrong.verdict is Verdict.FAIL
        assert "[otlp] endpoint and protocol" in wrong.mend

        receiver.answer = Malformed("nothing in it")
        empty = await network.export(otlp(endpoint, protocol, **let_in))
        assert empty.verdict is Verdict.NOTE
        receiver.answer = Retryable(1, "the disk is full")
        full = await network.export(otlp(endpoint, protocol, **let_in))
        assert full.verdict is Verdict.FAIL
        assert "the disk is full" in full.text
        receiver.answer = Outcome()

    away = await network.export(otlp(endpoint, protocol))
    assert away.verdict is Verdict.FAIL
    assert endpoint in away.text


async def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    result = await network.export(otlp(f"https://127.0.0.1:{free_port()}", "http/protobuf", certificate=missing))
    assert result.verdict is Verdict.FAIL
    assert str(missing) in result.text


@contextmanager
def closed_folder() -> Iterator[Path]:
    """A folder that keeps this process out while the block runs: root becomes somebody else for that time."""
    # Not below pytest's own folder, which is closed to others as well.
    above = Path(tempfile.mkdtemp(prefix="postel-"))
    above.chmod(0o755)
    closed = above / "home"
    data = closed / "postel"
    data.mkdir(parents=True)
    (data / "agent.lock").touch()
    closed.chmod(0o700 if os.geteuid() == 0 else 0)
    me = os.geteuid()
    if me == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield closed
    finally:
        os.seteuid(me)
        closed.chmod(0o700)
        shutil.rmtree(above)


def test_a_data_folder_below_anothers_closed_folder_is_named() -> None:
    with closed_folder() as closed:
        settings = Settings(data_dir=closed / "postel")
        (folder,) = asyncio.run(results_of(on_disk.folder, settings))
        (below,) = asyncio.run(results_of(on_disk.folder, Settings(data_dir=closed / "postel/deeper")))
        (agent,) = asyncio.run(results_of(on_disk.agent, settings))
        user = os.geteuid()
    for result, place in ((folder, "postel"), (below, "postel/deeper")):
        assert result.verdict is Verdict.FAIL
        assert result.text == f"{closed} keeps user {user} out, so {closed / place} cannot be reached"
        assert result.mend.startswith(f"give this user the right to pass through {closed}, or set data_dir")
    assert agent.verdict is Verdict.FAIL
    assert f"{closed / 'postel/agent.lock'}: Permission denied" in agent.text


def away(folder: Path) -> Settings:
    """Settings of a Postel of which nothing runs."""
    ports = iter(free_ports(5))
    return Settings.model_validate(
        {
            "data_dir": folder,
            "database": {"url": "postgresql://postel@127.0.0.1:1/postel"},
            "sink": {"http_address": f"127.0.0.1:{next(ports)}"},
            "serve": {"address": f"127.0.0.1:{next(ports)}"},
            "otlp": {
                "collector_http_address": f"127.0.0.1:{next(ports)}",
                "collector_health_address": f"127.0.0.1:{next(ports)}",
            },
        }
    )


SUBJECTS = ["data folder", "database", "sink", "collector", "endpoint", "agent", "page"]


def lines(said: str) -> dict[str, str]:
    """Subject -> its line, without the mail servers' and the mends'."""
    told = [line.partition(": ") for line in said.splitlines() if not line.startswith(" ")]
    return {subject[6:]: f"{subject[:4].strip()} {text}" for subject, _, text in told if subject[6:] in SUBJECTS}


async def test_a_check_that_says_why_it_cannot_go_on_does_not_end_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTEL_COLLECTOR", "/nope")
    assert await doctor.run(away(tmp_path)) == 1
    told = lines(capsys.readouterr().out)
    assert list(told) == SUBJECTS
    assert told["collector"].startswith("FAIL POSTEL_COLLECTOR is /nope, where no program is: give the path")


async def test_a_check_that_breaks_does_not_end_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_settings: Settings) -> AsyncIterator[Result]:
        yield Result(Verdict.OK, "sink", "so far")
        raise ZeroDivisionError("by nought")

    checks = [(subject, broken if subject == "sink" else check, of) for subject, check, of in doctor._CHECKS]
    monkeypatch.setattr(doctor, "_CHECKS", checks)
    monkeypatch.setenv("POSTEL_COLLECTOR", "/bin/true")
    assert await doctor.run(away(tmp_path)) == 1
    said = capsys.readouterr().out
    assert "ok    sink: so far\nFAIL  sink: cannot be checked: ZeroDivisionError: by nought\n      mend: " in said
    assert list(lines(said)) == SUBJECTS


async def test_a_host_that_an_agent_alone_runs_on_is_well(tmp_path: Path) -> None:
    settings_file = written(tmp_path / "postel.toml", "", 0o600)
    written(tmp_path / "installed.json", Record(("agent",)).text().decode(), 0o644)

    async def diagnosed(*arguments: str) -> tuple[int | None, str]:
        command = [sys.executable, "-m", "postel.cli", "doctor", "--config", str(settings_file), *arguments]
        process = await asyncio.create_subprocess_exec(*command, env=variables, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    async with running_receiver() as receiver:
        variables = environment(tmp_path, receiver.http)
        async with agent(variables) as process:
            assert process.stderr
            async for line in process.stderr:
                if b"the agent runs" in line:
                    break
            code, said = await diagnosed()
            assert code == 0, said
            assert said.startswith("ok    parts: agent, of which `postel install` made services")
            assert list(lines(said)) == ["data folder", "endpoint", "agent"]
            code, said = await diagnosed("--part", "agent", "--part", "serve")
            assert code == 1
            assert list(lines(said)) == ["data folder", "database", "endpoint", "agent", "page"]
            # Nobody listens where it sends to, and no Collector can: `up` would let it send to the sink.
            nowhere = f"127.0.0.1:{free_port()}"
            variables |= {"POSTEL_OTLP__ENDPOINT": f"http://{nowhere}", "POSTEL_OTLP__COLLECTOR_HTTP_ADDRESS": nowhere}
            variables["POSTEL_COLLECTOR"] = "none"
            code, said = await diagnosed()
            assert (code, f"endpoint: http://{nowhere} takes no OTLP" in said) == (1, True)
            written(tmp_path / "installed.json", "{", 0o644)
            code, said = await diagnosed()
            assert code == 1
            assert "installed.json is damaged" in said.splitlines()[0]
            assert "database" in lines(said)
            await stop(process)


async def test_a_node_without_a_readable_id_does_not_hide_dead_letters(migrated_postgres: str, tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{}")
    with psycopg.connect(migrated_postgres, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dead_letter (record_id, hour, destination, reason, record)"
            " VALUES (gen_random_uuid(), date_trunc('hour', now()), 'otel_log', 'it has no time', '{}')"
        )
    settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(migrated_postgres)))
    results = await results_of(database.check, settings)
    assert "node.json: holds no id" in found(results, "node").text
    assert "1 records" in found(results, "dead letters").text


async def test_an_address_on_which_nobody_can_listen_names_its_setting(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, serve=Serve(address="nobody.invalid:3001"))
    (page,) = await results_of(network.page, settings)
    assert page.verdict is Verdict.FAIL
    assert page.mend.startswith("cannot listen on nobody.invalid:3001: ")
    assert "set [serve] address to another address" in page.mend


@pytest.fixture
def etc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for settings, with what a host has in /etc/postel; others may look into it, unlike into pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="postel-"))
    folder.chmod(0o755)
    monkeypatch.setenv("POSTEL_CONFIG", str(folder / "postel.toml"))
    monkeypatch.setattr(files, "VARIABLES", (folder / "environment").relative_to("/"))
    yield folder
    shutil.rmtree(folder)


def written(file: Path, text: str, mode: int) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("name", "secret", "other"),
    [
        ("postel.toml", '[sink]\ntoken = "abc"\n', "[sink]\nconnections = 100\n"),
        ("environment", "POSTEL_VENDOR_HEADERS={a: b}\n", "# POSTEL_VENDOR_HEADERS={a: b}\n"),
    ],
)
def test_secrets_that_others_may_read(etc: Path, name: str, secret: str, other: str) -> None:
    def verdict(text: str, mode: int) -> tuple[Verdict, str]:
        written(etc / name, text, mode)
        (found,) = asyncio.run(results_of(files.settings_file, Settings()))
        return found.verdict, found.text

    assert verdict(secret, 0o600) == (Verdict.OK, str(etc / name))
    failed = Verdict.FAIL, f"{etc / name} may be read by every user, and holds what only services shall know"
    assert verdict(secret, 0o644) == failed
    assert verdict(other, 0o644) == (Verdict.OK, str(etc / name))
    # Of its owner's own group, in which nobody else is.
    assert verdict(secret, 0o640) == (Verdict.OK, str(etc / name))
    if os.geteuid() == 0:
        shutil.chown(etc / name, group="daemon")
        assert "may be read by the group daemon" in verdict(secret, 0o640)[1]
    etc.chmod(0o700)
    assert verdict(secret, 0o644) == (Verdict.OK, str(etc / name))


async def test_files_that_the_services_user_cannot_read(etc: Path) -> None:
    """Root reads all of them: the doctor looks as whose the data folder is."""
    require("root", available=os.geteuid() == 0, how="only root becomes another user")
    data, closed = etc / "data", etc / "closed"
    data.mkdir()
    closed.mkdir(0o700)
    nobody = pwd.getpwnam("nobody")
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    key = written(etc / "tls.key", "-----BEGIN PRIVATE KEY-----", 0o600)
    authority = written(closed / "authority.crt", "-----BEGIN CERTIFICATE-----", 0o644)
    settings = Settings(
        data_dir=data,
        sink=Sink(tls_certificate=written(etc / "tls.crt", "-----BEGIN CERTIFICATE-----", 0o644), tls_key=key),
        otlp=otlp("https://gateway.example.org:4318", "http/protobuf", certificate=authority, client_key=etc / "none"),
    )

    async def said() -> dict[str, str]:
        found = await results_of(files.named, settings)
        assert {result.verdict for result in found} <= {Verdict.FAIL}
        return {result.text: result.mend for result in found}

    user = "the user nobody, whose the data folder is,"
    share = f"chgrp {nobody.pw_gid} {key} && chmod 640 {key}"
    assert await said() == {
        f"[otlp] certificate: {user} may not pass through {closed}": f"chmod o+x {closed}",
        f"[otlp] client_key: {etc / 'none'}: No such file or directory": "put it there, or correct [otlp] client_key",
        f"[sink] tls_key: {user} cannot read {key}": share,
    }
    assert os.geteuid() == 0, "it is root again"
    closed.chmod(0o711)
    written(etc / "none", "", 0o644)
    key.chmod(0o644)
    assert await said() == {f"[sink] tls_key: every user may read the key in {key}": share}
    key.chmod(0o640)
    os.chown(key, 0, nobody.pw_gid)
    assert await said() == {}


async def test_files_that_only_plugins_read_need_no_service(etc: Path) -> None:
    """Mended as a service's, a key would be taken from the mail server's user, whose it is."""
    data, closed = etc / "data", etc / "closed"
    data.mkdir()
    closed.mkdir(0o700)
    key = written(closed / "plugins.key", "-----BEGIN PRIVATE KEY-----", 0o640)
    if os.geteuid() == 0:
        shutil.chown(data, "nobody")
        shutil.chown(key, group="daemon")
    intake = Intake(tls_ca=etc / "none", tls_client_certificate=key, tls_client_key=key)

    async def said() -> list[tuple[str, str]]:
        found = await results_of(files.named, Settings(data_dir=data, intake=intake))
        return [(result.text, result.mend) for result in found]

    missing = (
        f"[intake] tls_ca: {etc / 'none'}: No such file or directory",
        "put it there, or correct [intake] tls_ca",
    )
    assert await said() == [missing]
    closed.chmod(0o711)
    key.chmod(0o600)
    assert await said() == [missing]
    key.chmod(0o644)
    assert await said() == [
        missing,
        *(
            (
                f"[intake] {setting}: every user may read the key in {key}",
                f"chgrp GROUP_OF_MAIL_SERVER {key} && chmod 640 {key}",
            )
            for setting in ("tls_client_certificate", "tls_client_key")
        ),
    ]


def test_it_looks_at_each_file_that_settings_name(tmp_path: Path) -> None:
    """Every setting that is a path is one, but for what is said to be none."""
    paths = {
        (section, key)
        for section, field in Settings.model_fields.items()
        for key, kind in getattr(field.annotation, "model_fields", {}).items()
        if "Path" in str(kind.annotation) and key not in files._NO_FILES
    }
    given: dict[str, dict[str, str]] = {}
    for section, key in paths:
        given.setdefault(section, {})[key] = str(tmp_path / key)
    found = {setting for setting, _ in files._named(Settings.model_validate(given))}
    assert found == {f"[{section}] {key}" for section, key in paths}
    assert len(found) >= 12
