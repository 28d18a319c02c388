"""Every setting of Postel: ``postel.toml``, and each key also as ``POSTEL_SECTION__KEY``.

The environment wins over the file, the file over the standard ``OTEL_EXPORTER_OTLP_*`` variables, these over the
defaults. An empty variable is as if unset (OpenTelemetry, "Environment Variable Specification"). A key that is secret
may be given as ``POSTEL_SECTION__KEY_FILE``, the path of a file that holds the variable's value. An unknown key or a
wrong type stops the program before anything starts, with a message that names the file, the key and the accepted form
(the field's description below).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import unquote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as UnreadableVariableError

from postel.errors import SettingsError
from postel.listening import overlap, reachable
from postel.settings_faults import explain, explain_unreadable, secret_keys
from postel.settings_values import (
    Address,
    Certificate,
    CertificateKey,
    ClientAuthority,
    DatabaseUrl,
    Endpoint,
    Folder,
    Host,
    Interval,
    Listener,
    Mode,
    Number,
    Port,
    Seconds,
    SocketPath,
    Token,
    Whole,
)

# Where a file is looked for when --config names none; the first that exists is read.
CONFIG_PLACES = (Path("postel.toml"), Path("/etc/postel/postel.toml"))

# The node that `postel demo` makes up; no real one may be taken for it, and be deleted with it.
DEMO_NODE = "postel-demo"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Section):
    """``[node]``: who this host is."""

    id: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description=f'a text that names this node for good, up to 255 characters, not "{DEMO_NODE}"',
    )

    @field_validator("id")
    @classmethod
    def _real(cls, node_id: str | None) -> str | None:
        if node_id == DEMO_NODE:
            raise ValueError("is the demo's")
        return node_id


class Discovery(_Section):
    """``[discovery]``: where the mail servers are looked for."""

    zone_mta_host: Host = "127.0.0.1"
    zone_mta_port: Port = 12080
    zone_mta_instances: tuple[Address, ...] = Field(
        (), description='Zone-MTAs beside that one, a list such as ["127.0.0.1:12081", "mta2.example.org:12080"]'
    )
    zone_mta_metrics_path: str = Field("/metrics", pattern=r"^/", description='a path such as "/metrics"')
    zone_mta_queue_id: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="a text that all Zone-MTAs with one database have in common; unset: each has a queue of its own",
    )
    wildduck_host: Host = "127.0.0.1"
    wildduck_api_port: Port | None = Field(None, description="a port number; unset: 8080, then 3000")
    wildduck_api_token: Token | None = Field(None, description="WildDuck's API access token, ASCII without spaces")
    wildduck_metrics_port: Port | None = Field(None, description="a port number; unset: 8081")
    haraka_smtp_port: Port = 25
    rspamd_host: Host = "127.0.0.1"
    rspamd_tcp_port: Port = 11333
    rspamd_controller_port: Port = 11334
    rspamd_password: Token | None = Field(
        None, description="the password of Rspamd's controller; one that only reads does; ASCII without spaces"
    )
    tls_listeners: tuple[Listener, ...] | None = Field(
        None,
        description="listeners whose certificates are looked at, a list such as "
        '["mail.example.org:993", "smtp://mx.example.org:2525"]; unset: this host\'s mail ports',
    )
    targets: dict[str, Address] = Field(
        default_factory=dict, description='a table for sources without keys of their own, such as {x = "127.0.0.1:80"}'
    )


class Intervals(_Section):
    """``[intervals]``: how often each source is asked and the spool is sent."""

    system_metrics: Interval = 15
    zone_mta_prometheus: Interval = 30
    zone_mta_queue: Interval = 30
    wildduck_api_query: Interval = 300
    wildduck_prometheus: Interval = 30
    rspamd_controller: Interval = 30
    tls_certificates: Interval = 3600
    send_metrics: Seconds = 30
    email_events: Literal["immediate"] | Seconds = Field("immediate", description='"immediate", or seconds')


# What collector-config/ holds beside the configurations that `postel.collector.Tier` names.
Layer = Literal["gateway-mtls", "mongodb", "redis", "to-gateway", "to-gateway-mtls", "to-kafka", "vendor"]


class Otlp(_Section):
    """``[otlp]``: where agent and sink send, how much the agent keeps meanwhile, where `up` runs its Collector.

    ``endpoint`` defaults to the Collector that ``postel up`` runs.
    """

    collector_grpc_address: Address = "127.0.0.1:4317"
    collector_http_address: Address = "127.0.0.1:4318"
    collector_health_address: Address = "127.0.0.1:13133"
    collector_layers: tuple[Layer, ...] = Field(
        (),
        description="Postel's own files to lay over the Collector's agent.yaml or gateway.yaml, each over those before "
        f"it: a list of {', '.join(get_args(Layer))}",
    )
    collector_config_dir: Folder | None = Field(
        None,
        description="a folder; its *.yaml are laid over these, in the order of their names",
    )
    kafka_member_health_address: Address = "127.0.0.1:13134"
    endpoint: Endpoint = ""
    protocol: Literal["grpc", "http/protobuf"] = Field("http/protobuf", description='"grpc" or "http/protobuf"')
    headers: dict[str, SecretStr] = Field(default_factory=dict, description='a table such as {authorization = "..."}')
    compression: Literal["gzip", "none"] = Field("gzip", description='"gzip" or "none"')
    timeout: Seconds = 30
    certificate: Path | None = Field(None, description="a file with the certificate authority to trust, PEM")
    client_certificate: Path | None = Field(
        None,
        description="a file with the certificate that a receiver wants to see, PEM, its key with it or in client_key",
    )
    client_key: Path | None = Field(None, description="a file with the key of client_certificate, PEM")
    # The Collector takes 4 MiB.
    request_bytes: Whole = Field(1 << 20, ge=16384, le=4 << 20, description="bytes in one request, 16384 to 4194304")
    spool_bytes: Whole = Field(512 << 20, ge=1 << 20, description="bytes kept on disk at most, 1048576 or more")
    spool_age: Number = Field(
        7 * 86400,
        gt=0,
        description="seconds that unsent data is kept at most, a counter's first point twice as long; above 0",
    )

    @model_validator(mode="after")
    def _send_to_own_collector(self) -> Self:
        if not self.endpoint:
            own = self.collector_grpc_address if self.protocol == "grpc" else self.collector_http_address
            # The model is frozen for its users; here it is still being made.
            object.__setattr__(self, "endpoint", f"http://{reachable(own)}")
        return self


class Intake(_Section):
    """``[intake]``: where the mail servers' plugins reach the agent."""

    address: Address = "127.0.0.1:4319"
    token: Token | None = Field(None, description="the bearer token that plugins must send, ASCII without spaces")
    connections: Whole = Field(
        200, ge=10, le=100_000, description="connections at address and socket each at most, 10 to 100000"
    )
    tls_certificate: Certificate | None = None
    tls_key: CertificateKey | None = None
    tls_client_ca: ClientAuthority | None = None
    tls_ca: Path | None = Field(
        None,
        description="a file with the authority that plugins trust, PEM, for `plugins install`; "
        "unset: what Node.js trusts",
    )
    tls_client_certificate: Path | None = Field(
        None,
        description="a file with the certificate that plugins (by `plugins install`) and `message` show, PEM, "
        "its key with it or in tls_client_key",
    )
    tls_client_key: Path | None = Field(None, description="a file with the key of tls_client_certificate, PEM")
    socket: SocketPath | None = Field(
        None, description="the path of a Unix socket to listen on too, up to 90 bytes, in a folder that exists"
    )
    socket_mode: Mode = "0660"

    @property
    def scheme(self) -> str:
        """How its address is reached."""
        return "https" if self.tls_certificate else "http"


