"""Asks Rspamd's controller: HTTP here, meaning in :mod:`otel_receivers.rspamd.parse` and ``record``.

``/stat`` is what must be had. The page (which Rspamd has since 3.0) and the symbols are asked for after it, and where
one of them fails the rest stands. The password is shown to nobody whose header does not say Rspamd at that tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from otel_receivers import page_points
from otel_receivers.building import Context
from otel_receivers.epochs import Epochs
from otel_receivers.http_page import PAGE_BYTES, TIMEOUT, ScrapedPage, StatusError, client, server_header
from otel_receivers.node import Node
from otel_receivers.patience import REFUSED, Patience
from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, Problem, Receiver, ScrapeError, Target, Tick
from otel_receivers.rspamd import parse, record
from otel_receivers.rspamd.parse import Counter, Page, Stat
from otel_receivers.rspamd.symbols import OwnHits
from postel.signals import Declaration

_NOT_FOUND = "404"
_ELSEWHERE = {"301", "302", "303", "307", "308", "404", "405"}
# Of the interval, for all questions together: what was answered is still recorded in the rest.
_SHARE = 0.8
_LATE = "no whole answer in time"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answers:
    """Of one tick; None for one that could not be had."""

    stat: Stat
    page: Page | None
    counters: Mapping[str, Counter] | None


def build(context: Context, target: Target) -> Sequence[Receiver]:
    """The receiver of an Rspamd's controller."""
    password = context.settings.discovery.rspamd_password
    receiver = RspamdReceiver(
        context.declarations["rspamd"],
        context.node,
        context.epochs,
        interval=context.settings.intervals.rspamd_controller,
        target=target,
        password=password.get_secret_value() if password else None,
    )
    return (receiver,)


class RspamdReceiver:
    """One Rspamd instance; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``rspamd``.
        node: who asks.
        epochs: of the agent.
        interval: seconds.
        target: where its controller listens.
        password: of the controller; None: it asks for none.
        timeout: seconds for a whole answer.
        page_bytes: of an answer at most.
    """

    def __init__(
        self,
        declaration: Declaration,
        node: Node,
        epochs: Epochs,
        *,
        interval: int,
        target: Target,
        password: str | None = None,
        timeout: float = TIMEOUT,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.name = declaration.type
        self.interval = interval
        self.target: Target | None = target
        self._declaration = declaration
        self._epochs = epochs
        self._source = f"{declaration.type}/{target}"
        self._resource = node.resource(declaration.service, target=target)
        self._base = f"http://{target}"
        self._timeout = timeout
        self._patience = Patience(interval)
        self._own_hits = OwnHits()
        self._without_password = client() if password else None
        headers = {"Accept": "*/*", **({"Password": password} if password else {})}
        self._pages = {
            name: ScrapedPage(f"{self._base}/{name}", timeout=timeout, limit=page_bytes, headers=headers)
            for name in ("stat", "metrics", "counters")
        }

    async def collect(self, tick: Tick) -> Batch:
        """Ask once; see :class:`~otel_receivers.receiver.Receiver`."""
        self._patience.check()
        deadline = asyncio.get_running_loop().time() + self.interval * _SHARE
        try:
            async with asyncio.timeout_at(deadline):
                await self._recognise()
                stat = await self._pages["stat"].read(parse.stat)
        except StatusError as error:
            raise self._said(error) from None
        except TimeoutError:
            raise ScrapeError("timeout", f"{self._base}/stat: {_LATE}") from None
        self._patience.answered()
        problems: list[Problem] = []
        page = await self._also("metrics", partial(parse.page, declaration=self._declaration), problems, deadline)
        counters = await self._also("counters", parse.counters, problems, deadline)
        return await asyncio.to_thread(self._record, tick, _Answers(stat, page, counters), problems)

    async def close(self) -> None:
        """Close the connections."""
        for page in self._pages.values():
            await page.close()
        if self._without_password is not None:
            await self._without_password.aclose()

    async def _recognise(self) -> None:
        """Before the password is shown."""
        if self._without_password is None:
            return
        url = f"{self._base}/ping"
        server = await server_header(self._without_password, url, timeout=self._timeout)
        if not server.startswith("rspamd"):
            raise ScrapeError(
                "unrecognised",
                f"{url}: the answer's header does not say Rspamd, so that it is not shown the password; see [discovery]"
                " rspamd_controller_port",
            )

    async def _also(self, name: str, read: Callable[[bytes], T], problems: list[Problem], deadline: float) -> T | None:
        """An answer without which the rest stands."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._pages[name].read(read)
        except TimeoutError:
            problems.append(Problem("timeout", f"{self._base}/{name}: {_LATE}"))
        except ScrapeError as error:
            # Before 3.0 there was no page.
            if (name, error.error_type) != ("metrics", _NOT_FOUND):
                problems.append(Problem(error.error_type, str(error)))
        return None

    def _record(self, tick: Tick, answers: _Answers, problems: Sequence[Problem]) -> Batch:
        recorder = Recorder(self._declaration, self._resource, tick)
        for problem in problems:
            recorder.problem(problem.error_type, problem.message)
        source = self._source
        record.stat(answers.stat, recorder, self._declaration, self._epochs, source=source, tick=tick)
        if answers.page is not None:
            page_points.record(answers.page.points, answers.page.problems, recorder, {})
        if answers.counters is not None:
            hits = self._own_hits.tell(answers.counters)
            record.symbols(hits, recorder, self._epochs, source=source, tick=tick)
        return recorder.batch()

    def _said(self, error: StatusError) -> ScrapeError:
        message = str(error)
        if error.error_type in REFUSED:
            refusal = ScrapeError(
                error.error_type, f"{message}; set [discovery] rspamd_password to the password of its controller"
            )
            self._patience.refused(refusal)
            return refusal
        if error.error_type in _ELSEWHERE:
            message += "; if that is no Rspamd, see [discovery] rspamd_controller_port"
        return ScrapeError(error.error_type, message)
