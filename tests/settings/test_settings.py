import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ValidationError

from postel import settings
from postel.cli import main
from postel.errors import SettingsError
from postel.settings import Settings, load_settings
from postel.settings_faults import explain


def write(folder: Path, text: str) -> Path:
    path = folder / "postel.toml"
    path.write_text(text, "utf-8")
    return path


def test_defaults_are_those_that_scripts_rely_on() -> None:
    settings = load_settings()
    assert (settings.discovery.zone_mta_port, settings.discovery.zone_mta_metrics_path) == (12080, "/metrics")
    assert (settings.discovery.rspamd_tcp_port, settings.discovery.rspamd_controller_port) == (11333, 11334)
    assert (settings.intervals.system_metrics, settings.intervals.zone_mta_prometheus) == (15, 30)
    assert (settings.intervals.wildduck_api_query, settings.intervals.send_metrics) == (300, 30)
    assert settings.intervals.email_events == "immediate"
    assert (settings.sink.grpc_address, settings.sink.http_address) == ("127.0.0.1:4417", "127.0.0.1:4418")
    assert (settings.intake.address, settings.serve.address) == ("127.0.0.1:4319", "127.0.0.1:3001")
    assert settings.database.url is None
    assert settings.data_dir == Path.home() / ".local/share/postel"


def test_environment_wins_over_file_and_file_over_standard_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(tmp_path, '[otlp]\nendpoint = "http://file.test:1"\n[intervals]\nsystem_metrics = 20\n')
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard.test:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,a=b")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2500")
    monkeypatch.setenv("POSTEL_INTERVALS__SYSTEM_METRICS", "5")
    settings = load_settings(path)
    assert settings.otlp.endpoint == "http://file.test:1"
    assert {k: v.get_secret_value() for k, v in settings.otlp.headers.items()} == {
        "authorization": "Bearer x",
        "a": "b",
    }
    assert settings.otlp.timeout == 2.5
    assert settings.intervals.system_metrics == 5


def test_standard_endpoint_counts_where_the_file_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard.test:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert load_settings().otlp.endpoint == "http://standard.test:1"
    assert load_settings().otlp.protocol == "grpc"


def test_the_agent_sends_to_the_collector_of_up_wherever_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_OTLP__COLLECTOR_HTTP_ADDRESS", "127.0.0.1:5318")
    assert load_settings().otlp.endpoint == "http://127.0.0.1:5318"
    monkeypatch.setenv("POSTEL_OTLP__PROTOCOL", "grpc")
    assert load_settings().otlp.endpoint == "http://127.0.0.1:4317"


