from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from support.otlp_receiver import Receiver, running_receiver


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running
