"""`postel install`: units for a host's parts; what the user changed stays, and `uninstall` leaves what was before."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner, Result

from postel.cli import main
from postel.services import install
from postel.services.units import Wanted, wanted
from postel.settings import Settings, load_settings

PYTHON = "/opt/postel/bin/python"
SYSTEMD = "etc/systemd/system"
SETTINGS = "etc/postel/postel.toml"
VARIABLES = "etc/postel/environment"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder such as an image has, with a unit of somebody else's."""
    monkeypatch.setenv("POSTEL_COLLECTOR", "none")
    root = tmp_path / "host"
    (root / SYSTEMD).mkdir(parents=True)
    (root / SYSTEMD / "other.service").write_text("[Service]\nExecStart=/bin/true\n")
    return root


def run(command: str, host: Path, *arguments: str) -> Result:
    python = ("--python", PYTHON) if command == "install" and "--python" not in arguments else ()
    return CliRunner().invoke(main, [command, "--root", str(host), *python, *arguments])


def done(command: str, host: Path, *arguments: str) -> str:
    """What it printed; its exit code must be 0."""
    result = run(command, host, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder below: its mode and what is in it."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def units(host: Path) -> set[str]:
    return {path.name for path in (host / SYSTEMD).glob("postel*")}


def test_it_is_undone_to_the_byte(host: Path) -> None:
    before = state(host)
    assert f"would write {host / SYSTEMD / 'postel.service'}" in done("install", host, "--dry-run")
    assert state(host) == before
    said = done("install", host)
    installed = state(host)
    assert units(host) == {"postel.service"}
    assert "  systemd-sysusers && systemctl daemon-reload\n" in said
    assert "  systemctl enable --now postel.service\n" in said
    assert "undo: systemctl disable --now postel.service && postel uninstall\n" in said
    assert done("install", host) == "nothing to do\n"
    assert state(host) == installed
    done("uninstall", host, "--dry-run")
    assert state(host) == installed
    done("uninstall", host)
    assert state(host) == before
    assert done("uninstall", host) == "nothing to do\n"


def test_the_settings_are_roots_alone_and_say_only_where_data_is(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("install", host)
    file = host / SETTINGS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    said = tomllib.loads(file.read_text())
    assert {key: value for key, value in said.items() if value} == {"data_dir": "/var/lib/postel"}
    monkeypatch.chdir(tmp_path)
    assert load_settings(file) == Settings(data_dir=Path("/var/lib/postel"))


def test_the_variables_are_roots_alone_and_say_nothing(host: Path) -> None:
    done("install", host)
    file = host / VARIABLES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert all(line.startswith("#") for line in file.read_text().splitlines())


@pytest.mark.parametrize("name", [SETTINGS, VARIABLES])
def test_what_others_may_read_is_said_and_left(host: Path, name: str) -> None:
    """It was written by hand before, or by a page's block; it holds passwords and tokens."""
    file = host / name
    file.parent.mkdir()
    file.touch(0o644)
    said = f"{file} may be read by every user: chmod 600 {file}\n"
    assert said in done("install", host)
    assert said in done("install", host)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    file.chmod(0o600)
    assert "may be read" not in done("install", host)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[database\n", "is not TOML"),
        ("database = 1\n", "database = a value that is not shown is wrong; accepted: a section"),
        ('[otlp]\nendpont = "http://gateway.example.org:4318"\n', "[otlp] endpont is not a known key"),
    ],
)
def test_settings_that_no_service_would_take_are_said(host: Path, text: str, what: str) -> None:
    file = host / SETTINGS
    file.parent.mkdir()
    file.write_text(text)
    said = done("install", host)
    assert units(host) == {"postel.service"}
    assert f"  correct {file}: " in said
    assert what in said


def test_its_sample_shows_every_key_with_its_default(host: Path, tmp_path: Path) -> None:
    done("install", host)
    lines = (host / SETTINGS).read_text().splitlines()
    # A line that is no sentence: what it would say is what is so already.
    shown = tmp_path / "shown.toml"
    shown.write_text("\n".join(_shown(lines)))
    assert load_settings(shown).model_dump(exclude={"data_dir"}) == Settings().model_dump(exclude={"data_dir"})
    for section, field in Settings.model_fields.items():
        for key in getattr(field.annotation, "model_fields", ()):
            assert any(line.startswith(f"# {key} =") for line in lines), f"[{section}] {key}"


def _shown(lines: list[str]) -> list[str]:
    """The sample with what is commented out as if it were not."""
    keys = {key for field in Settings.model_fields.values() for key in getattr(field.annotation, "model_fields", ())}
    return [
        line.removeprefix("# ") if (words := line.removeprefix("# ").split(" = ", 1))[0] in keys and words[1:] else line
        for line in lines
    ]


def test_parts_are_added_to_those_that_are_there(host: Path) -> None:
    done("install", host, "--part", "agent")
    said = done("install", host, "--part", "collector", "--part", "sink", "--part", "serve")
    assert units(host) == {f"postel-{part}.service" for part in ("agent", "collector", "sink", "serve")}
    assert "postel-agent.service postel-collector.service postel-sink.service postel-serve.service" in said
    done("uninstall", host)
    assert units(host) == set()


def test_all_at_once_and_a_part_of_it_are_not_had_together(host: Path) -> None:
    done("install", host)
    before = state(host)
    refused = run("install", host, "--part", "sink")
    assert refused.exit_code == 2
    assert "`up` runs sink as well" in refused.output
    assert state(host) == before


def test_a_gateway_stands_beside_no_other_collector_and_a_member_beside_any(host: Path) -> None:
    done("install", host, "--part", "gateway", "--part", "kafka-member", "--part", "sink", "--part", "agent")
    parts = ("gateway", "kafka-member", "sink", "agent")
    assert units(host) == {f"postel-{part}.service" for part in parts}
    before = state(host)
    for part in ("collector", "up"):
        assert run("install", host, "--part", part).exit_code == 2
    assert "`collector` has a Collector where the gateway would" in run("install", host, "--part", "collector").output
    assert state(host) == before
    done("uninstall", host)
    done("install", host, "--part", "up", "--part", "kafka-member")
    assert "`up` has a Collector where the gateway would" in run("install", host, "--part", "gateway").output
    assert units(host) == {"postel.service", "postel-kafka-member.service"}


def test_what_a_gateway_or_a_member_lacks_is_said(host: Path) -> None:
    said = done("install", host, "--part", "gateway")
    gateway, settings, variables = host / "etc/postel/gateway", host / SETTINGS, host / "etc/postel/environment"
    assert f"  tls.crt, tls.key, tokens in {gateway}, which the group postel may read" in said
    assert f"  [otlp] collector_grpc_address and collector_http_address in {settings}" in said
    assert f"  [otlp] endpoint in {settings}: where" in said
    assert "KAFKA" not in said
    settings.write_text(
        '[otlp]\ncollector_grpc_address = "0.0.0.0:4317"\nendpoint = "http://127.0.0.1:4418"\n'
        'collector_layers = ["gateway-mtls", "to-kafka"]\n'
    )
    gateway.mkdir()
    (gateway / "tls.crt").touch()
    variables.write_text("POSTEL_GATEWAY_KEY=/elsewhere/tls.key\n")
    said = done("install", host, "--part", "serve")
    assert f"  clients.crt in {gateway}, which" in said
    assert "[otlp]" not in said
    assert f"  POSTEL_KAFKA_BROKERS in {variables}: without it Kafka is looked for at 127.0.0.1:9092\n" in said
    (gateway / "clients.crt").touch()
    variables.write_text(f"{variables.read_text()}POSTEL_KAFKA_BROKERS=kafka-1.example.org:9092\n")
    said = done("install", host, "--part", "kafka-member")
    assert "clients.crt" not in said
    assert "KAFKA" not in said


def test_what_the_user_changed_stays_and_the_rest_is_replaced(host: Path) -> None:
    done("install", host, "--part", "agent", "--part", "sink")
    settings, agent, sink = (
        host / SETTINGS,
        host / SYSTEMD / "postel-agent.service",
        host / SYSTEMD / "postel-sink.service",
    )
    settings.write_text('[database]\nurl = "postgresql:///postel"\n')
    agent.write_text(f"{agent.read_text()}# mine\n")
    said = done("install", host, "--python", "/opt/postel-2/bin/python")
    assert f"{settings} was changed and stays as it is\n" in said
    assert f"{agent} was changed and stays as it is\n" in said
    assert f"done: replace {sink}\n" in said
    assert "ExecStart=/opt/postel-2/bin/python " in sink.read_text()
    assert agent.read_text().endswith("# mine\n")
    said = done("uninstall", host)
    assert f"{settings} was changed and stays as it is\n" in said
    assert {path.name for path in (host / "etc" / "postel").iterdir()} == {"postel.toml"}
    assert units(host) == {"postel-agent.service"}


def test_settings_that_were_there_are_the_users(host: Path) -> None:
    file = host / SETTINGS
    file.parent.mkdir()
    file.write_text('data_dir = "/srv/postel"\n')
    before = state(host)
    assert f"{file} was there before and stays as it is\n" in done("install", host)
    assert "nothing to do" in done("install", host)
    done("uninstall", host)
    assert state(host) == before


def test_what_a_part_lacks_is_said(host: Path) -> None:
    assert f"  [otlp] endpoint in {host / SETTINGS}, unless" in done("install", host, "--part", "agent")
    said = done("install", host, "--part", "serve")
    assert f"  [database] url in {host / SETTINGS}: sink and serve run apart" in said
    (host / SETTINGS).write_text('[database]\nurl = "postgresql:///postel"\n')
    said = done("install", host, "--part", "sink", "--part", "collector")
    assert "[database]" not in said
    assert "[otlp]" not in said
    assert "  the Collector as /usr/local/bin/postel-otelcol" in said


@pytest.fixture
def earlier(host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The unit of a part that this Postel has no more, as the one before installed it beside the agent's."""
    unit = Wanted(PurePosixPath(SYSTEMD) / "postel-former.service", b"[Service]\nExecStart=/bin/true\n")
    with monkeypatch.context() as before:
        before.setattr(install, "wanted", lambda parts, python: [*wanted(parts, python), unit])
        done("install", host, "--part", "agent")
    assert units(host) == {"postel-agent.service", "postel-former.service"}
    return host / unit.place


def test_what_an_earlier_version_wrote_and_this_one_does_not_goes(host: Path, earlier: Path) -> None:
    assert f"would remove {earlier}\n" in done("install", host, "--dry-run")
    assert f"done: remove {earlier}\n" in done("install", host)
    assert units(host) == {"postel-agent.service"}
    assert done("install", host) == "nothing to do\n"


def test_what_of_it_the_user_changed_or_systemd_starts_stays_and_is_not_forgotten(host: Path, earlier: Path) -> None:
    written = earlier.read_bytes()
    earlier.write_bytes(written + b"# mine\n")
    assert f"{earlier} was changed and stays as it is; this Postel has none\n" in done("install", host)
    earlier.write_bytes(written)
    wants = host / SYSTEMD / "multi-user.target.wants"
    wants.mkdir()
    (wants / earlier.name).symlink_to(f"/etc/systemd/system/{earlier.name}")
    assert f"systemctl disable --now {earlier.name}" in done("install", host)
    refused = run("uninstall", host)
    assert refused.exit_code == 2
    assert f"systemctl disable --now {earlier.name}" in refused.output
    (wants / earlier.name).unlink()
    done("uninstall", host)
    assert units(host) == set()


def test_a_service_that_systemd_starts_at_boot_is_not_taken_out(host: Path) -> None:
    done("install", host, "--part", "sink")
    wants = host / SYSTEMD / "multi-user.target.wants"
    wants.mkdir()
    # As `systemctl enable` does: the link says where the unit is on the host.
    (wants / "postel-sink.service").symlink_to("/etc/systemd/system/postel-sink.service")
    before = state(host)
    refused = run("uninstall", host)
    assert refused.exit_code == 2
    assert "systemctl disable --now postel-sink.service" in refused.output
    assert state(host) == before


@pytest.mark.parametrize("place", ["/root/postel/.venv", "/home/me/.venv", "/tmp/x", "/opt/with blank"])  # noqa: S108
def test_an_environment_that_no_service_can_run_is_refused(host: Path, place: str) -> None:
    before = state(host)
    refused = run("install", host, "--python", f"{place}/bin/python")
    assert refused.exit_code == 2
    assert place in refused.output
    assert state(host) == before