@pytest.mark.parametrize(
    ("text", "key", "accepted"),
    [
        ('[intervals]\nsystem_metrics = "fast"', "[intervals] system_metrics = 'fast'", "whole seconds, 1 to 86400"),
        ("[intervals]\nsystem_metrics = 0", "[intervals] system_metrics = 0", "whole seconds, 1 to 86400"),
        ("[intervals]\nsytem_metrics = 3", "[intervals] sytem_metrics is not a known key", "system_metrics"),
        ('[sink]\ngrpc_address = "4417"', "[sink] grpc_address = '4417'", '"host:port"'),
        ("[discovery]\nzone_mta_port = 70000", "[discovery] zone_mta_port = 70000", "1 to 65535"),
        ("[sinks]\na = 1", "sinks is not a known key", "sink"),
        ("[intervals]\nsystem_metrics = true", "[intervals] system_metrics = True", "whole seconds"),
        ('[serve]\naddress = "127.0.0.1:99999"', "[serve] address = '127.0.0.1:99999'", "from 1 to 65535"),
        ('[serve]\naddress = "127.0.0.1:0"', "[serve] address = '127.0.0.1:0'", "from 1 to 65535"),
        ('[sink]\ntoken = "gehü x"', "[sink] token = a value that is not shown", "ASCII without spaces"),
        ('[sink]\ntoken = ""', "[sink] token = a value that is not shown", "ASCII without spaces"),
        ("sink = 3", "sink = a value that is not shown", "a section with the keys grpc_address, http_address"),
        ('[node]\nid = "postel-demo"', "[node] id = 'postel-demo'", 'not "postel-demo"'),
        ('[privacy]\naddresses = "drop"', "[privacy] addresses = 'drop'", '"keep", "hash" or "domain"'),
        ('[intake]\nsocket = ""', "[intake] socket = ''", "the path of a Unix socket"),
        (f'[intake]\nsocket = "/{"x" * 90}"', "[intake] socket = ", "up to 90 bytes"),
        ('[intake]\nsocket_mode = "0888"', "[intake] socket_mode = '0888'", "a file mode in octal digits"),
        ("[intake]\nsocket_mode = 660", "[intake] socket_mode = 660", "in quotes"),
        ('[intervals]\nemail_events = "soon"', "[intervals] email_events = 'soon'", '"immediate", or seconds'),
    ],
)
def test_wrong_key_or_type_names_file_key_and_accepted_form(tmp_path: Path, text: str, key: str, accepted: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)
    assert key in str(caught.value)
    assert accepted in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (name, key)
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key in field.annotation.model_fields
    ],
)
def test_no_setting_takes_a_truth_for_its_value(tmp_path: Path, section: str, key: str) -> None:
    path = write(tmp_path, f"[{section}]\n{key} = true")
    with pytest.raises(SettingsError, match=rf"\[{section}\] {key} = .* is wrong; accepted: .") as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_wrong_variable_is_named_as_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_INTERVALS__SYSTEM_METRICS", "fast")
    with pytest.raises(SettingsError, match="environment, POSTEL_INTERVALS__SYSTEM_METRICS = 'fast' is wrong"):
        load_settings()


def test_a_variable_of_an_unknown_section_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_INTERVAL__SYSTEM_METRICS", "5")
    with pytest.raises(SettingsError, match="POSTEL_INTERVAL__SYSTEM_METRICS: interval is not a known section"):
        load_settings()


def test_a_table_as_variable_says_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_OTLP__HEADERS", "a=b")
    with pytest.raises(SettingsError, match="POSTEL_OTLP__HEADERS is wrong; accepted: a JSON object"):
        load_settings()
    monkeypatch.setenv("POSTEL_OTLP__HEADERS", '{"a": "b"}')
    assert load_settings().otlp.headers["a"].get_secret_value() == "b"


def test_a_list_as_variable_says_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_DISCOVERY__ZONE_MTA_INSTANCES", "127.0.0.1:12081")
    with pytest.raises(
        SettingsError, match=r"DISCOVERY__ZONE_MTA_INSTANCES is wrong; accepted: a JSON list such as \["
    ):
        load_settings()
    monkeypatch.setenv("POSTEL_DISCOVERY__ZONE_MTA_INSTANCES", '["127.0.0.1:12081"]')
    assert load_settings().discovery.zone_mta_instances == ("127.0.0.1:12081",)


def test_a_secret_is_read_from_the_file_that_its_variable_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, tokens = tmp_path / "url", tmp_path / "tokens"
    url.write_text("postgresql://postel:a-secret@db.example.org/postel\n")
    tokens.write_text('["a-token"]\n')
    file = tmp_path / "postel.toml"
    file.write_text('[database]\nurl = "postgresql:///of-the-file"\nconnections = 2\n')
    monkeypatch.setenv("POSTEL_DATABASE__URL_FILE", str(url))
    monkeypatch.setenv("POSTEL_SERVE__READ_TOKENS_FILE", str(tokens))
    settings = load_settings(file)
    assert settings.database.url
    assert settings.database.url.get_secret_value() == "postgresql://postel:a-secret@db.example.org/postel"
    assert settings.database.connections == 2
    assert [token.get_secret_value() for token in settings.serve.read_tokens] == ["a-token"]
    assert "a-secret" not in str(os.environ)