class Database(_Section):
    """``[database]``: the PostgreSQL or TimescaleDB that is written and read, and how long what is in it is kept."""

    url: DatabaseUrl | None = Field(
        None,
        description='"postgresql://user:password@host/name" with @ and / of the password as %40 and %2F; '
        "unset: an embedded one",
    )
    read_url: DatabaseUrl | None = Field(
        None,
        description="the same of a streaming replica of that database, which then tells `serve` all but alerts; "
        "unset: url does",
    )
    connections: Whole = Field(
        4,
        ge=1,
        le=100,
        description="connections per process at most, to each of them, 1 to 100; "
        "a sink that has one writes one transaction at a time",
    )
    # Rollups are refreshed over the last nine days, and what they are refreshed from must be there.
    raw_days: Whole = Field(
        30,
        ge=0,
        description="days that rows are kept, 10 or more; 0: for ever. "
        "This and the next four: unset, as the database has it",
    )
    rollup_days: Whole = Field(
        365,
        ge=0,
        description="days that the ledger, and on TimescaleDB Community the rollups, are kept, "
        "not less than raw_days; 0: for ever",
    )
    dead_letter_days: Whole = Field(90, ge=0, description="days that dead letters are kept; 0: for ever")
    # An agent keeps unsent data for seven days, and rollups are refreshed over nine: what is older rests.
    columnstore_days: Whole = Field(
        9, ge=0, description="days until rows are stored in columns on TimescaleDB Community, 9 or more; 0: never"
    )

    # In columns an id is looked for in a filter of each thousand events, in rows by an index.
    event_columnstore_days: Whole = Field(
        0, ge=0, description="the same of the events of mail, which are found by an id sooner in rows"
    )

    @field_validator("raw_days", "columnstore_days", "event_columnstore_days")
    @classmethod
    def _behind_refreshes(cls, days: int, info: ValidationInfo) -> int:
        if 0 < days < (10 if info.field_name == "raw_days" else 9):
            raise ValueError("is within what is refreshed")
        return days


