"""`postel serve` that reads a streaming replica: a real pair of servers, of which the tests hold one back or end it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import UUID

import httpx
import orjson
import psycopg
import pytest
from psycopg import conninfo
from selenium import webdriver
from selenium.webdriver.common.by import By

from postel.doctor import replica as doctor
from postel.doctor.result import Result, Verdict
from postel.errors import DatabaseError
from postel.settings import Database, Settings
from postel.signals import load_all
from postel.tasks import end
from support.eventually import eventually
from support.listener import listening
from support.page import Rows, look, name_of, serving, status
from support.postgres import KillableServer, distribution_server, fresh_database, migrate_now, named
from support.replica import follow, replica_of
from support.requirements import require
from support.roles import logins
from support.running_postel import until
from timescale_sink.api import feed as feeds
from timescale_sink.api.access import Access, BrokenOffError, asked_again
from timescale_sink.api.events import EventReader
from timescale_sink.api.feed import Feed, Subscription
from timescale_sink.api.filters import Where
from timescale_sink.api.series import Reader, Standing
from timescale_sink.store.database import READ_URL, Connection, create_pool
from timescale_sink.store.roles import READ, SERVE
from tools.bootstrap.programs import PostgresServer, find_postgres

_SERVERS = find_postgres()
ATTEMPT = "zonemta.delivery.accepted"


@pytest.fixture(scope="module")
def program() -> PostgresServer:
    require("postgresql", available=_SERVERS)
    return _SERVERS[-1]


@pytest.fixture(scope="module")
def primary(program: PostgresServer) -> Iterator[KillableServer]:
    server = KillableServer(program)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def replica(program: PostgresServer, primary: KillableServer) -> Iterator[KillableServer]:
    """One that breaks a question off at once where it has to."""
    with replica_of(primary.url, program, "-c", "max_standby_streaming_delay=0") as server:
        yield server


@pytest.fixture(scope="module")
def template(primary: KillableServer) -> Iterator[str]:
    with fresh_database(primary.url) as url:
        migrate_now(url)
        yield name_of(url)


@pytest.fixture
def database(primary: KillableServer, template: str, replica: KillableServer) -> Iterator[str]:
    """A migrated, empty database, by the primary; the replica has it too."""
    with fresh_database(primary.url, template) as url:
        follow(primary.url, replica.url)
        yield url


@pytest.fixture
def copy(database: str, replica: KillableServer) -> str:
    """The same by the replica."""
    return named(replica.url, name_of(database))


@pytest.fixture
def rows(database: str) -> Iterator[Rows]:
    """Inserts at the primary."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield Rows(connection)


@pytest.fixture
def page(tmp_path: Path, database: str, copy: str) -> Iterator[str]:
    with serving(tmp_path, database, POSTEL_DATABASE__READ_URL=copy) as address:
        until(lambda: status(f"{address}/api/v1/healthz") == 200, 20, "the replica is asked")
        yield address


@contextmanager
def held_back(replica: str) -> Iterator[None]:
    """The replica replays nothing, until it is resumed."""
    with psycopg.connect(replica, autocommit=True) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state()"
        until(lambda: connection.execute(state).fetchone() == ("paused",), 10, "it pauses")
    try:
        yield
    finally:
        resume(replica)


def resume(replica: str) -> None:
    with psycopg.connect(replica, autocommit=True) as connection:
        connection.execute("SELECT pg_wal_replay_resume()")