def test_what_is_wrong_with_the_file_of_a_secret_is_said_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv("POSTEL_SINK__TOKEN_FILE", str(file))
    with pytest.raises(SettingsError, match=rf"POSTEL_SINK__TOKEN_FILE: {file} cannot be read: No such file"):
        load_settings()
    file.write_text("two words")
    with pytest.raises(
        SettingsError, match="environment, POSTEL_SINK__TOKEN_FILE = a value that is not shown is wrong"
    ):
        load_settings()
    monkeypatch.setenv("POSTEL_SINK__TOKEN", "a-token")
    with pytest.raises(SettingsError, match="POSTEL_SINK__TOKEN and POSTEL_SINK__TOKEN_FILE are both set"):
        load_settings()
    monkeypatch.delenv("POSTEL_SINK__TOKEN")
    monkeypatch.delenv("POSTEL_SINK__TOKEN_FILE")
    monkeypatch.setenv("POSTEL_SERVE__READ_TOKENS_FILE", str(file))
    with pytest.raises(SettingsError, match="POSTEL_SERVE__READ_TOKENS_FILE is wrong; accepted: a JSON list"):
        load_settings()


def test_what_is_no_secret_is_in_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSTEL_SINK__GRPC_ADDRESS_FILE", str(tmp_path))
    with pytest.raises(SettingsError, match="POSTEL_SINK__GRPC_ADDRESS_FILE is not a known key"):
        load_settings()


def test_an_empty_variable_is_as_if_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_settings()
    for variable in ("POSTEL_DATA_DIR", "POSTEL_DATABASE__URL", "POSTEL_SINK__TOKEN", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.setenv(variable, "")
    assert load_settings() == expected


def test_a_wrong_standard_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with pytest.raises(SettingsError, match="environment, OTEL_EXPORTER_OTLP_TIMEOUT = 'soon' is wrong; accepted: sec"):
        load_settings()


def test_a_section_as_variable_says_how_to_set_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_SERVE", "x")
    with pytest.raises(SettingsError, match="POSTEL_SERVE__KEY"):
        load_settings()


@pytest.mark.parametrize(
    "text",
    [
        '[database]\nurl = ["postgresql://user:hidden@db.test/x"]',
        'database = "postgresql://user:hidden@db.test/x"',
        '[database]\nurl = "postgres//user:hidden@db.test/x"',
        '[database]\nurl = "mysql://user:hidden@db.test/x"',
        '[database]\nurl = "postgresql://user:p@hidden@db.test/x"',
        '[database]\nurl = "postgresql://user:5/hidden@db.test/x"',
        '[database]\nurl = "hidden"',
    ],
)
def test_a_secret_is_not_in_the_message(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert "hidden" not in str(caught.value)
    assert "database" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%40ss%2Fword@db.test:5432/x?sslmode=require",
        "postgresql://user:p?ss#w@db.test/x",
        "postgres://db.test",
        "postgresql:///x?host=/run/postgresql&user=a",
        "postgresql://user:@/postgres?host=/home/a@b/postgres",
        "postgresql://a:b@[::1]:5432,second.test:5433/x",
        "host=/run/postgresql dbname=x password='a@b c'",
    ],
)
def test_what_libpq_takes_is_taken(tmp_path: Path, url: str) -> None:
    settings = load_settings(write(tmp_path, f'[database]\nurl = "{url}"'))
    assert settings.database.url
    assert settings.database.url.get_secret_value() == url
    assert conninfo_to_dict(url)


def test_a_replica_is_one_of_a_database_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[database\] read_url is set and url is not") as error:
        load_settings(write(tmp_path, '[database]\nread_url = "postgresql://user:hidden@db.test/x"'))
    assert "hidden" not in str(error.value)
    settings = load_settings(write(tmp_path, '[database]\nurl = "postgresql://a/x"\nread_url = "postgresql://b/x"'))
    assert settings.database.read_url
    assert settings.database.read_url.get_secret_value() == "postgresql://b/x"


