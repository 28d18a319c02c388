"""What of an address is left in a record that may not have it."""

from __future__ import annotations

import time
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_receivers.privacy import Privacy
from postel.signals import load_all

LOCAL_PART = "Ann.Lee+news"
MODES: list[Literal["hash", "domain"]] = ["hash", "domain"]


def record(text: str) -> LogRecord:
    value = AnyValue(string_value=text)
    return LogRecord(
        body=value,
        attributes=[
            KeyValue(key="email.message_id", value=AnyValue(string_value="<1.a@mail.example.com>")),
            KeyValue(key="haraka.bounce.message_id", value=AnyValue(string_value="<2.a@mail.example.com>")),
            KeyValue(key="email.from.address", value=value),
            KeyValue(key="email.to.address", value=AnyValue(array_value=ArrayValue(values=[value, value]))),
            KeyValue(key="map", value=AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=value)]))),
            KeyValue(key="zonemta.message.size", value=AnyValue(int_value=7)),
        ],
    )


def logs(*records: LogRecord) -> ResourceLogs:
    return ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])


def hidden(mode: Literal["hash", "domain"], name: str, value: str) -> str | None:
    """What is left of an attribute; None: nothing."""
    found = logs(LogRecord(attributes=[KeyValue(key=name, value=AnyValue(string_value=value))]))
    Privacy(mode).apply(found)
    return next((a.value.string_value for a in found.scope_logs[0].log_records[0].attributes), None)