def test_all_but_alerts_is_the_replicas_with_a_role_that_may_only_read(
    tmp_path: Path, primary: KillableServer, replica: KillableServer, database: str, rows: Rows
) -> None:
    with logins(database) as urls:
        follow(primary.url, replica.url)
        reading = conninfo.make_conninfo(urls[READ], host=str(replica.folder))
        with (
            serving(tmp_path, urls[SERVE], POSTEL_DATABASE__READ_URL=reading) as address,
            httpx.Client(base_url=f"{address}/api/v1", timeout=10, trust_env=False) as api,
        ):
            until(lambda: api.get("/healthz").is_success, 20, "the replica is asked")
            now = time.time()
            rows.node("mx1", "mx1.example.org", seen=now - 40)
            rows.system(now // 15 * 15 - 15, "mx1", cpu_load=1)
            rows.event(
                "delivery_events", now, 1, ATTEMPT, status="delivered", message_id="<a@b.test>", to_domain="b.test"
            )
            follow(primary.url, replica.url)
            with held_back(replica.url):
                rows.node("mx2", "mx2.example.org", seen=now)
                rows.event("delivery_events", now, 2, ATTEMPT, status="delivered", message_id="<a@b.test>")
                first = api.get("/nodes").json()["nodes"]
                assert [node["id"] for node in first] == ["mx1"]
                asked = {"table": "metrics_system", "column": "cpu_load"}
                assert [series["node"] for series in api.get("/series", params=asked).json()["series"]] == ["mx1"]
                assert len(api.get("/events", params={"table": "delivery_events"}).json()["events"]) == 1
                assert len(api.get("/trace/<a@b.test>").json()["events"]) == 1
                assert api.get("/top", params={"by": "domain"}).json()["top"][0]["name"] == "b.test"
                assert api.get("/deliverability", params={"by": "domain"}).is_success
                # Who silences an alert sees it silenced.
                silence = {"ends": "2100-01-01T00:00:00Z", "author": "x", "reason": "y"}
                assert api.post("/silences", json=silence).status_code == 201
                assert len(api.get("/silences").json()["silences"]) == 1
                assert api.get("/alerts").is_success
                time.sleep(2.5)
                standing, second = api.get("/healthz").json(), api.get("/nodes").json()["nodes"]
                assert (standing["status"], standing["replica"]) == ("ok", True)
                assert 2.5 < standing["age"] < 60
                assert second[0]["age"] - first[0]["age"] > 2.4, "how old it is, whatever the lag"
            follow(primary.url, replica.url)
            until(
                lambda: [node["id"] for node in api.get("/nodes").json()["nodes"]] == ["mx1", "mx2"], 10, "it goes on"
            )


async def test_a_replica_that_was_given_nothing_since_it_started_has_no_age(
    program: PostgresServer, primary: KillableServer, database: str
) -> None:
    # Its copy of the primary is all that it has: of later transactions it replays none before the test is over.
    with replica_of(primary.url, program, "-c", "recovery_min_apply_delay=1h") as own:
        insert(database, [1])
        async with asking(named(own.url, name_of(database))) as access:
            assert await Reader(access, load_all()).ping() == Standing(replica=True, age=None)


def test_a_replica_that_is_gone_is_named_and_alerts_are_told_on(
    program: PostgresServer, primary: KillableServer, database: str, tmp_path: Path
) -> None:
    with replica_of(primary.url, program) as own:
        copy = named(own.url, name_of(database))
        either = conninfo.make_conninfo(
            database, host=f"{own.folder},{primary.folder}", target_session_attrs="prefer-standby"
        )
        (tmp_path / "either").mkdir()
        with (
            serving(tmp_path, database, POSTEL_DATABASE__READ_URL=copy) as address,
            serving(tmp_path / "either", database, POSTEL_DATABASE__READ_URL=either) as other,
            httpx.Client(base_url=f"{address}/api/v1", timeout=10, trust_env=False) as api,
            httpx.Client(base_url=f"{other}/api/v1", timeout=10, trust_env=False) as spared,
        ):
            for one in (api, spared):
                until(lambda one=one: one.get("/healthz").json().get("replica"), 20, "the replica is asked")  # type: ignore[misc]
            own.kill()
            away = api.get("/healthz")
            assert (away.status_code, away.headers["retry-after"]) == (503, "5")
            assert "the replica does not answer" in away.json()["detail"]
            assert "see [database] read_url" in api.get("/healthz").json()["detail"]
            assert api.get("/nodes").status_code == 503
            assert api.get("/alerts").status_code == 200
            # By its URL the primary stands in.
            until(lambda: spared.get("/healthz").is_success, 20, "the primary answers")
            assert spared.get("/healthz").json() == {"status": "ok", "replica": False, "age": None}
            own.start()
            until(lambda: api.get("/healthz").is_success, 20, "the replica is asked again")


def test_a_replica_tells_all_but_alerts_while_the_primary_is_away(
    tmp_path: Path, database: str, copy: str, chromium: webdriver.Chrome
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        Rows(connection).node("mx1", "mx1.example.org", seen=time.time())
    follow(database, copy)
    nowhere = "postgresql://postel@127.0.0.1:1/postel"
    with serving(tmp_path, nowhere, POSTEL_DATABASE__READ_URL=copy) as address:
        api = f"{address}/api/v1"
        until(lambda: status(f"{api}/nodes") == 200, 20, "the replica answers")
        assert httpx.get(f"{api}/alerts", timeout=10, trust_env=False).status_code == 503
        look(chromium)
        chromium.get(f"{address}/")
        for told in ("see [database] url. This page tries again", "mx1.example.org"):
            until(lambda told=told: told in shown(chromium), 20, lambda: shown(chromium))  # type: ignore[misc]
        chromium.get("about:blank")


def shown(chromium: webdriver.Chrome) -> str:
    return chromium.find_element(By.TAG_NAME, "body").text


class Writing:
    """Transactions of every kind at the primary, by several sessions at once; `numbers` are of the events of them."""

    def __init__(self, url: str, rounds: int) -> None:
        self.url, self.rounds = url, rounds
        self.numbers: list[int] = []
        self._next = itertools.count(1)
        self._pool = ThreadPoolExecutor(6)
        kinds = (self._single, self._late, self._undone, self._nested, self._many, self._single)
        self._done = [self._pool.submit(self._write, kind) for kind in kinds]

    def wait(self) -> list[int]:
        """The numbers of all, once all are over."""
        for one in self._done:
            one.result(120)
        self._pool.shutdown()
        return sorted(self.numbers)

    def _write(self, kind: Callable[[psycopg.Connection], list[int]]) -> None:
        with psycopg.connect(self.url) as connection:
            for _ in range(self.rounds):
                written = kind(connection)
                connection.commit()
                self.numbers += written
                time.sleep(0.02)

    def _insert(self, connection: psycopg.Connection) -> int:
        number = next(self._next)
        Rows(connection).event("delivery_events", time.time(), number, ATTEMPT)
        return number

    def _single(self, connection: psycopg.Connection) -> list[int]:
        return [self._insert(connection)]

    def _late(self, connection: psycopg.Connection) -> list[int]:
        """It commits after many that began later."""
        first = self._insert(connection)
        time.sleep(0.7)
        return [first, self._insert(connection)]

    def _undone(self, connection: psycopg.Connection) -> list[int]:
        self._insert(connection)
        connection.rollback()
        # A number is taken, and nothing of it is in the WAL until it commits.
        connection.execute("SELECT pg_current_xact_id()")
        time.sleep(0.1)
        return []

    def _nested(self, connection: psycopg.Connection) -> list[int]:
        """More subtransactions than a snapshot of a replica lists (PGPROC_MAX_CACHED_SUBXIDS, 64)."""
        numbers = []
        for _ in range(70):
            with connection.transaction():
                numbers.append(self._insert(connection))
        return numbers

    def _many(self, connection: psycopg.Connection) -> list[int]:
        """More than one piece of a window."""
        numbers = [next(self._next) for _ in range(700)]
        connection.execute(
            "INSERT INTO delivery_events (time, event_id, node_id, instance, event_name, attributes)"
            " SELECT now(), id, 'x', 'x', %s, '{}' FROM unnest(%s) AS id",
            [ATTEMPT, [UUID(int=number) for number in numbers]],
        )
        return numbers


def test_of_what_is_written_at_the_primary_each_event_comes_once(page: str, database: str) -> None:
    with listening(page) as listener:
        listener.subscribe()
        writing = Writing(database, 25)
        written = writing.wait()
        assert len(written) > 15_000
        assert sorted(listener.numbers(len(written), seconds=60)) == written
        assert "away" not in {message["type"] for message in listener.got}
        # What came twice would come now.
        at = int(listener.next("at")["at"])
        until(lambda: int(listener.next("at", 20)["at"]) >= at, 20, "a later window")
        assert sorted(listener.numbers(len(written))) == written


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_who_goes_from_a_replica_to_the_primary_and_back_while_the_replica_dies_misses_nothing(
    page: str, replica: KillableServer, database: str, tmp_path: Path
) -> None:
    (tmp_path / "primary").mkdir()
    with serving(tmp_path / "primary", database) as other:
        listener = Traveller()
        listener.listen(page, 1)
        writing = Writing(database, 30)
        places = itertools.cycle([other, page])
        for _ in range(2):
            listener.listen(next(places), 2)
            replica.kill()
            listener.listen(next(places), 1)
            replica.start()
        written = writing.wait()
        deadline = time.monotonic() + 60
        while listener.got < {*written} and time.monotonic() < deadline:
            listener.listen(next(places), 2)
        assert listener.got == {*written}


class Traveller:
    """A client that comes back, to another `serve` each time, with the last `at` that it saw."""

    def __init__(self) -> None:
        self.got: set[int] = set()
        self._at: str | None = None

    def listen(self, address: str, seconds: float) -> None:
        """Listen so long from when all was told that came meanwhile."""
        deadline = time.monotonic() + 40
        with listening(address) as listener:
            listener.ask(type="events", id="a", table="delivery_events", after=self._at)
            with suppress(TimeoutError):
                while (left := deadline - time.monotonic()) > 0:
                    message = orjson.loads(listener.socket.recv(left))
                    if message["type"] in ("subscribed", "at"):
                        self._at = message["at"]
                    if message["type"] == "subscribed":
                        deadline = time.monotonic() + seconds
                    elif message["type"] == "error":
                        return
                    elif message["type"] == "events":
                        self.got |= {UUID(event["id"]).int for event in message["events"]}


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Access]:
    access = Access("the replica", READ_URL)
    access.pool = create_pool(url, 4)
    await access.pool.open()
    try:
        yield access
    finally:
        await access.close()


class Heard:
    """A listener of a feed in this process: the events' numbers, and what it was told of the feed's own faults."""

    def __init__(self, access: Access, meanwhile: Callable[[Heard], None] = lambda _: None) -> None:
        self.numbers: list[int] = []
        self.said: list[str] = []
        self.reached = ""
        self.feed = Feed(access, EventReader(access, load_all()))
        self.subscription = Subscription(
            EventReader(access, load_all()).filter("delivery_events"), self._take, self._reach, self.said.append
        )
        self._meanwhile = meanwhile

    @asynccontextmanager
    async def listening(self, after: str | None = None) -> AsyncIterator[str]:
        """Listen until the block ends; where it begins."""
        run = asyncio.create_task(self.feed.run())
        try:
            at = await self.feed.subscribe(self.subscription, after)
            if after is not None:
                async for piece in self.feed.since(self.subscription.filter, after, at):
                    self._take(piece)
            yield at
        finally:
            await end(run)

    def has(self, transaction: int) -> bool:
        """Whether it was told that all of a transaction was given."""
        return int(self.reached or 0) > transaction

    def _take(self, piece: str) -> None:
        self.numbers += [UUID(event["id"]).int for event in orjson.loads(f"[{piece}]")]
        self._meanwhile(self)

    def _reach(self, at: str) -> None:
        self.reached = at


@contextmanager
def answering(access: Access, another: Access) -> Iterator[None]:
    """What is asked by the one is answered by the other's server."""
    own, access.pool = access.pool, another.pool
    try:
        yield
    finally:
        access.pool = own


def insert(url: str, numbers: Iterable[int]) -> int:
    """Write events in one transaction; its number."""
    with psycopg.connect(url) as connection:
        for number in numbers:
            Rows(connection).event("delivery_events", time.time(), number, ATTEMPT)
        row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    return int(row[0]) if row else 0


def lock(primary: str, replica: str) -> None:
    """Lock the events for a moment: the replica ends whatever reads them there."""
    with psycopg.connect(primary) as connection:
        connection.execute("LOCK TABLE delivery_events IN ACCESS EXCLUSIVE MODE")
        # What writes nothing has no number, and is in no WAL.
        connection.execute("SELECT pg_current_xact_id()")
    follow(primary, replica)


def conflicts(replica: str) -> int:
    with psycopg.connect(replica) as connection:
        row = connection.execute(
            "SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = current_database()"
        ).fetchone()
    return row[0] if row else 0


async def test_new_events_that_a_conflict_breaks_off_go_on_behind_those_that_were_given(
    database: str, copy: str
) -> None:
    met: list[Heard] = []

    def conflict(heard: Heard) -> None:
        # Between the first piece of a window and the others.
        if heard not in met:
            met.append(heard)
            lock(database, copy)

    async with asking(copy) as access:
        heard = Heard(access, conflict)
        async with heard.listening():
            await asyncio.to_thread(insert, database, range(1, 1701))
            await eventually(lambda: len(heard.numbers) >= 1700, 20, "all came")
        assert heard.numbers == [*range(1, 1701)]
        assert heard.said == []
        assert met == [heard]
        await eventually(lambda: conflicts(copy) >= 1, 20, "it was ended by the replica")


class Broken(Access):
    """The replica ends a session that has read, before its transaction ends, where ``conflict`` is set; once."""

    conflict: Callable[[], None] | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with super().connection() as connection:
            yield connection
            conflict, self.conflict = self.conflict, None
            if conflict:
                await asyncio.to_thread(conflict)


async def test_what_was_missed_is_given_once_where_a_conflict_breaks_a_piece_of_it_off(
    database: str, copy: str
) -> None:
    written = insert(database, range(1, 1701))
    follow(database, copy)
    access, got = Broken(), list[int]()
    async with asking(copy) as whole:
        access.pool = whole.pool
        heard = Heard(access)
        async for piece in heard.feed.since(heard.subscription.filter, f"{written}", f"{written + 1}"):
            got += [UUID(event["id"]).int for event in orjson.loads(f"[{piece}]")]
            if len(got) == 500:
                access.conflict = lambda: lock(database, copy)
        assert got == [*range(1, 1701)]
        assert access.conflict is None
        await eventually(lambda: conflicts(copy) >= 1, 20, "it was ended by the replica")


async def test_a_cursor_is_closed_where_its_session_has_ended(database: str, copy: str) -> None:
    """One that stays open is a warning, which is an error here."""
    written = insert(database, range(1, 1701))
    follow(database, copy)
    async with asking(copy) as access:
        feed, place = Heard(access).feed, feeds._Place.before(f"{written}")
        async with access.connection() as connection:
            found = feed._read(connection, "delivery_events", Where(), place, f"{written + 1}")
            async with aclosing(found):
                assert len((await anext(found)).events) == 500
                with psycopg.connect(copy) as server:
                    server.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        gc.collect()


async def test_a_question_that_a_conflict_breaks_off_is_asked_once_more(database: str, copy: str) -> None:
    async with asking(copy) as access:
        asked: list[int] = []

        @asked_again
        async def ask(conflicts: int) -> int:
            asked.append(conflicts)
            async with access.connection() as connection:
                await connection.execute("SELECT count(*) FROM delivery_events")
                if len(asked) <= conflicts:
                    await asyncio.to_thread(lock, database, copy)
                found = await connection.execute("SELECT count(*) FROM delivery_events")
                return len(await found.fetchall())

        assert await ask(1) == 1
        assert len(asked) == 2
        asked.clear()
        with pytest.raises(BrokenOffError, match=r"conflict with recovery\); ask again") as broken:
            await ask(2)
        # The API answers it as a database that is away.
        assert isinstance(broken.value, DatabaseError)


@pytest.fixture
def other(program: PostgresServer, primary: KillableServer, database: str) -> Iterator[str]:
    """The database by a second replica, which is held back until the test lets it go on."""
    with replica_of(primary.url, program) as server:
        yield named(server.url, name_of(database))


async def test_a_replica_with_less_than_was_given_gives_nothing_until_it_has_that(
    database: str, copy: str, other: str
) -> None:
    async with asking(copy) as access, asking(other) as lagging:
        heard, late = Heard(access), Heard(lagging)
        async with heard.listening():
            with held_back(other):
                last = insert(database, [1, 2])
                await eventually(lambda: heard.has(last), 20, "they come from the first")
                with answering(access, lagging):
                    await eventually(lambda: heard.said, 20, "it is said")
                    assert "has not yet all" in heard.said[0]
                    insert(database, [3])
                    # Who comes from the first replica waits too.
                    async with asyncio.TaskGroup() as tasks:
                        coming = tasks.create_task(_numbers(late, heard.reached, 1))
                        await asyncio.sleep(1.5)
                        assert heard.numbers == [1, 2]
                        assert not coming.done()
                        resume(other)
                    assert coming.result() == [3]
                    await eventually(lambda: len(heard.numbers) > 2, 20, "the second goes on")
                    await eventually(lambda: heard.said[1:] == [""], 20, "it is said")
                    assert heard.numbers == [1, 2, 3]


async def _numbers(heard: Heard, after: str, count: int) -> list[int]:
    async with heard.listening(after):
        await eventually(lambda: len(heard.numbers) >= count, 20, "they come")
        return heard.numbers


async def test_one_that_stays_behind_is_taken_for_a_database_that_was_set_back(
    database: str, copy: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "BEHIND_S", 1.0)
    async with asking(copy) as access, asking(other) as lagging:
        heard = Heard(access)
        async with heard.listening():
            with held_back(other):
                last = insert(database, [1])
                await eventually(lambda: heard.has(last), 20, "it comes from the first")
                was = heard.reached
                with answering(access, lagging):
                    await eventually(lambda: heard.said[1:] == [""], 20, "it goes on")
                    async with Heard(lagging).listening(was) as begun:
                        assert int(begun) < int(was)
                    resume(other)
                    await eventually(lambda: heard.numbers == [1, 1], 20, "what it lacked comes again")


def diagnose(folder: Path, url: str, read_url: str | None) -> list[Result]:
    settings = Settings(data_dir=folder, database=Database.model_validate({"url": url, "read_url": read_url}))

    async def run() -> list[Result]:
        return [result async for result in doctor.check(settings)]

    return asyncio.run(run())


def test_the_doctor_says_whether_the_replica_may_be_read_and_how_far_it_is_behind(
    tmp_path: Path, database: str, copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert diagnose(tmp_path, database, None) == []
    (fine,) = diagnose(tmp_path, database, copy)
    assert fine.verdict is Verdict.OK
    assert "a streaming replica; it had what the primary has after 0." in fine.text

    (itself,) = diagnose(tmp_path, database, database)
    assert (itself.verdict, itself.text) == (Verdict.NOTE, "is the primary itself, which is relieved of nothing")
    (another,) = diagnose(tmp_path, database, named(copy, "postgres"))
    assert (another.verdict, another.text) == (Verdict.FAIL, "is none of [database] url, but another database")
    (turned,) = diagnose(tmp_path, copy, copy)
    assert (turned.verdict, turned.text) == (Verdict.FAIL, "[database] url names a replica too")
    (away,) = diagnose(tmp_path, database, "postgresql://postel:secret@127.0.0.1:1/postel")
    assert away.verdict is Verdict.FAIL
    assert "see [database] read_url" in away.text
    assert "secret" not in str(away)
    (alone,) = diagnose(tmp_path, "postgresql://postel@127.0.0.1:1/postel", copy)
    assert alone.verdict is Verdict.NOTE

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE postel_stranger LOGIN")
    follow(database, copy)
    unread, _ = diagnose(tmp_path, database, conninfo.make_conninfo(copy, user="postel_stranger"))
    assert "the role postel_stranger may not read delivery_events, email_events, metrics_haraka" in unread.text
    assert 'GRANT postel_read TO "postel_stranger"' in unread.mend

    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.5)
    with held_back(copy):
        insert(database, [1])
        (stands,) = diagnose(tmp_path, database, copy)
    assert (stands.verdict, stands.text.rpartition("; ")[2]) == (Verdict.FAIL, "it stands still")
    assert "MiB behind the primary, age of its newest transaction: " in stands.text


def test_the_doctor_says_that_a_server_is_no_replica_or_none_any_more(
    tmp_path: Path, program: PostgresServer, primary: KillableServer, database: str
) -> None:
    with distribution_server(program) as foreign, fresh_database(foreign) as url:
        (apart,) = diagnose(tmp_path, database, url)
        assert (apart.verdict, apart.text) == (Verdict.FAIL, "is none of [database] url, but another server")
    with replica_of(primary.url, program) as own:
        with psycopg.connect(own.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        (promoted,) = diagnose(tmp_path, database, named(own.url, name_of(database)))
        assert (promoted.verdict, promoted.text) == (
            Verdict.FAIL,
            "was promoted, and gets nothing new from the primary",
        )