class Sink(_Section):
    """``[sink]``: where the sink listens for OTLP, and how `up`, `collector` and `doctor` reach it there."""

    grpc_address: Address = "127.0.0.1:4417"
    http_address: Address = "127.0.0.1:4418"
    token: Token | None = Field(None, description="the bearer token that senders must show, ASCII without spaces")
    connections: Whole = Field(
        1000, ge=10, le=100_000, description="connections at each of the two addresses at most, 10 to 100000"
    )
    tls_certificate: Certificate | None = None
    tls_key: CertificateKey | None = None
    tls_client_ca: ClientAuthority | None = None
    tls_ca: Path | None = Field(
        None,
        description="a file with the authority that senders trust, PEM; set, they use TLS; "
        "unset, they do with tls_certificate, and trust what the system trusts",
    )
    tls_client_certificate: Path | None = Field(
        None,
        description="a file with the certificate that they show, PEM, its key with it or in tls_client_key",
    )
    tls_client_key: Path | None = Field(None, description="a file with the key of tls_client_certificate, PEM")
    # The Collector sends as much as the default; what it sends and the sink refuses as too large is lost.
    request_bytes: Whole = Field(
        16 << 20, ge=16 << 20, description="bytes of one request after decompression at most, 16777216 or more"
    )

    @property
    def uses_tls(self) -> bool:
        """Whether senders use TLS."""
        return self.tls_certificate is not None or self.tls_ca is not None


class Serve(_Section):
    """``[serve]``: where the page and the API listen, and who may come in."""

    address: Address = "127.0.0.1:3001"
    read_tokens: tuple[Token, ...] = Field(
        (), description="a list of tokens of who may look, ASCII without spaces; beyond loopback one at least is needed"
    )
    admin_tokens: tuple[Token, ...] = Field((), description="the same of who may also acknowledge and silence alerts")
    # A thousand may listen to the API, and an open page has one or two.
    connections: Whole = Field(
        1500, ge=10, le=100_000, description="connections at most, those of open pages among them, 10 to 100000"
    )
    tls_certificate: Certificate | None = None
    tls_key: CertificateKey | None = None
    tls_client_ca: ClientAuthority | None = None

    @property
    def scheme(self) -> str:
        """How browsers reach it."""
        return "https" if self.tls_certificate else "http"


