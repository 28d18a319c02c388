"""The verdict on every answer that a receiver can give, without a wire."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from postel.otlp import codec, grpc_sender, http_sender
from postel.otlp.answers import MAX_DELAY
from postel.otlp.errors import Malformed, OtlpError, Refused, Retryable, TooLarge, Unauthenticated, UnsupportedMedia
from postel.otlp.sender import Sent
from postel.otlp.signal import Signal

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("99999999999999999999", MAX_DELAY),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2027 12:00:00 GMT", MAX_DELAY),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert http_sender.retry_after(value, NOW) == seconds


def test_each_http_status_has_its_verdict() -> None:
    # The table of the specification: these four are retryable, no other failure is.
    kinds = {400: Malformed, 401: Unauthenticated, 403: Unauthenticated, 413: TooLarge, 415: UnsupportedMedia}
    for status in [*range(100, 200), *range(300, 600)]:
        with pytest.raises(OtlpError, match=f"HTTP {status}") as caught:
            http_sender.verdict(Signal.LOGS, status, {"retry-after": "9", "content-type": codec.PROTOBUF}, b"")
        expected = Retryable if status in (429, 502, 503, 504) else kinds.get(status, Refused)
        assert type(caught.value) is expected
        if isinstance(caught.value, Retryable):
            assert caught.value.delay == 9


@pytest.mark.parametrize("media", ["text/html", "text/plain", ""])
def test_a_400_of_another_server_does_not_blame_the_request(media: str) -> None:
    with pytest.raises(Refused, match="HTTPS port") as caught:
        http_sender.verdict(Signal.LOGS, 400, {"content-type": media}, b"plain HTTP request sent to HTTPS port")
    assert type(caught.value) is Refused


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        ({"content-type": codec.PROTOBUF}, Status(message="in protobuf").SerializeToString(), "in protobuf"),
        ({"content-type": codec.JSON}, b'{"message":"in JSON"}', "in JSON"),
        ({"content-type": "application/json; charset=utf-8"}, b'{"message":"in JSON"}', "in JSON"),
        ({"content-type": codec.JSON}, b'["cut', '["cut'),
        ({"content-type": codec.JSON}, b"[]", "[]"),
        ({"content-type": "text/html"}, b"<html>\n <h1>Bad\xff</h1>", "<html> <h1>Bad\ufffd</h1>"),
        ({"content-type": codec.PROTOBUF}, b"\xff" * 3, "\ufffd" * 3),
        ({}, b"", ""),
    ],
)
def test_the_reason_is_read_from_whatever_came(headers: dict[str, str], body: bytes, words: str) -> None:
    with pytest.raises(Refused) as caught:
        http_sender.verdict(Signal.LOGS, 404, headers, body)
    assert str(caught.value) == (f"HTTP 404: {words}" if words else "HTTP 404")


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize("media", [codec.PROTOBUF, codec.JSON, "text/html", ""])
def test_a_2xx_without_a_body_means_taken(status: int, media: str) -> None:
    assert http_sender.verdict(Signal.LOGS, status, {"content-type": media}, b"") == Sent()


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("text/html", b"<html>hi</html>"),
        ("text/html; charset=utf-8", b"<html>hi</html>"),
        ("", b"ok"),
        ("application/octet-stream", b"\n\x00"),
        (codec.PROTOBUF, b"\xff\xff"),
        (codec.PROTOBUF, b"<html>hi</html>"),
        (codec.JSON, b"<html>hi</html>"),
        (codec.JSON, b'{"partialSuccess":7}'),
        (codec.JSON, b'{"status":"ok"}'),
        (codec.JSON, b"[]"),
        (codec.PROTOBUF, None),
        (codec.JSON, None),
        ("text/html", None),
    ],
)
def test_a_2xx_that_is_no_answer_of_otlp_means_not_taken_and_blames_nobody(media: str, body: bytes | None) -> None:
    with pytest.raises(Refused, match="HTTP 200, but the answer is not OTLP's") as caught:
        http_sender.verdict(Signal.LOGS, 200, {"content-type": media}, body)
    assert type(caught.value) is Refused
    if body == b"<html>hi</html>":
        assert str(caught.value).endswith(": <html>hi</html>")


@pytest.mark.parametrize("body", [b"{}", b'{"partialSuccess":{}}', b'{"partialSuccess":null}'])
def test_a_receiver_that_answers_in_json_has_taken_it(body: bytes) -> None:
    assert http_sender.verdict(Signal.LOGS, 200, {"content-type": codec.JSON}, body) == Sent()


def test_partial_success_in_json_is_read() -> None:
    body = b'{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"old"}}'
    assert http_sender.verdict(Signal.METRICS, 200, {"content-type": codec.JSON}, body) == Sent(3, "old")


RETRY = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
DETAILS = Status(code=14)
DETAILS.details.add().Pack(Status())  # another kind of detail first
DETAILS.details.add().Pack(RETRY)
TRAILERS = {
    "google.rpc.retryinfo-bin": RETRY.SerializeToString(),
    "grpc-status-details-bin": DETAILS.SerializeToString(),
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
@pytest.mark.parametrize("trailer", [None, *TRAILERS])
def test_each_grpc_code_has_its_verdict(code: grpc.StatusCode, trailer: str | None) -> None:
    trailers = [("other", "text"), (trailer, TRAILERS[trailer])] if trailer else []
    retryable = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
    if trailer:
        retryable.add("RESOURCE_EXHAUSTED")
    error = grpc_sender.verdict(code, "why", trailers)
    assert isinstance(error, Retryable) == (code.name in retryable)
    assert code.name in str(error)
    assert "why" in str(error)
    if isinstance(error, Retryable):
        assert error.delay == (2.5 if trailer else None)


@pytest.mark.parametrize("key", TRAILERS)
def test_broken_trailers_name_no_delay(key: str) -> None:
    assert grpc_sender.retry_delay([(key, b"\xff")]) is None
    assert grpc_sender.retry_delay([(key, b"")]) in (None, 0.0)
