"""The way from the API to the database: one pool for all readers, limits of their own, faults as answers.

Whoever reads waits no longer than `STATEMENT_TIMEOUT_S` for a statement, so that no question holds a connection that
others wait for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from postel.errors import DatabaseError, PostelError
from timescale_sink.store.database import Connection, Pool

STATEMENT_TIMEOUT_S = 5
_POOL_TIMEOUT_S = 3.0


class BadQueryError(PostelError):
    """What was asked for cannot exist, or is too large; the message says what can be asked."""


class TooSlowError(PostelError):
    """The database needed longer than the time that a reader may take of it."""


class Access:
    """The database as the readers see it.

    ``pool`` is set when the database is there; until then ``fault`` says why it is not.
    """

    def __init__(self) -> None:
        self.pool: Pool | None = None
        self.fault = "the database is being opened"

    async def close(self) -> None:
        """Close the pool."""
        if self.pool is not None:
            await self.pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in a transaction.

        Raises:
            DatabaseError: the database is away, or not migrated.
            TooSlowError: past `STATEMENT_TIMEOUT_S`.
            BadQueryError: a value that the database cannot read.
        """
        if self.pool is None:
            raise DatabaseError(self.fault)
        try:
            async with self.pool.connection(timeout=_POOL_TIMEOUT_S) as connection, connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
                yield connection
        except psycopg.errors.QueryCanceled:
            raise TooSlowError(
                f"the database needed more than {STATEMENT_TIMEOUT_S} s; ask for a shorter range, one node or one zone"
            ) from None
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.UndefinedFunction,
        ) as error:
            raise DatabaseError(
                f"the database is not migrated ({error.diag.message_primary}): run `postel db migrate`"
            ) from None
        except psycopg.DataError as error:
            raise BadQueryError(f"node, instance, zone, filter or range cannot be: {error}") from None
        except (PoolTimeout, PoolClosed):
            raise DatabaseError(
                f"the database does not answer within {_POOL_TIMEOUT_S:g} s; see [database] url"
            ) from None
        except psycopg.IntegrityError:
            raise
        except psycopg.Error as error:
            raise DatabaseError(f"the database does not answer: {str(error).strip()}") from None
