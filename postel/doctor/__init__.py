"""``postel doctor``: checks every connection and permission on the way of the data, and says how to mend what is wrong.

It changes nothing: it starts no server, writes no row, and what it sends by OTLP is an empty request. What stops one
check is that check's result; the others go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import click

from postel.doctor import database, files, network, on_disk, replica
from postel.doctor.result import Check, Result, Verdict
from postel.errors import PostelError
from postel.settings import Settings


async def run(settings: Settings) -> int:
    """Print every result.

    Returns:
        The exit code: 0, or 1 when a check failed.
    """
    checks: dict[str, Check] = {
        "settings": files.settings_file,
        "files": files.named,
        "data folder": on_disk.folder,
        "database": database.check,
        "replica": replica.check,
        "sink": network.sink,
        "collector": network.collector,
        "endpoint": network.endpoint,
        "agent": on_disk.agent,
        "page": network.page,
        "mail servers": network.servers,
    }
    failed = False
    for subject, check in checks.items():
        async for result in _guarded(subject, check, settings):
            click.echo(str(result))
            failed = failed or result.verdict is Verdict.FAIL
    return 1 if failed else 0


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
