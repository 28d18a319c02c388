"""``postel doctor``: checks every connection and permission on the way of the data, and says how to mend what is wrong.

It changes nothing: it starts no server, writes no row, and what it sends by OTLP is an empty request. What stops one
check is that check's result; the others go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

import click

from postel.doctor import database, files, network, on_disk, replica
from postel.doctor.result import Check, Result, Verdict
from postel.errors import PostelError
from postel.services.install import RECORD, Record
from postel.settings import Settings, config_file

# What is looked at on hosts that run one of these parts; where none is named, on all.
_CHECKS: Sequence[tuple[str, Check, Collection[str]]] = (
    ("settings", files.settings_file, ()),
    ("files", files.named, ()),
    ("data folder", on_disk.folder, ()),
    ("database", database.check, ("up", "sink", "serve")),
    ("replica", replica.check, ("up", "serve")),
    ("sink", network.sink, ("up", "sink")),
    ("collector", network.collector, ("up", "collector", "gateway")),
    ("endpoint", network.endpoint_of_up, ("up",)),
    ("endpoint", network.endpoint, ("agent", "sink")),
    ("agent", on_disk.agent, ("up", "agent")),
    ("page", network.page, ("up", "serve")),
    ("mail servers", network.servers, ("up", "agent")),
)


async def run(settings: Settings, parts: Collection[str] = ()) -> int:
    """Print every result.

    Args:
        settings: of this host.
        parts: what runs on it, of `postel.services.units.PARTS`; none: what `postel install` made services of, and
            where it made none, all that ``up`` runs.

    Returns:
        The exit code: 0, or 1 when a check failed.
    """
    failed = False
    async for result in _results(settings, parts):
        click.echo(str(result))
        failed = failed or result.verdict is Verdict.FAIL
    return 1 if failed else 0


async def _results(settings: Settings, parts: Collection[str]) -> AsyncIterator[Result]:
    if not parts:
        try:
            parts = _installed()
        except PostelError as error:
            yield Result(Verdict.FAIL, "parts", str(error))
        if parts and "up" not in parts:
            text = f"{', '.join(parts)}, of which `postel install` made services; --part names others"
            yield Result(Verdict.OK, "parts", text)
    here = {*parts} or {"up"}
    for subject, check, of in _CHECKS:
        if not of or not here.isdisjoint(of):
            async for result in _guarded(subject, check, settings):
                yield result


def _installed() -> Sequence[str]:
    """What services were made of beside the settings in use.

    Raises:
        PostelError: what was noted of that cannot be read.
    """
    settings_file = config_file()
    record = Record.read(settings_file.with_name(RECORD.name)) if settings_file else None
    return record.parts if record else ()


async def _guarded(subject: str, check: Check, settings: Settings) -> AsyncIterator[Result]:
    try:
        async for result in check(settings):
            yield result
    except PostelError as error:
        # Its message says already how to mend it.
        yield Result(Verdict.FAIL, subject, str(error))
    except Exception as error:  # noqa: BLE001 - who asks what is wrong gets an answer on everything else
        yield Result(
            Verdict.FAIL,
            subject,
            f"cannot be checked: {type(error).__name__}: {error}",
            "mend what it names; if it is nothing of yours, it is a fault of Postel's to be reported",
        )