def test_everything_is_kept_where_nothing_else_is_asked_for() -> None:
    kept = logs(record(f"{LOCAL_PART}@example.com"))
    Privacy("keep").apply(kept)
    assert kept == logs(record(f"{LOCAL_PART}@example.com"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "text",
    [
        "{}@example.com",
        "<{}@Example.COM>",
        "550 5.1.1 <{}@example.com>: Recipient address rejected: User unknown",
        "Accepted for {}@example.com, {}@example.com;",
        "orcpt=rfc822;{}@example.com",
        "to={}@münchen.example",
    ],
)
def test_the_local_part_is_gone_wherever_it_stood_and_the_domain_stays(
    mode: Literal["hash", "domain"], text: str
) -> None:
    found = logs(record(text.replace("{}", LOCAL_PART)))
    Privacy(mode).apply(found)
    shown = str(found)
    assert LOCAL_PART not in shown
    assert "Lee" not in shown
    (changed,) = found.scope_logs[0].log_records
    assert changed.body.string_value.lower().count("example") == text.lower().count("example")
    assert changed.attributes[0].value.string_value == "<1.a@mail.example.com>"
    assert changed.attributes[1].value.string_value == "<2.a@mail.example.com>"
    assert changed.attributes[5].value.int_value == 7


def test_a_digest_is_the_same_for_the_same_address_and_differs_for_others() -> None:
    privacy = Privacy("hash")
    assert privacy.text("Ann@Example.com") == privacy.text("ann@example.com")
    assert privacy.text("ann@example.com") != privacy.text("ann@example.net")
    local, _, domain = privacy.text("ann@example.com").partition("@")
    assert (len(local), domain) == (16, "example.com")
    assert Privacy("domain").text("ann@example.com") == "@example.com"
    assert privacy.text("") == ""


@given(st.text(max_size=200), st.sampled_from(MODES))
def test_any_text_is_taken_and_one_that_is_hidden_once_shows_no_more_later(
    text: str, mode: Literal["hash", "domain"]
) -> None:
    once = Privacy(mode).text(text)
    assert Privacy("domain").text(once) == Privacy("domain").text(text)


# Local parts as RFC 5321 and the servers of the field write them. What may not be seen of each is `ann`.
WRITTEN = {
    "a quoted one": ('"ann lee"@example.org', "@example.org"),
    "an @ in quotes": ('"ann@home"@example.org', "@example.org"),
    "escaped quotes": (r'"ann \" lee"@example.org', "@example.org"),
    "words of either kind": ('"ann lee".ann."x"@example.org', "@example.org"),
    "quotes in JSON": (r'{"to": "\"ann lee\"@example.org"}', '{"to": "@example.org"}'),
    "an address literal": ("<ann@[192.0.2.1]>", "<@[192.0.2.1]>"),
    "an IPv6 literal": ("ann@[IPv6:2001:db8::1]", "@[ipv6:2001:db8::1]"),
    "apostrophes around it": ("'ann'@example.org", "@example.org"),
    "apostrophes around the address": ("<'ann@example.org'>", "<'@example.org'>"),
    "an apostrophe within": ("o'ann@example.org", "@example.org"),
    "SRS": ("SRS0=hash=tt=example.net=ann@example.org", "@example.org"),
    "SRS twice": ("SRS1=h=example.net==h=tt=example.com=ann@example.org", "@example.org"),
    "BATV": ("prvs=1234abcdef=ann@example.org", "@example.org"),
    "VERP": ("bounce+ann=example.com@example.org", "@example.org"),
    "the percent hack": ("ann%example.com@example.org", "@example.org"),
    "a name before it": ("to=ann@example.org from='ann@example.org'", "to=@example.org from='@example.org'"),
    "a percent code": ("/users/ann%40example.org", "%40example.org"),
    "a full-width @": ("ann\uff20example.org", "\uff20example.org"),
    "punycode": ("ann@xn--mnchen-3ya.example", "@xn--mnchen-3ya.example"),
    "no domain": ("User ann@ is unknown", "User @ is unknown"),
}


@pytest.mark.parametrize(("text", "left"), WRITTEN.values(), ids=WRITTEN)
def test_every_way_to_write_a_local_part_is_hidden_whole(text: str, left: str) -> None:
    assert Privacy("domain").text(text) == left
    digested = Privacy("hash").text(text)
    assert "ann" not in digested
    assert Privacy("domain").text(digested) == left


def test_a_reply_that_was_cut_off_within_an_address_ends_before_it() -> None:
    reply = "550 5.1.1 " + "x" * 480 + " <"
    assert Privacy("domain").text(reply + "ann.lee") == reply
    assert Privacy("hash").text("1 <2") == "1 <2"


def test_quotes_and_case_make_no_other_address() -> None:
    text = Privacy("hash").text
    assert text('"ann"@example.org') == text("Ann@example.org") == text(r'"a\nn"@example.org')
    assert hidden("hash", "email.from.address", '"ann"@example.org') == text("ann@example.org")


@pytest.mark.parametrize("mode", MODES)
def test_an_attribute_that_is_an_address_is_hidden_up_to_its_last_at(mode: Literal["hash", "domain"]) -> None:
    """Zone-MTA takes characters that no standard has in an address."""
    for value in ("ann,lee@example.org", "ann lee@example.org", "ann@lee@Example.ORG", "(ann)@example.org"):
        left = hidden(mode, "email.from.address", value)
        assert left is not None
        assert "ann" not in left
        assert "lee" not in left
        assert left.endswith("@example.org")
    assert hidden(mode, "email.from.address", "") == ""


# Of hosts, by the semantic conventions.
HOSTS = {"client.address", "network.local.address", "network.peer.address", "server.address"}
ATTRIBUTES = {name for declaration in load_all().sources.values() for name in declaration.attributes}
DECLARED = sorted(name for name in ATTRIBUTES - HOSTS if name.endswith(".address"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DECLARED)
def test_each_declared_address_is_hidden_whole_or_is_none(mode: Literal["hash", "domain"], name: str) -> None:
    for text in ("annlee", "annlee bell@example.org", "a,annlee@example.org", "to=annlee@example.org"):
        left = hidden(mode, name, text) or ""
        assert not any(part in left for part in ("annlee", "a,", "to=")), text
        assert left == hidden(mode, "email.to.address", text)


def test_a_login_without_a_domain_is_a_local_part() -> None:
    digest = hidden("hash", "user.name", "ann.lee")
    assert digest is not None
    assert len(digest) == 16
    assert hidden("hash", "user.name", "Ann.Lee") == digest
    assert hidden("domain", "user.name", "ann.lee") is None
    assert hidden("domain", "user.name", "ann@example.org") == "@example.org"
    assert hidden("hash", "user.name", "ann@example.org") == hidden("hash", "email.from.address", "ann@example.org")


@pytest.mark.parametrize("mode", MODES)
def test_it_is_hidden_in_resources_scopes_keys_and_bytes_too(mode: Literal["hash", "domain"]) -> None:
    text = "ann@example.org"
    pair = KeyValue(key=text, value=AnyValue(bytes_value=b"\xff " + text.encode()))
    found = ResourceLogs(
        resource=Resource(attributes=[pair]),
        scope_logs=[
            ScopeLogs(
                scope=InstrumentationScope(attributes=[pair]),
                log_records=[
                    LogRecord(
                        body=AnyValue(kvlist_value=KeyValueList(values=[pair])), attributes=[pair], event_name=text
                    )
                ],
            )
        ],
    )
    Privacy(mode).apply(found)
    assert b"ann" not in found.SerializeToString()
    assert found.resource.attributes[0].value.bytes_value.startswith(b"\xff ")


ATOM = st.text("abcXYZ019.!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=20).map(lambda atom: f"q{atom}q")
QUOTED = st.text('abc @<>,;:()[]\\"', max_size=20).map(
    lambda text: '"q' + text.replace("\\", "\\\\").replace('"', '\\"') + 'q"'
)
DOMAIN = st.sampled_from(["example.org", "[192.0.2.1]", "a.b.test", "localhost"])


@given(st.lists(st.tuples(ATOM | QUOTED, DOMAIN, st.sampled_from([" ", ", ", "> <", "; ", "\n"])), max_size=5))
def test_of_lawful_addresses_in_a_text_the_domains_are_left(parts: list[tuple[str, str, str]]) -> None:
    """A local part begins and ends with q here, which no domain has."""
    written = "".join(f"{local}@{domain}{end}" for local, domain, end in parts)
    assert Privacy("domain").text(written) == "".join(f"@{domain}{end}" for _, domain, end in parts)


@pytest.mark.parametrize(
    "part",
    ["a", "@", "a@", '"', '"@', '\\"', '\\"@', '"\n"@', "\\", "a%40", "to=", "'", "<", "@[", "a.", '"a" ', "<a@b.c> "],
)
def test_a_long_text_takes_time_in_proportion(part: str) -> None:
    """A microsecond or two a character at most; what looked at each one more often would take hours."""
    text = part * ((256 << 10) // len(part)) + "@"
    began = time.thread_time()
    Privacy("hash").text(text)
    assert time.thread_time() - began < 10
