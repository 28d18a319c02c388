from __future__ import annotations

import math

import pytest
from google.rpc import code_pb2  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from postel.otlp.answers import DEFAULT_DELAY, MAX_DELAY, MAX_REASON, Outcome, failure
from postel.otlp.errors import Malformed, OtlpError, Refused, Retryable, TooLarge, Unauthenticated, UnsupportedMedia
from postel.otlp.signal import Signal

FINAL = [
    (Malformed("m"), code_pb2.INVALID_ARGUMENT, 400),
    (TooLarge("t"), code_pb2.RESOURCE_EXHAUSTED, 413),
    (Unauthenticated("u"), code_pb2.UNAUTHENTICATED, 401),
    (UnsupportedMedia("s"), code_pb2.INVALID_ARGUMENT, 415),
]


@pytest.mark.parametrize(("error", "code", "http_status"), FINAL)
def test_what_is_final_asks_for_no_retry(error: OtlpError, code: int, http_status: int) -> None:
    answer = failure(error)
    assert (answer.code, answer.http_status, answer.reason) == (code, http_status, str(error))
    assert answer.trailers == ()
    assert "Retry-After" not in answer.headers
    assert answer.status == Status(code=code, message=str(error))
    assert answer.foreseen


def test_a_missing_token_names_the_scheme() -> None:
    assert failure(Unauthenticated("u")).headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("delay", "seconds", "header"),
    [
        (0, 0.0, "1"),
        (0.2, 0.2, "1"),
        (2.5, 2.5, "3"),
        (30, 30.0, "30"),
        (None, DEFAULT_DELAY, "5"),
        (-1, DEFAULT_DELAY, "5"),
        (math.inf, DEFAULT_DELAY, "5"),
        (math.nan, DEFAULT_DELAY, "5"),
        (MAX_DELAY + 1, DEFAULT_DELAY, "5"),
    ],
)
def test_a_retry_says_when_in_both_trailers_and_the_header(delay: float | None, seconds: float, header: str) -> None:
    answer = failure(Retryable(delay, "the database is away"))
    assert (answer.code, answer.http_status) == (code_pb2.UNAVAILABLE, 503)
    assert answer.headers == {"Retry-After": header}
    trailers = dict(answer.trailers)
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (code_pb2.UNAVAILABLE, "the database is away")
    inside = RetryInfo()
    assert status.details[0].Unpack(inside)
    assert inside == RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
    assert inside.retry_delay.ToNanoseconds() == round(seconds * 1e9)


@pytest.mark.parametrize("error", [ValueError("dsn=secret"), RuntimeError(), TimeoutError(), OtlpError("?"), Refused()])
def test_what_nobody_foresaw_is_retryable_and_keeps_its_text(error: Exception) -> None:
    answer = failure(error)
    assert (answer.code, answer.http_status, answer.delay) == (code_pb2.UNAVAILABLE, 503, DEFAULT_DELAY)
    assert not answer.foreseen
    assert "secret" not in answer.reason


def test_a_reason_fits_into_the_trailers() -> None:
    answer = failure(Retryable(1, "ü" * 5000))
    assert len(answer.reason.encode()) <= MAX_REASON
    assert sum(len(value) for _, value in answer.trailers) < 2 * MAX_REASON


def test_an_outcome_counts_nothing_below_zero() -> None:
    with pytest.raises(ValueError, match="count"):
        Outcome(rejected=-1)


@pytest.mark.parametrize("signal", list(Signal))
def test_partial_success_is_unset_when_all_was_taken(signal: Signal) -> None:
    assert not signal.response().HasField("partial_success")
    assert signal.partial_success(signal.response(3, "why")) == (3, "why")
    assert signal.partial_success(signal.response(0, "a warning")) == (0, "a warning")


def test_the_names_of_the_protocol() -> None:
    assert [signal.path for signal in Signal] == ["/v1/metrics", "/v1/logs"]
    assert [signal.method for signal in Signal] == [
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    ]