@pytest.mark.parametrize("section", ["intake", "sink"])
def test_a_key_that_is_shown_has_a_certificate(tmp_path: Path, section: str) -> None:
    text = f'[{section}]\ntls_client_key = "/k.pem"\n'
    with pytest.raises(SettingsError) as error:
        load_settings(path := write(tmp_path, text))
    fault = f"[{section}] tls_client_key: /k.pem is of no tls_client_certificate; set that too"
    assert str(error.value) == f"{path}: {fault}"
    settings = load_settings(write(tmp_path, f'{text}tls_client_certificate = "/c.pem"\n'))
    assert getattr(settings, section).tls_client_key == Path("/k.pem")


def test_two_listeners_on_one_address_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '[sink]\ngrpc_address = "127.0.0.1:3001"')
    with pytest.raises(
        SettingsError, match=r"\[serve\] address is 127.0.0.1:3001 and \[sink\] grpc_address is 127.0.0.1:3001"
    ):
        load_settings(path)


@pytest.mark.parametrize("text", ["[intervals", "a = ", "\x00"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent.toml: cannot be read: No such file"):
        load_settings(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    "command",
    [["agent", "--once"], ["agent"], ["sink"], ["serve"], ["up"], ["demo"], ["doctor"], ["describe"]]
    + [["db", name] for name in ("migrate", "status", "check", "url")],
)
def test_every_command_refuses_wrong_settings_before_it_starts_anything(tmp_path: Path, command: list[str]) -> None:
    path = write(tmp_path, "[intervals]\nsystem_metrics = -1")
    data = tmp_path / "data"
    result = CliRunner().invoke(main, [*command, "--config", str(path)], env={"POSTEL_DATA_DIR": str(data)})
    assert result.exit_code == 2
    assert "[intervals] system_metrics = -1 is wrong" in result.stderr
    assert result.stdout == ""
    assert not data.exists()


@given(st.dictionaries(st.text(max_size=8), st.recursive(st.integers() | st.text(max_size=8), st.lists, max_leaves=4)))
def test_any_content_is_settings_or_one_clear_error(content: dict[str, object]) -> None:
    path = Path("postel.toml")
    try:
        Settings(**content)  # type: ignore[arg-type]
    except ValidationError as error:
        explained = explain(error, Settings, path, {})
    else:
        return
    assert explained.startswith("postel.toml: ")


def test_a_folder_named_like_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "postel.toml").mkdir()
    with pytest.raises(SettingsError, match=r"postel\.toml: cannot be read: Is a directory"):
        load_settings()


def test_the_agent_sends_to_a_collector_on_every_interface_by_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTEL_OTLP__COLLECTOR_HTTP_ADDRESS", "0.0.0.0:4318")
    assert load_settings().otlp.endpoint == "http://127.0.0.1:4318"


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])  # noqa: S104 - nothing listens
def test_an_address_everywhere_takes_the_port_from_all_others(tmp_path: Path, everywhere: str) -> None:
    path = write(tmp_path, f'[sink]\nhttp_address = "127.0.0.1:5418"\n[serve]\naddress = "{everywhere}:5418"')
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert f"[serve] address is {everywhere}:5418 and [sink] http_address is 127.0.0.1:5418" in str(caught.value)
    path.write_text(f'[sink]\nhttp_address = "127.0.0.1:5418"\n[serve]\naddress = "{everywhere}:5419"', "utf-8")
    assert load_settings(path).serve.address == f"{everywhere}:5419"


def test_a_default_place_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(settings, "CONFIG_PLACES", (tmp_path / "postel.toml",))
    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(
        SettingsError, match=r"postel\.toml: cannot be read: Permission denied; name another with --config"
    ):
        load_settings()
