"""Every source that is asked is looked for, and its receivers ask where it was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_receivers.agent import Collecting
from otel_receivers.discovery import places
from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Receiver, Target
from otel_receivers.registry import SOURCES
from postel.settings import Discovery, Intervals, Privacy, Settings
from postel.signals import load_all

HERE = Target("127.0.0.1", 4711)


async def receivers(tmp_path: Path, source: str, settings: Settings | None = None) -> Mapping[str, Receiver]:
    collecting = Collecting(settings or Settings(data_dir=tmp_path), identify(tmp_path, setting="node-1"), Epochs())
    made = collecting.source(source, HERE)
    for receiver in made:
        await receiver.close()
    return {receiver.name: receiver for receiver in made}


def test_what_is_asked_is_looked_for() -> None:
    assert set(SOURCES) <= {place.source for place in places(Discovery())}


@pytest.mark.parametrize("source", SOURCES)
async def test_the_receivers_of_a_source_ask_where_it_was_found(source: str, tmp_path: Path) -> None:
    made = await receivers(tmp_path, source)
    assert made
    types = set(load_all().sources)
    for name, receiver in made.items():
        assert receiver.target == HERE
        # The name's first part is the declaration's, and no two sources share one: epochs and state are kept by it.
        assert any(name == kind or name.startswith(f"{kind}_") for kind in types)


async def test_no_two_receivers_have_one_name(tmp_path: Path) -> None:
    names = [name for source in SOURCES for name in await receivers(tmp_path, source)]
    assert len(names) == len(set(names))


async def test_receivers_of_several_of_one_source_share_no_name_and_no_counter(tmp_path: Path) -> None:
    first, second = [await receivers(tmp_path, name) for name in ("zone_mta", f"zone_mta@{HERE}")]
    assert list(first) == ["zone_mta", "zone_mta_queue"]
    assert list(second) == [f"zone_mta@{HERE}", f"zone_mta_queue@{HERE}"]
    assert second[f"zone_mta@{HERE}"]._source.startswith(f"zone_mta@{HERE}/")  # type: ignore[attr-defined]


async def test_what_is_only_looked_for_has_no_receiver(tmp_path: Path) -> None:
    assert await receivers(tmp_path, "imap") == {}


async def test_settings_reach_the_receivers(tmp_path: Path) -> None:
    intervals = Intervals(
        zone_mta_prometheus=7, zone_mta_queue=9, wildduck_api_query=77, wildduck_prometheus=8, rspamd_controller=10
    )
    settings = Settings(data_dir=tmp_path, intervals=intervals, privacy=Privacy(addresses="hash"))
    made = {name: each for source in SOURCES for name, each in (await receivers(tmp_path, source, settings)).items()}
    assert {name: receiver.interval for name, receiver in made.items()} == {
        "zone_mta": 7,
        "zone_mta_queue": 9,
        "wildduck": 77,
        "wildduck_mailboxes": 77,
        "wildduck_metrics": 8,
        "rspamd": 10,
    }
    assert made["wildduck"]._names is False  # type: ignore[attr-defined]
