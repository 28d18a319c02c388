"""What a page of 1 MiB costs the agent from the scrape to the disk: `make bench`, figures in docs/benchmarks.md."""

import asyncio
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_receivers.agent import Agent, Collecting
from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Target, Tick
from otel_receivers.spool import Spool
from postel.settings import Discovery, Settings
from support.raw_http_server import server, sized
from support.zone_mta_pages import large_page

TICKS = 10


@pytest.mark.bench
async def test_a_whole_tick_of_a_large_page(tmp_path: Path) -> None:
    """Scrape, encoding, epochs and the spool's transaction together, as a multiple of the parser of prometheus_client.

    The scrape alone has its bound of 1.3 in `tests/agent/test_zone_mta_scrape.py`.
    """
    page = large_page()
    text = page.decode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(sized(page))
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")

    spool = await Spool.open(tmp_path, max_bytes=1 << 30, max_age=3600)
    parser, ticks = [], []
    async with server(serve) as port:
        settings = Settings(data_dir=tmp_path, discovery=Discovery(zone_mta_port=port))
        epochs = Epochs()
        collecting = Collecting(settings, identify(tmp_path, setting="node-1"), epochs)
        agent = Agent(settings, spool, collecting, epochs)
        (receiver,) = collecting.source("zone_mta", Target("127.0.0.1", port))
        try:
            for number in range(TICKS):
                began = time.process_time()
                assert sum(len(family.samples) for family in text_string_to_metric_families(text)) > 15_000
                parser.append(time.process_time() - began)
                began = time.process_time()
                await agent._tick(receiver, Tick((1_795_600_000 + 30 * number) * 1_000_000_000))
                ticks.append(time.process_time() - began)
        finally:
            await receiver.close()
            await spool.close()
    ratio = min(ticks) / min(parser)
    print(f"a whole tick of a page of {len(page)} bytes: {min(ticks):.3f} s of CPU, {ratio:.2f} times the parser alone")  # noqa: T201 - the figure
    assert ratio < 2.5
