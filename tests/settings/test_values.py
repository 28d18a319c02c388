import pwd
from pathlib import Path

import pytest

from otel_receivers.receiver import Target
from postel.errors import SettingsError
from postel.settings import load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "postel.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    "host",
    [
        "http://mta:12080",
        "mta:12080",
        "mta/",
        "mta?x",
        "user@mta",
        "mta one",
        "mta\\n",
        " mta",
        "a..b",
        ".mta",
        "-mta",
        "m" * 64,
        "[mta]",
        "[10.0.0.1]",
        "[::1]:12080",
        "[::1",
        "::1]",
        "1:2",
        "fe80::1%",
        "fe80::1%eth0/x",
        "fe80::1%eth0 x",
        "10.0.0.256",
        "10.0.0.1.",
        "10.0.1",
        "[]",
        "*",
        "",
    ],
)
def test_what_is_neither_a_name_nor_an_address_is_no_host(tmp_path: Path, host: str) -> None:
    path = write(tmp_path, f'[discovery]\nrspamd_host = "{host}"')
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: [discovery] rspamd_host = ")
    assert str(caught.value).endswith(" is wrong; accepted: a host name or IP address, without scheme and port")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("mta", "http://mta:12080"),
        ("zone_mta-1.mail.test.", "http://zone_mta-1.mail.test.:12080"),
        ("4mta.test", "http://4mta.test:12080"),
        ("bücher.test", "http://bücher.test:12080"),
        ("10.0.0.1", "http://10.0.0.1:12080"),
        ("::1", "http://[::1]:12080"),
        ("[2001:db8::1]", "http://[2001:db8::1]:12080"),
        ("::ffff:10.0.0.1", "http://[::ffff:10.0.0.1]:12080"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:12080"),
    ],
)
def test_a_name_or_an_address_with_or_without_brackets_is_a_host(tmp_path: Path, host: str, url: str) -> None:
    discovery = load_settings(write(tmp_path, f'[discovery]\nzone_mta_host = "{host}"')).discovery
    target = Target(discovery.zone_mta_host, discovery.zone_mta_port)
    # Sockets take an address without brackets, a URL with them.
    assert target.host == host.strip("[]")
    assert f"http://{target}" == url


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://h:4318?x=1",
        "http://h:4318/otlp?x=1",
        "http://h:4318/?",
        "http://h:4318#x",
        "http://h:4318/otlp#",
        "http://h:99999",
        "http://h:0",
        "http://h:x",
        "http://[::1",
        "http://:4318",
        "http://a b:4318",
        "http://h:4318/a b",
        "http://h..x:4318",
        "h:4318",
        "",
    ],
)
def test_an_endpoint_to_which_no_path_can_be_added_is_refused(tmp_path: Path, endpoint: str) -> None:
    path = write(tmp_path, f'[otlp]\nendpoint = "{endpoint}"')
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: [otlp] endpoint = ")
    assert "is wrong; accepted: a URL such as" in str(caught.value)
    assert "without ? and #" in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["http://h", "https://collector.test:4318/", "http://[::1]:4318/otlp/x", "http://u:p@10.0.0.1:1"]
)
def test_an_endpoint_is_a_scheme_a_host_and_perhaps_port_and_path(tmp_path: Path, endpoint: str) -> None:
    assert load_settings(write(tmp_path, f'[otlp]\nendpoint = "{endpoint}"')).otlp.endpoint == endpoint


def test_a_standard_endpoint_with_a_query_is_named_without_what_may_be_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:hid@hid/hidden@otlp.test/v2?key=hidden#hid")
    with pytest.raises(
        SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT = 'https://\.\.\.@otlp\.test/v2\?\.\.\.' is"
    ) as it:
        load_settings()
    assert "hid" not in str(it.value)


@pytest.mark.parametrize("folder", ["", " ", "~nobody-of-this-name/postel"])
def test_a_data_dir_that_names_no_folder_is_refused(tmp_path: Path, folder: str) -> None:
    path = write(tmp_path, f'data_dir = "{folder}"')
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: data_dir = {folder!r} is wrong; accepted: a folder for all that")


def test_a_data_dir_is_absolute_from_the_working_directory_or_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/of-mine")
    assert load_settings(write(tmp_path, 'data_dir = "~/postel"')).data_dir == Path("/home/of-mine/postel")
    assert load_settings(write(tmp_path, 'data_dir = "data"')).data_dir == tmp_path / "data"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has a number and no entry in /etc/passwd."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_the_message_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="home folder is not known; set data_dir, or POSTEL_DATA_DIR, to a folder"):
        load_settings()
    path = write(tmp_path, 'data_dir = "~/postel"')
    with pytest.raises(SettingsError, match="data_dir = '~/postel' is wrong; accepted: a folder for all that"):
        load_settings(path)
    monkeypatch.setenv("POSTEL_DATA_DIR", str(tmp_path / "data"))
    assert load_settings(path).data_dir == tmp_path / "data"


@pytest.mark.parametrize("key", ["raw_days = 9", "raw_days = -1", "columnstore_days = 8", "dead_letter_days = 1.5"])
def test_what_is_still_refreshed_is_neither_dropped_nor_put_into_columns(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, f"[database]\n{key}")
    with pytest.raises(SettingsError, match=r"\[database\] \w+_days = .* is wrong; accepted: days"):
        load_settings(path)


@pytest.mark.parametrize(
    "keys",
    ["raw_days = 0\nrollup_days = 0", "raw_days = 10\nrollup_days = 10", "rollup_days = 0", "columnstore_days = 0"],
)
def test_things_are_kept_for_days_or_for_ever(tmp_path: Path, keys: str) -> None:
    load_settings(write(tmp_path, f"[database]\n{keys}"))


@pytest.mark.parametrize("keys", ["raw_days = 366", "raw_days = 0", "rollup_days = 29"])
def test_rollups_are_kept_as_long_as_rows(tmp_path: Path, keys: str) -> None:
    with pytest.raises(SettingsError, match=r"\[database\] rollup_days is \d+ and raw_days keeps rows"):
        load_settings(write(tmp_path, f"[database]\n{keys}"))
