"""A database as an earlier version of the schema left it."""

from __future__ import annotations

from timescale_sink.store import migrate as migrations
from timescale_sink.store.database import Connection, ask_server
from timescale_sink.store.migrate import scripts


async def migrate_below(connection: Connection, name: str) -> list[str]:
    """Apply the migrations that come before one to an empty database; the names of the others that fit the server."""
    await migrations._offer_timescale(connection)
    tier = (await ask_server(connection)).tier
    fitting = [script for script in scripts("migrations") if script.fits(tier)]
    await connection.execute(
        "CREATE TABLE postel_migration (name text PRIMARY KEY, checksum text, applied_at timestamptz DEFAULT now())"
    )
    for script in fitting:
        if script.name < name:
            await connection.execute(script.text.encode(), prepare=False)
            statement = "INSERT INTO postel_migration (name, checksum) VALUES (%s, %s)"
            await connection.execute(statement, (script.name, script.checksum))
    return [script.name for script in fitting if script.name >= name]
