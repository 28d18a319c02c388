"""Hands the spool over to the OTLP receiver, in order for each signal; what is accepted, and only that, is forgotten.

* The receiver is away or busy: the same bytes again, after the time that it asked for, else after 1 to 60 s, doubling
  with jitter.
* It refuses a block: its requests are sent one by one, and where none is taken, some of those after it, so that one bad
  request costs no other. Refused for what they are (malformed, too large), or refused twice while a neighbour is taken:
  dropped, counted under ``refused``, logged.
* It refuses all of them for another reason (a wrong address), or any for a setting's sake (the token, the media type):
  that is not dropped; again after 60 s.

One line in the log when the receiver goes away, one when it is back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog

from otel_receivers.spool import Block, Spool, SpoolError
from postel.otlp.errors import Malformed, OtlpError, Refused, Retryable, TooLarge, Unauthenticated, UnsupportedMedia
from postel.otlp.sender import Sender
from postel.otlp.signal import Signal

BACKOFF_FIRST = 1.0
BACKOFF_MOST = 60.0
_TRIM_SECONDS = 60.0
# So many requests in a row must be refused before it is believed that all would be. A page too large for one request
# makes a handful, each a block of its own.
_NEIGHBOURS = 8
# The first points of all sources go out together, soon after the first tick.
_GATHER_SECONDS = 1.0
_OF_THE_DATA = (Malformed, TooLarge)
_OF_THE_SETTINGS = (Unauthenticated, UnsupportedMedia)
# A request and why it is refused.
_Refusal = tuple[Block, Refused]
_log = structlog.get_logger()


class _Link:
    """What is known of the receiver, over all signals, so that each change is said once."""

    def __init__(self) -> None:
        self._failing: set[Signal] = set()
        self._failures = 0

    def failed(self, signal: Signal, error: Exception) -> None:
        if not self._failing:
            what = "the spool gives nothing" if isinstance(error, SpoolError) else "the OTLP receiver takes nothing"
            _log.warning(f"{what} now; data waits in the spool", reason=str(error))
        self._failing.add(signal)
        self._failures += 1

    def succeeded(self, signal: Signal) -> None:
        if signal in self._failing:
            self._failing.discard(signal)
            if not self._failing:
                _log.info("the OTLP receiver takes data again", tries=self._failures)
                self._failures = 0


class SpoolSender:
    """Sends a spool.

    Args:
        spool: what is sent.
        sender: the connection; closed by its owner.
        block_bytes: of one request at most, unless one stored request alone is larger.
        metrics_interval: seconds between two sendings of metrics.
        events_interval: seconds that events may wait; 0: none.
    """

    def __init__(
        self, spool: Spool, sender: Sender, *, block_bytes: int, metrics_interval: float, events_interval: float
    ) -> None:
        self._spool = spool
        self._sender = sender
        self._block_bytes = block_bytes
        self._waits = {Signal.METRICS: metrics_interval, Signal.LOGS: events_interval}
        self._link = _Link()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for signal in Signal:
                group.create_task(self._run(signal))
            group.create_task(self._trim())

    async def _run(self, signal: Signal) -> None:
        arrived = self._spool.arrived[signal]
        wait = self._waits[signal]
        failures = 0
        # What an earlier run left goes out at once, and what the first tick brings soon after it.
        first = True
        while True:
            arrived.clear()
            try:
                await self._drain(signal)
            except (OtlpError, SpoolError) as error:
                self._link.failed(signal, error)
                await asyncio.sleep(_delay(error, failures))
                failures += 1
                continue
            except Exception:  # noqa: BLE001 - data waits on disk; the next try may go better
                _log.exception("sending failed", signal=signal.value)
                await asyncio.sleep(BACKOFF_MOST)
                continue
            failures = 0
            if not first:
                await asyncio.sleep(wait)
            await arrived.wait()
            if first:
                await asyncio.sleep(min(_GATHER_SECONDS, wait))
            first = False

    async def _drain(self, signal: Signal) -> None:
        while (block := await self._spool.peek(signal, self._block_bytes)) is not None:
            refused, taken = await self._try(block)
            if refused:
                taken = taken or await self._try_following(signal, refused)
                await self._decide(refused, taken=taken)

    async def _try(self, block: Block) -> tuple[list[_Refusal], bool]:
        """Send a block, and where it is refused each of its requests alone; what is taken is forgotten.

        Returns:
            Those that are refused and why, and whether any was taken.

        Raises:
            Retryable: the receiver is away; nothing is decided for the rest.
        """
        try:
            await self._send(block)
        except Refused as error:
            if len(block.ids) == 1:
                return [(block, error)], False
        else:
            await self._spool.remove(block.ids)
            return [], True
        singles = await self._singles(block.signal, block.ids)
        refused = await self._try_each(singles)
        return refused, len(refused) < len(singles)

    async def _try_following(self, signal: Signal, refused: list[_Refusal]) -> bool:
        """Whether any request after those refused is taken; more that are refused are added to them."""
        if all(isinstance(cause, _OF_THE_DATA) for _, cause in refused):
            return False  # none is asked about its neighbours
        while len(refused) < _NEIGHBOURS:
            passed = [request_id for single, _ in refused for request_id in single.ids]
            block = await self._spool.peek(signal, self._block_bytes, passed)
            if block is None:
                return False
            more, taken = await self._try(block)
            refused += more
            if taken:
                return True
        return False

    async def _send(self, block: Block) -> None:
        sent = await self._sender.send(block.signal, block.body)
        self._link.succeeded(block.signal)
        if sent.rejected or sent.reason:
            _log.warning(
                "the OTLP receiver set items aside",
                signal=block.signal.value,
                rejected=sent.rejected,
                of=block.items,
                reason=sent.reason,
            )

    async def _decide(self, refused: Sequence[_Refusal], *, taken: bool) -> None:
        """Drop what is at fault; ``taken`` says whether a neighbour was taken.

        Raises:
            Refused: some are refused for a reason that is not theirs.
            Retryable: the receiver went away; nothing is decided.
        """
        if taken:
            # What changed meanwhile (a token that became valid, a proxy's reload) is no fault of those before it.
            again = [single for single, cause in refused if not isinstance(cause, _OF_THE_DATA)]
            refused = [pair for pair in refused if isinstance(pair[1], _OF_THE_DATA)] + await self._try_each(again)
        keep: Refused | None = None
        for single, cause in refused:
            if isinstance(cause, _OF_THE_SETTINGS) or not (taken or isinstance(cause, _OF_THE_DATA)):
                keep = keep or cause
                continue
            await self._spool.drop(single.ids, "refused")
            _log.error(
                "the OTLP receiver refused a request for good; it is dropped",
                signal=single.signal.value,
                items=single.items,
                reason=str(cause),
            )
        if keep is not None:
            raise keep

    async def _try_each(self, singles: Sequence[Block]) -> list[_Refusal]:
        """Send each alone and forget those that are taken; the others, and why they are not."""
        refused: list[_Refusal] = []
        for single in singles:
            try:
                await self._send(single)
            except Refused as refusal:
                refused.append((single, refusal))
            else:
                await self._spool.remove(single.ids)
        return refused

    async def _singles(self, signal: Signal, ids: Sequence[int]) -> list[Block]:
        """The block's requests, each alone; by their ids, because older ones may have been dropped meanwhile."""
        blocks = [await self._spool.read(signal, request_id) for request_id in ids]
        return [block for block in blocks if block is not None]

    async def _trim(self) -> None:
        while True:
            try:
                await self._spool.trim()
            except SpoolError as error:
                _log.error("the spool cannot be trimmed", reason=str(error))
            await asyncio.sleep(_TRIM_SECONDS)


def _delay(error: Exception, failures: int) -> float:
    if isinstance(error, Refused):
        return BACKOFF_MOST
    asked = error.delay if isinstance(error, Retryable) else None
    # A receiver that asks for no time at all is not asked in a tight loop.
    return backoff(failures) if asked is None else max(asked, backoff(0))


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures before: 1, 2, 4 ... 60, each between half and the whole of it."""
    whole = min(BACKOFF_FIRST * 2.0 ** min(failures, 16), BACKOFF_MOST)
    return whole * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
