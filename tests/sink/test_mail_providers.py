"""Who runs a mail exchanger, as the database tells it: what the Public Suffix List's own package says of each host."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import conninfo
from publicsuffixlist import PublicSuffixList

from support.postgres import fresh_database, migrate_now
from timescale_sink.store import suffixes

_LIST = PublicSuffixList(only_icann=True)
_NAMES = suffixes.suffixes()
# Those of several labels, wildcards and exceptions; the others are alike.
_SUFFIXES = [name for name, longer in _NAMES.items() if longer or "." in name]
_LABELS = st.sampled_from(["mx", "mail", "a-b", "www", "city", "x"])
_HOSTS = st.builds(
    lambda labels, suffix: ".".join([*labels, suffix]),
    st.lists(_LABELS, max_size=3),
    st.sampled_from(_SUFFIXES) | st.sampled_from(["com", "test", "uk", "mx"]),
)


@pytest.fixture(scope="module")
def database(postgres: str, migrated_template: str) -> Iterator[psycopg.Connection]:
    with fresh_database(postgres, migrated_template) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


def providers(database: psycopg.Connection, *hosts: str | None) -> dict[str, str]:
    return dict(database.execute("SELECT host, provider FROM mail_providers(%s)", ([*hosts],)).fetchall())


@pytest.mark.parametrize(
    ("host", "whose"),
    [
        ("gmail-smtp-in.l.google.com", "google.com"),
        ("MX.Foo.Co.UK.", "foo.co.uk"),
        ("mail.someone.github.io", "github.io"),
        ("mx.www.ck", "www.ck"),
        ("mx.other.ck", "mx.other.ck"),
        ("b.mx.other.ck", "mx.other.ck"),
        ("mx.bücher.公司.cn", "bücher.公司.cn"),
        ("mx.a.xn--55qx5d.cn", "a.xn--55qx5d.cn"),
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[ipv6:2001:db8::1]"),
        ("2001:db8::1", "2001:db8::1"),
        ("localhost", "localhost"),
        ("co.uk", "co.uk"),
        ("a..com", "a..com"),
        ("", ""),
    ],
)
def test_a_provider_is_the_registered_domain_of_its_hosts(database: psycopg.Connection, host: str, whose: str) -> None:
    assert providers(database, host) == {host: whose}


def test_all_are_told_at_once_and_none_of_nothing(database: psycopg.Connection) -> None:
    found = providers(database, "a.example.com", None, "b.example.com", "a.example.com")
    assert found == {"a.example.com": "example.com", "b.example.com": "example.com"}
    assert providers(database) == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_HOSTS, min_size=1, max_size=200))
def test_each_host_is_whose_the_package_says(database: psycopg.Connection, hosts: list[str]) -> None:
    assert providers(database, *hosts) == {host: _LIST.privatesuffix(host) or host for host in hosts}


def test_every_suffix_of_the_list_is_one(database: psycopg.Connection) -> None:
    hosts = [f"mx.here.{name}" for name in _NAMES]
    assert providers(database, *hosts) == {host: _LIST.privatesuffix(host) for host in hosts}
    bare = providers(database, *_NAMES)
    assert bare == {name: _LIST.privatesuffix(name) or name for name in _NAMES}


def test_the_list_is_renewed_with_its_package(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def a_list(*names: str) -> None:
        text = "\n".join(["// ===BEGIN ICANN DOMAINS===", *names, "// ===END ICANN DOMAINS==="])
        monkeypatch.setattr(suffixes, "_list", text.encode)

    with fresh_database(postgres) as url, psycopg.connect(url, autocommit=True) as owner:
        a_list("test")
        migrate_now(url)
        assert providers(owner, "mx.here.my.test") == {"mx.here.my.test": "my.test"}
        a_list("test", "my.test")
        assert migrate_now(url) == []
        assert providers(owner, "mx.here.my.test") == {"mx.here.my.test": "here.my.test"}
        # Who may not renew it has the one that is there.
        role = str(conninfo.conninfo_to_dict(url)["dbname"]).replace("postel_test", "role")
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
        try:
            owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
            a_list("test")
            assert migrate_now(conninfo.make_conninfo(url, user=role, password="x")) == []  # noqa: S106 - of this test's role
            assert providers(owner, "mx.here.my.test") == {"mx.here.my.test": "here.my.test"}
        finally:
            owner.execute(f"DROP OWNED BY {role}".encode())
            owner.execute(f"DROP ROLE {role}".encode())
