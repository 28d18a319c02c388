"""compose.yaml, its Dockerfile and scripts, as far as they can be checked without an engine that runs containers.

`compose-spec.json` beside this file is the schema of the Compose Specification (Apache-2.0, compose-spec/compose-spec,
commit 170098b).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from psycopg import conninfo

from postel.collector_process import environment
from postel.settings import Settings, load_settings
from support.environment import forget_settings

CHECKOUT = Path(__file__).parents[2]
COMPOSE: Mapping[str, Any] = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
LOGINS = {"migrate": "postel", "housekeeping": "postel", "sink": "sink", "serve": "serve"}
"""Who comes into the database as whom; Grafana is one of its own."""
POSTEL = [name for name, service in SERVICES.items() if "build" in service]
MOUNTED = "/run/secrets/"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the script makes, of a checkout of the test's own."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(CHECKOUT / "compose", checkout / "compose")
    subprocess.run(["sh", checkout / "compose" / "secrets.sh"], check=True, capture_output=True, timeout=30)
    return checkout / "secrets"


SettingsOf = Callable[[str], Settings]


@pytest.fixture
def settings_of(secrets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SettingsOf:
    """What a service's environment means to Postel."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def load(service: str) -> Settings:
        with monkeypatch.context() as patched:
            for name, value in SERVICES[service]["environment"].items():
                patched.setenv(name, value.replace(MOUNTED, f"{secrets}/"))
            return load_settings()

    return load


def test_it_is_as_the_specification_says() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema_rs.validator_for(schema).validate(COMPOSE)
    # Where there is a docker with its plugin, it reads it too; no engine is needed for that.
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        subprocess.run([docker, "compose", "config", "--quiet"], cwd=CHECKOUT, check=True, timeout=60)


def test_each_file_that_it_mounts_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, _, _ = volume.partition(":")
            if source.startswith("."):
                assert (CHECKOUT / source).exists(), source
                assert volume.endswith(":ro"), volume
            else:
                assert source in COMPOSE["volumes"]
        assert set(service["networks"]) <= COMPOSE["networks"].keys()


def test_each_secret_is_made_by_the_script_and_given_to_who_reads_it(secrets: Path) -> None:
    made = {path.name for path in secrets.iterdir()}
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} == COMPOSE["secrets"].keys() == made
    used = set()
    for name, service in SERVICES.items():
        text = json.dumps({**service, "secrets": None})
        read = set(re.findall(rf"{MOUNTED}(\w+)", text))
        if name == "timescaledb":
            # By the script that it mounts.
            read |= set(re.findall(r"\$\(password_of (\w+)\)", (CHECKOUT / "compose" / "roles.sh").read_text()))
        assert set(service["secrets"]) == read, name
        used |= read
    assert used == COMPOSE["secrets"].keys()


def test_the_script_keeps_the_secrets_that_are_there_and_nobody_else_comes_into_their_folder(secrets: Path) -> None:
    before = {path: path.read_text() for path in secrets.iterdir()}
    assert len(set(before.values())) == len(before)
    script = secrets.parent / "compose" / "secrets.sh"
    again = subprocess.run(["sh", script], check=True, capture_output=True, text=True, timeout=30)
    assert again.stdout == ""
    assert {path: path.read_text() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700
    # A container reads them as another user than who made them.
    assert {path.stat().st_mode & 0o777 for path in before} == {0o644}


def test_the_script_of_roles_is_where_it_is_told_to_be_run_again() -> None:
    script = "/docker-entrypoint-initdb.d/100-roles.sh"
    assert f"./compose/roles.sh:{script}:ro" in SERVICES["timescaledb"]["volumes"]
    assert f"timescaledb {script}\n" in (CHECKOUT / "docs" / "install.md").read_text()


def test_nothing_is_published_beyond_loopback_and_the_database_not_at_all() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), ports
    assert "ports" not in SERVICES["timescaledb"]
    assert SERVICES["timescaledb"]["networks"] == ["database"]
    assert COMPOSE["networks"]["database"] == {"internal": True}


def test_images_have_a_version() -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    images = {service["image"] for service in SERVICES.values() if "build" not in service}
    images |= set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    for image in images:
        assert re.search(r":[0-9]+\.[0-9]+", image), image


@pytest.mark.parametrize("service", POSTEL)
def test_a_part_of_postel_has_settings_that_there_are(service: str, settings_of: SettingsOf) -> None:
    settings_of(service)


