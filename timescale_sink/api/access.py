"""The way from the API to a server of the database: one pool for all readers, limits of their own, faults as answers.

Whoever reads waits no longer than `STATEMENT_TIMEOUT_S` for a statement, so that no question holds a connection that
others wait for.

A replica breaks a question off that keeps it from following its primary (PostgreSQL, "Handling Query Conflicts"): what
only reads is asked once more, by `asked_again`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from postel.errors import DatabaseError, PostelError
from timescale_sink.store.database import URL, Connection, Pool

STATEMENT_TIMEOUT_S = 5
_POOL_TIMEOUT_S = 3.0

P = ParamSpec("P")
T = TypeVar("T")


class BadQueryError(PostelError):
    """What was asked for cannot exist, or is too large; the message says what can be asked."""


class TooSlowError(PostelError):
    """The database needed longer than the time that a reader may take of it."""


class BrokenOffError(DatabaseError):
    """A server broke off a question that it may answer when it is asked again."""


def asked_again(ask: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Ask once more what was broken off; of what changes nothing."""

    @wraps(ask)
    async def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await ask(*args, **kwargs)
        except BrokenOffError:
            return await ask(*args, **kwargs)

    return asked


class Access:
    """A server of the database as the readers see it.

    ``pool`` is set when the server is there; until then ``fault`` says why it is not.

    Args:
        name: what messages call the server.
        setting: which says where it is.
    """

    def __init__(self, name: str = "the database", setting: str = URL) -> None:
        self.pool: Pool | None = None
        self.fault = f"{name} is being opened"
        self._name, self._setting = name, setting

    async def close(self) -> None:
        """Close the pool."""
        if self.pool is not None:
            await self.pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in a transaction.

        Raises:
            BrokenOffError: it is a replica that had to go on, or the connection ended.
            DatabaseError: the server is away, or not migrated.
            TooSlowError: past `STATEMENT_TIMEOUT_S`.
            BadQueryError: a value that the database cannot read.
        """
        if self.pool is None:
            raise DatabaseError(self.fault)
        opened: Connection | None = None
        try:
            async with self.pool.connection(timeout=_POOL_TIMEOUT_S) as opened, opened.transaction():
                await opened.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
                yield opened
        except psycopg.errors.QueryCanceled:
            raise TooSlowError(
                f"{self._name} needed more than {STATEMENT_TIMEOUT_S} s; ask for a shorter range, one node or one zone"
            ) from None
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected) as error:
            raise BrokenOffError(
                f"{self._name} broke the question off ({error.diag.message_primary}); ask again"
            ) from None
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.UndefinedFunction,
        ) as error:
            raise DatabaseError(
                f"{self._name} is not migrated ({error.diag.message_primary}): run `postel db migrate`"
            ) from None
        except psycopg.DataError as error:
            raise BadQueryError(f"node, instance, zone, filter or range cannot be: {error}") from None
        except (PoolTimeout, PoolClosed):
            raise DatabaseError(
                f"{self._name} does not answer within {_POOL_TIMEOUT_S:g} s; see {self._setting}"
            ) from None
        except psycopg.IntegrityError:
            raise
        except psycopg.Error as error:
            # Where a replica has ended the session, what it said of that is not always read before its end is.
            if opened is not None and opened.closed:
                reason = str(error).strip().partition("\n")[0]
                raise BrokenOffError(f"{self._name} broke the connection off ({reason}); ask again") from None
            raise DatabaseError(f"{self._name} does not answer: {str(error).strip()}") from None
