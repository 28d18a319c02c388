"""What of an address is left in a record that may not have it."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_receivers.privacy import Privacy

LOCAL_PART = "Ann.Lee+news"
MODES: list[Literal["hash", "domain"]] = ["hash", "domain"]


def record(text: str) -> LogRecord:
    value = AnyValue(string_value=text)
    return LogRecord(
        body=value,
        attributes=[
            KeyValue(key="email.message_id", value=AnyValue(string_value="<1.a@mail.example.com>")),
            KeyValue(key="email.from.address", value=value),
            KeyValue(key="email.to.address", value=AnyValue(array_value=ArrayValue(values=[value, value]))),
            KeyValue(key="map", value=AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=value)]))),
            KeyValue(key="zonemta.message.size", value=AnyValue(int_value=7)),
        ],
    )


def test_everything_is_kept_where_nothing_else_is_asked_for() -> None:
    kept = record(f"{LOCAL_PART}@example.com")
    Privacy("keep").apply(kept)
    assert kept == record(f"{LOCAL_PART}@example.com")


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
    hidden = record(text.replace("{}", LOCAL_PART))
    Privacy(mode).apply(hidden)
    shown = str(hidden)
    assert LOCAL_PART not in shown
    assert "Lee" not in shown
    assert hidden.body.string_value.lower().count("example") == text.lower().count("example")
    assert hidden.attributes[0].value.string_value == "<1.a@mail.example.com>"
    assert hidden.attributes[4].value.int_value == 7


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