def test_what_needs_the_schema_waits_until_it_is_there() -> None:
    database = {name for name, service in SERVICES.items() if "database" in service["networks"]} - {"timescaledb"}
    assert SERVICES["migrate"]["depends_on"] == {"timescaledb": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"
    for name in database - {"migrate"}:
        assert SERVICES[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}, name


def test_the_parts_reach_each_other(
    settings_of: SettingsOf, secrets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(COMPOSE["services"]["collector"]["environment"], "POSTEL_DATA_DIR", str(tmp_path))
    sink, collector = (settings_of(name) for name in ("sink", "collector"))
    of_collector = environment(collector)
    host, _, port = of_collector["POSTEL_SINK_GRPC"].partition(":")
    assert (host, f"0.0.0.0:{port}") == ("sink", sink.sink.grpc_address)
    assert sink.sink.token
    assert of_collector["POSTEL_SINK_TOKEN"] == sink.sink.token.get_secret_value()
    assert of_collector["POSTEL_COLLECTOR_HTTP"] == "0.0.0.0:4318"
    assert sink.otlp.endpoint == "http://collector:4318"
    assert {service: _login(settings_of(service), secrets) for service in LOGINS} == LOGINS
    for one, other, network in (("collector", "sink", "outside"), ("serve", "timescaledb", "database")):
        assert network in SERVICES[one]["networks"]
        assert network in SERVICES[other]["networks"]


def _login(settings: Settings, secrets: Path) -> str:
    """Who comes into the database with these settings, which are of that of compose.yaml."""
    assert settings.database.url
    url = conninfo.conninfo_to_dict(settings.database.url.get_secret_value())
    assert (url["host"], url["dbname"]) == ("timescaledb", SERVICES["timescaledb"]["environment"]["POSTGRES_DB"])
    assert url["password"] != (secrets / "database_password").read_text()
    return str(url["user"])


@pytest.mark.parametrize(
    ("service", "port", "key"),
    [
        ("sink", "4418", "sink.http_address"),
        ("collector", "13133", "otlp.collector_health_address"),
        ("serve", "3001", "serve.address"),
    ],
)
def test_health_is_asked_where_it_is_told(service: str, port: str, key: str, settings_of: SettingsOf) -> None:
    section, _, name = key.partition(".")
    listens = getattr(getattr(settings_of(service), section), name)
    assert listens.rpartition(":")[2] == port
    assert port in SERVICES[service]["healthcheck"]["test"][-1]


def test_each_published_port_is_listened_on(settings_of: SettingsOf) -> None:
    listened = {
        "collector": {settings_of("collector").otlp.collector_grpc_address, "0.0.0.0:4318"},
        "serve": {settings_of("serve").serve.address},
    }
    for name, addresses in listened.items():
        published = {port.rpartition(":")[2] for port in SERVICES[name]["ports"]}
        assert published == {address.rpartition(":")[2] for address in addresses}
        assert all(address.startswith("0.0.0.0:") for address in addresses)


def test_grafana_is_told_what_its_provisioning_asks_for() -> None:
    grafana = SERVICES["grafana"]
    mounted = [volume.split(":")[0] for volume in grafana["volumes"] if "provisioning" in volume]
    asked = {
        name
        for folder in mounted
        for file in (CHECKOUT / folder).glob("*.yaml")
        for name in re.findall(r"\$\{(\w+)\}", file.read_text())
    }
    given = {name for name in grafana["environment"] if name.startswith("POSTEL_")} | {"POSTEL_GRAFANA_PASSWORD"}
    assert asked == given
    assert 'POSTEL_GRAFANA_PASSWORD="$$(cat /run/secrets/grafana_password)"' in grafana["entrypoint"][-1]
    dashboards = grafana["environment"]["POSTEL_GRAFANA_DASHBOARDS"]
    assert f"./dashboards/grafana/dashboards:{dashboards}:ro" in grafana["volumes"]
    host, _, port = grafana["environment"]["POSTEL_GRAFANA_ADDRESS"].partition(":")
    assert (host in SERVICES, port) == (True, "5432")


def test_what_the_dockerfile_copies_is_there_and_not_left_out() -> None:
    left_out = [
        line
        for line in (CHECKOUT / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.MULTILINE)
    assert "." in copied
    # Of the whole, what the wheel is made of.
    needed = ["postel/cli.py", "mail_plugins/lib/signals.json", "docs/runbooks", "LICENSE", "README.md", "tools"]
    for path in [*copied, *needed]:
        assert (CHECKOUT / path).exists(), path
        assert not any(fnmatch(path, pattern) or path.startswith(f"{pattern}/") for pattern in left_out), path
    assert "secrets" in left_out
    assert 'ENTRYPOINT ["postel"]' in dockerfile
    assert "postel:checkout" in {SERVICES[name]["image"] for name in POSTEL}
