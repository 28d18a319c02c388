"""The generated year, small: what the benchmarks read is what the product makes of rows. It is theirs alone: soak."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from support.generated_year import Year, fill
from support.postgres import fresh_database, migrate_now
from timescale_sink.store.database import Tier
from timescale_sink.store.rollups import SIZES


@pytest.mark.soak
def test_a_small_year_is_what_it_says(any_server: str) -> None:
    year = Year(events=4000, nodes=3, domains=50, kept=11, rolled_up=40, fine=1)
    with fresh_database(any_server) as url:
        migrate_now(url)
        with psycopg.connect(url, autocommit=True) as database:
            community = tier(database) is Tier.COMMUNITY
            fill(url, year, community=community)
            assert ask(database, "SELECT count(*) FROM node") == 3
            assert ask(database, "SELECT count(*) FROM metrics_system") == 3 * (10 * 1440 + 5760)
            assert ask(database, "SELECT count(*) FROM metrics_zonemta") == 9 * (10 * 1440 + 2880)
            mail = ask(database, "SELECT count(*) FROM email_events")
            attempts = ask(database, "SELECT count(*) FROM delivery_events")
            assert 4000 <= mail + attempts < 5000
            assert ask(database, "SELECT count(DISTINCT event_id) FROM delivery_events") == attempts
            # Each attempt is of a message that was queued.
            assert (
                ask(
                    database,
                    "SELECT count(*) FROM delivery_events JOIN email_events USING (message_id, queue_id)"
                    " WHERE direction = 'outbound'",
                )
                == attempts
            )
            assert ask(database, "SELECT count(DISTINCT to_domain) FROM delivery_events") > 20
            kept = f"WHERE bucket >= '{year.kept_since}'"
            for size in ("5m", "1h", "daily"):
                for rollup in (
                    f"delivery_events_{size}",
                    f"delivery_events_nodes_{size}",
                    f"delivery_events_domains_{size}",
                    f"delivery_events_totals_{size}",
                ):
                    assert ask(database, f"SELECT sum(attempts)::int FROM {rollup} {kept}") == attempts
            for bucket in SIZES:
                since = f"WHERE bucket >= '{bucket.begin(year.kept_since + bucket.length - timedelta(microseconds=1))}'"
                rows = f"SELECT sum(row_count)::int FROM metrics_rspamd_{{}} {since}"
                days = ask(database, rows.format("daily"))
                assert ask(database, rows.format(bucket.name)) == days
                if bucket.name != "weekly":
                    assert days == 3 * (10 * 1440 + 2880)
            if community:
                assert_rolled_up(database, year)


def assert_rolled_up(database: psycopg.Connection, year: Year) -> None:
    assert ask(database, "SELECT count(DISTINCT bucket) FROM metrics_haraka_daily") == year.rolled_up
    assert ask(database, "SELECT count(DISTINCT bucket) FROM email_events_nodes_daily") == year.rolled_up
    assert ask(database, f"SELECT count(*) FROM metrics_haraka WHERE time < '{year.kept_since}'") == 0
    chunks = "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed AND hypertable_name = "
    assert ask(database, f"{chunks} 'metrics_haraka'") == 2
    assert ask(database, f"{chunks} 'email_events'") == 0
    assert (
        ask(
            database,
            "SELECT count(*) FROM timescaledb_information.chunks JOIN timescaledb_information.continuous_aggregates"
            " ON materialization_hypertable_name = chunks.hypertable_name"
            " WHERE is_compressed AND view_name = 'metrics_haraka_1h_1'",
        )
        >= 2
    )


def tier(database: psycopg.Connection) -> Tier:
    found = database.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return Tier.COMMUNITY if found == ("timescale",) else Tier.PLAIN


def ask(database: psycopg.Connection, query: str) -> int:
    row = database.execute(query.encode()).fetchone()
    assert row
    return int(row[0])
