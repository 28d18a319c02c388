"""Reads a Prometheus text page as a whole or not at all, with prometheus_client's classic parser.

Pure: bytes in, families out. A page that is cut short, is HTML, is no UTF-8 or breaks the format gives no family at
all, so that no number of it is wrong. Meant to run in a thread of its own: every few lines it lets other threads in.

The plainest lines (``name{label="value"} 12``, nothing escaped) are read by one regular expression, in a quarter of
the parser's time; every other line goes to the parser. A property test holds the two to the same answer.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_fd_to_metric_families
from prometheus_client.samples import Sample

# Lines between two offers to let other threads run. A thread that wants the interpreter waits at most the switch
# interval (5 ms) anyway; offering it costs 2 % of the parsing and brings that down for an event loop that is busy.
_LINES_AT_A_TIME = 200

# The digits are few enough for int() and for an OTLP integer; ASCII, as re's own \d knows every script's digits. Labels
# that begin with two underscores are for the parser to refuse.
_LABEL = r'(?!__)[a-zA-Z_][a-zA-Z0-9_]*="[^"\\\n]*"'
_PLAIN = re.compile(
    rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? ([0-9]{{1,18}})\n",
).fullmatch
_TYPE = re.compile(r'\s*#\s*TYPE\s+"?([^"\s]+)"?\s*(\S*)').match
_LABELS = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"]*)"').findall

_AMBIGUOUS = "ambiguous"


class PageError(ValueError):
    """No part of the page may be used.

    Args:
        error_type: ``empty``, ``html``, ``encoding``, ``incomplete``, ``malformed``, ``unexpected_page``.
        message: one line for the log.
    """

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family: ``type`` as the page says it, ``unknown`` without a TYPE line, ``ambiguous`` if it says two."""

    type: str
    samples: Sequence[Sample]


def parse(body: bytes, required: Iterable[str] = ()) -> Mapping[str, Family]:
    """Read a page.

    Args:
        body: the whole answer, decompressed.
        required: families without which it is another server's page, or the front half of this one's.

    Returns:
        family -> its samples, under the name that the page uses.

    Raises:
        PageError: the page must not be used.
    """
    text = _text(body)
    families: dict[str, Family] = {}
    plain: dict[str, list[Sample]] = {}
    typed: dict[str, str] = {}
    try:
        for family in text_fd_to_metric_families(_lines(text, plain, typed)):  # type: ignore[arg-type] # it only iterates
            _add(families, _own_name(family, typed), family.type, family.samples)
    except (ValueError, IndexError) as error:
        # The parser meets some broken lines with an IndexError of its own.
        raise PageError("malformed", f"not in the Prometheus text format: {error}") from None
    for name, samples in plain.items():
        _add(families, name, families[name].type if name in families else "unknown", samples)
    if missing := sorted(set(required) - families.keys()):
        raise PageError("unexpected_page", f"the page lacks {', '.join(missing)}: another server, or a page cut short")
    return families


def _text(body: bytes) -> str:
    if not body.strip():
        raise PageError("empty", "the page is empty")
    if body.lstrip()[:1] == b"<":
        raise PageError("html", f"a page of HTML or XML, not metrics: {body.lstrip()[:40]!r}")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PageError("encoding", f"not UTF-8 at byte {error.start}") from None
    if not text.endswith("\n"):
        raise PageError("incomplete", "cut short: the last line does not end")
    return text


def _add(families: dict[str, Family], name: str, kind: str, samples: Sequence[Sample]) -> None:
    before = families.get(name)
    if before is None:
        families[name] = Family(kind, samples)
    elif before.type == kind != _AMBIGUOUS:
        # Without a TYPE line the parser gives each sample as a family of its own.
        families[name] = Family(kind, [*before.samples, *samples])
    else:
        families[name] = Family(_AMBIGUOUS, ())


def _own_name(family: Metric, typed: Mapping[str, str]) -> str:
    """The name that the page uses: the parser, in OpenMetrics' way, takes ``_total`` off a counter's.

    The short name may be another family's: WildDuck has the gauge wildduck_connections beside its _total.
    """
    name: str = family.name
    total = f"{name}_total"
    if family.type != "counter" or typed.get(name) == "counter":
        return name
    return name if name in typed and total not in typed else total


def _lines(text: str, plain: dict[str, list[Sample]], typed: dict[str, str]) -> Iterator[str]:
    """The lines that the parser must read; the plain ones go into ``plain``, what TYPE lines say into ``typed``."""
    for number, line in enumerate(io.StringIO(text)):
        if number % _LINES_AT_A_TIME == 0:
            time.sleep(0)
        if (match := _PLAIN(line)) is None:
            if (kind := _TYPE(line)) is not None:
                typed[kind[1]] = kind[2]
            yield line
            continue
        name, labels, value = match.groups()
        sample = Sample(name, dict(_LABELS(labels)) if labels else {}, int(value))
        if labels and len(sample.labels) != labels.count("="):
            # A label that is there twice, or an equals sign in a value: for the parser to judge.
            yield line
            continue
        plain.setdefault(name, []).append(sample)