class Alerts(_Section):
    """``[alerts]``: further alert rules, and who is told."""

    rules: Path | None = Field(None, description="a YAML file of rules that stand beside the shipped ones")
    notify: tuple[SecretStr, ...] = Field(
        (),
        description='a list of apprise URLs, such as ["mailtos://user:password@mail.example.org", "json://host/path"]',
    )
    page: str = Field(
        "",
        pattern=r"^(https?://[^\s]+[^/\s])?$",
        description="the page's address for who is told, no / last; default: [serve] address",
    )
    repeat: Seconds = Field(4 * 3600, description="seconds after which what still fires is told again, above 0")


class Privacy(_Section):
    """``[privacy]``: what of a mail address may leave this host; but for "keep", no username of WildDuck does."""

    addresses: Literal["keep", "hash", "domain"] = Field("keep", description='"keep", "hash" or "domain"')


def _default_data_dir() -> Path:
    try:
        return Path.home() / ".local/share/postel"
    except RuntimeError:
        raise SettingsError(
            "data_dir: its default is in the home folder, and this user's home folder is not known; "
            "set data_dir, or POSTEL_DATA_DIR, to a folder"
        ) from None


class _Environment(EnvSettingsSource):
    """The variables. That of a secret may have ``_FILE`` behind its name, and name a file that holds its value.

    A variable shows to whoever may list those of a container or a unit; such a file does not.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        variables = dict(super()._load_env_vars())
        for key in secret_keys(self.settings_cls):
            name = f"postel_{key}"
            if path := variables.pop(f"{name}_file", None):
                if variables.get(name):
                    raise SettingsError(f"environment: {name.upper()} and {name.upper()}_FILE are both set; keep one")
                variables[name] = _secret(Path(path), f"{name.upper()}_FILE")
        return variables


def _secret(path: Path, variable: str) -> str:
    try:
        # An editor ends a line; no secret ends with one.
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"environment, {variable}: {path} cannot be read: {reason}") from None


class Settings(BaseSettings):
    """All settings, checked. Build it with :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="POSTEL_", env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    data_dir: Folder = Field(default_factory=_default_data_dir)
    node: Node = Node()
    discovery: Discovery = Discovery()
    intervals: Intervals = Intervals()
    otlp: Otlp = Otlp()
    intake: Intake = Intake()
    database: Database = Database()
    sink: Sink = Sink()
    serve: Serve = Serve()
    alerts: Alerts = Alerts()
    privacy: Privacy = Privacy()

    @model_validator(mode="after")
    def _listeners_differ(self) -> Self:
        seen: list[tuple[str, str]] = []
        for setting, address in (
            ("[intake] address", self.intake.address),
            ("[sink] grpc_address", self.sink.grpc_address),
            ("[sink] http_address", self.sink.http_address),
            ("[serve] address", self.serve.address),
            ("[otlp] collector_grpc_address", self.otlp.collector_grpc_address),
            ("[otlp] collector_http_address", self.otlp.collector_http_address),
            ("[otlp] collector_health_address", self.otlp.collector_health_address),
            ("[otlp] kafka_member_health_address", self.otlp.kafka_member_health_address),
        ):
            for taken, its_setting in seen:
                if overlap(address, taken):
                    raise ValueError(
                        f"{setting} is {address} and {its_setting} is {taken}; each needs an address of its own"
                    )
            seen.append((address, setting))
        return self

    @model_validator(mode="after")
    def _rollups_outlast_rows(self) -> Self:
        raw, rollup = self.database.raw_days, self.database.rollup_days
        if rollup and (not raw or rollup < raw):
            kept = f"{raw} days" if raw else "for ever"
            raise ValueError(
                f"[database] rollup_days is {rollup} and raw_days keeps rows {kept}; rollups are kept as long or longer"
            )
        return self

    @model_validator(mode="after")
    def _replica_of_one_of_ones_own(self) -> Self:
        if self.database.read_url is not None and self.database.url is None:
            raise ValueError(
                "[database] read_url is set and url is not; the embedded database has no replica: set url, that of "
                "the primary"
            )
        return self

    @model_validator(mode="after")
    def _shown_keys_have_certificates(self) -> Self:
        for name, section in (("intake", self.intake), ("sink", self.sink)):
            if section.tls_client_key and not section.tls_client_certificate:
                raise ValueError(
                    f"[{name}] tls_client_key: {section.tls_client_key} is of no tls_client_certificate; set that too"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment comes first, then what :func:`load_settings` read from the file."""
        del env_settings, dotenv_settings, file_secret_settings
        return _Environment(settings_cls), init_settings


def load_settings(config: Path | None = None) -> Settings:
    """Read and check all settings.

    Args:
        config: the file to read; None: ``$POSTEL_CONFIG``, then the first of `CONFIG_PLACES` that exists.

    Raises:
        SettingsError: the file cannot be read, or a key or value is wrong.
    """
    path = config or config_file()
    values = read_file(path) if path else {}
    _check_sections()
    standard = _default_otlp(values)
    try:
        return Settings(**values)
    except UnreadableVariableError as error:
        raise SettingsError(explain_unreadable(str(error).partition('"')[2].partition('"')[0], Settings)) from None
    except ValidationError as error:
        raise SettingsError(explain(error, Settings, path, standard)) from None


def _check_sections() -> None:
    """Refuse POSTEL_SECTION__KEY of a section that does not exist; other POSTEL_ variables are not settings."""
    for variable in os.environ:
        section, separator, _ = variable.removeprefix("POSTEL_").partition("__")
        if variable.startswith("POSTEL_") and separator and section.lower() not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise SettingsError(
                f"environment, {variable}: {section.lower()} is not a known section; known are: {known}"
            )


def config_file() -> Path | None:
    """The file that is read where none is named to `load_settings`; None: there is none.

    Raises:
        SettingsError: whether there is one cannot be seen.
    """
    if named := os.environ.get("POSTEL_CONFIG"):
        return Path(named)
    try:
        return next((place for place in CONFIG_PLACES if place.exists()), None)
    except PermissionError as error:
        raise SettingsError(f"{error.filename}: cannot be read: {error.strerror}; name another with --config") from None


def read_file(path: Path) -> dict[str, Any]:
    """What stands in a settings file, unchecked.

    Raises:
        SettingsError: it cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def _default_otlp(values: dict[str, Any]) -> dict[str, str]:
    """Fill what the file leaves open from the standard variables.

    Those of a single signal (``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``) are not read: both go to one endpoint.
    Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter", environment variables.

    Returns:
        key of ``[otlp]`` -> the variable that it comes from.
    """
    section = values.setdefault("otlp", {})
    if not isinstance(section, dict):
        return {}
    used = {}
    for key in (
        "endpoint",
        "protocol",
        "compression",
        "certificate",
        "client_certificate",
        "client_key",
        "timeout",
        "headers",
    ):
        variable = f"OTEL_EXPORTER_OTLP_{key.upper()}"
        if (value := os.environ.get(variable)) and key not in section:
            section[key] = _standard_value(key, value)
            used[key] = variable
    return used


def _standard_value(key: str, value: str) -> Any:
    if key == "timeout" and value.isdecimal():
        # The specification counts milliseconds here.
        return int(value) / 1000
    if key == "headers":
        pairs = (pair.partition("=") for pair in value.split(",") if pair.strip())
        return {unquote(name.strip()): unquote(content.strip()) for name, _, content in pairs}
    return value
