"""
Redis, then Postgres, goes away while two worker processes are busy with 2,000 jobs and clients keep asking the api.

All jobs complete, none twice; the api answers what it can, and what it acknowledged is there.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2

from commonplace_runtime.embedded import EmbeddedPostgres, EmbeddedRedis, free_port
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.store.pool import Pool, open_pool
from tests.factories import Key, Team, make_event, make_key, make_team
from tests.integration.runtime.worker.chaos import CHAOS, WORKER, Process, Provider, process, provider
from tests.integration.runtime.worker.support import environ, until

JOBS: Final = 2_000 * CHAOS
SESSIONS: Final = JOBS // 5
BATCH: Final = 100
FIRST: Final = JOBS * 4 // 5
"""Events that are there before anything goes away; the rest comes while it does."""

API = """
import os, uvloop
from commonplace_runtime.entrypoints.http.serve import serve_api
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.settings import load_settings
configure_logging("info", "json")
uvloop.run(serve_api(load_settings(os.environ)))
"""


def event(number: int) -> dict[str, Any]:
    """The same number is the same event, also for the api."""
    return make_event(
        eventType="assistant_message",
        contentSessionId=f"session-{number % SESSIONS}",
        platformSource="claude",
        occurredAtEpoch=1_790_000_000_000 + number,
        payload={"last_assistant_message": f"Service {number} listens on port {number}."},
    )


class Clients:
    """
    One that posts events until each is acknowledged, others that search and probe, each without a pause.

    answers: how often each request got each answer. answers_away: those of them that were asked for and given within
    one outage.
    """

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self.answers: Counter[tuple[str, int, str]] = Counter()
        self.answers_away: Counter[tuple[str, int, str]] = Counter()
        self.acknowledged: set[str] = set()
        self._outages = [asyncio.Event() for _ in range(CHAOS)]
        self._is_away = False

    async def ask(self, method: str, path: str, body: object = None) -> httpx2.Response:
        """One request, counted."""
        was_away, outage = self._is_away, self._outage
        answer = await self._http.request(method, path, json=body)
        transport = answer.json()["generationJob"]["transport"] if answer.status_code == 201 else ""
        seen = (path, answer.status_code, transport)
        self.answers[seen] += 1
        if was_away and self._is_away and outage == self._outage:
            self.answers_away[seen] += 1
        return answer

    async def post(self, number: int) -> str:
        """Until it is acknowledged; then how the workers were told."""
        while True:
            answer = await self.ask("POST", "/v1/events", event(number))
            if answer.status_code == 201:
                self.acknowledged.add(answer.json()["event"]["id"])
                return str(answer.json()["generationJob"]["transport"])
            await asyncio.sleep(0.05)

    async def post_all(self) -> None:
        """A share of the events before each outage, one from the last on."""
        share = (JOBS - FIRST) // (CHAOS + 1)
        for place, number in enumerate(range(FIRST, JOBS)):
            if place % share == 0 and 0 < place // share <= CHAOS:
                await self._outages[place // share - 1].wait()
            await self.post(number)

    async def repeat(self, method: str, path: str, body: object = None) -> None:
        """The same request, for ever."""
        while True:
            await self.ask(method, path, body)
            await asyncio.sleep(0.02)

    @property
    def _outage(self) -> int:
        return sum(outage.is_set() for outage in self._outages)

    def gone(self) -> None:
        """The server is away."""
        self._outages[self._outage].set()
        self._is_away = True

    def returns(self) -> None:
        """The server may be back at any moment now."""
        self._is_away = False

    async def met_outage(self, *seen: tuple[str, int, str]) -> None:
        """Each of these answers was given while the server was away."""

        async def is_met() -> bool:
            return all(self.answers_away[one] > 2 for one in seen)

        await until(is_met)


@asynccontextmanager
async def asking(clients: Clients) -> AsyncIterator["asyncio.Task[None]"]:
    """The clients beside the test; gives the task that ends when all events are acknowledged."""
    posting = asyncio.create_task(clients.post_all())
    others = [
        asyncio.create_task(clients.repeat("GET", "/healthz")),
        asyncio.create_task(clients.repeat("GET", "/api/readiness")),
        asyncio.create_task(clients.repeat("POST", "/v1/search", {"query": "port", "projectId": "default"})),
    ]
    try:
        yield posting
        assert not any(task.done() for task in others)
    finally:
        for task in (posting, *others):
            task.cancel()
        await asyncio.gather(posting, *others, return_exceptions=True)


class Stage:
    """Servers, an api, two workers, a provider and a team whose first events wait."""

    def __init__(self, postgres: EmbeddedPostgres, redis: EmbeddedRedis, pool: Pool, asked: Provider) -> None:
        self.postgres = postgres
        self.redis = redis
        self.asked = asked
        self.pool = pool
        self.team: Team
        self.key: Key
        self.http: httpx2.AsyncClient

    async def count(self, statement: str) -> int:
        async with self.pool.acquire() as connection:
            return int(await connection.fetchval(statement))

    async def completed(self) -> int:
        return await self.count("SELECT count(*) FROM commonplace.jobs WHERE status = 'completed'")

    async def has_completed(self, jobs: int, *, seconds: float = 60.0 * CHAOS) -> None:
        async def are_done() -> bool:
            try:
                return await self.completed() >= jobs
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return False

        await until(are_done, seconds=seconds)

    async def holds(self, clients: Clients) -> None:
        """All are there, all are done, none twice."""
        assert await self.completed() == JOBS
        assert await self.count("SELECT count(*) FROM commonplace.jobs") == JOBS
        events = {str(row["id"]) for row in await self.pool.fetch("SELECT id FROM commonplace.events")}
        assert len(events) == JOBS
        assert clients.acknowledged <= events
        assert len(clients.acknowledged) >= JOBS - FIRST
        cited = await self.pool.fetch("SELECT event_id FROM commonplace.memory_sources")
        assert sorted(str(row["event_id"]) for row in cited) == sorted(events)
        assert await self.count("SELECT count(*) FROM commonplace.memories") == JOBS
        counted = await self.count("SELECT sum(quantity) FROM commonplace.usage_counters WHERE kind = 'model_calls'")
        assert await self.asked.count() == counted, "every answer that was bought was kept"


async def fill(http: httpx2.AsyncClient) -> None:
    for start in range(0, FIRST, BATCH):
        body = [event(number) for number in range(start, start + BATCH)]
        answer = await http.post("/v1/events/batch", json=body)
        assert answer.status_code == 201, answer.text


@asynccontextmanager
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Ready to work: the first events wait for workers that are started with `working`."""
    # What Postgres acknowledged survives its own death; only that of the machine would need fsync.
    with EmbeddedPostgres(settings={"fsync": "off", "max_connections": "100"}) as postgres, EmbeddedRedis() as redis:
        pool = await open_pool(postgres.url(), size=3, connect_timeout=5, statement_timeout=30, application="tests")
        async with pool, AsyncExitStack() as stack:
            await migrate(pool, with_roles=True)
            await pool.execute("CREATE ROLE own_runtime LOGIN IN ROLE commonplace_runtime")
            asked = await stack.enter_async_context(provider(tmp_path / "provider", "--latency", "0.2"))
            made = Stage(postgres, redis, pool, asked)
            made.team = await make_team(pool)
            made.key = await make_key(pool, made.team.id, project_id=made.team.project_id)
            port = free_port()
            values = environ(postgres.url(user="own_runtime"), COMMONPLACE_REDIS_URL=redis.url)
            api = await stack.enter_async_context(
                process(tmp_path / "api", "-c", API, COMMONPLACE_PORT=str(port), **values)
            )
            await api.logged("api_listening")
            made.http = await stack.enter_async_context(
                httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=made.key.headers, timeout=60)
            )
            await fill(made.http)
            yield made
            assert api.child.returncode is None, "the api lived through it"


@asynccontextmanager
async def working(stage: Stage, tmp_path: Path) -> AsyncIterator[list[Process]]:
    values = environ(
        stage.postgres.url(user="own_runtime"),
        COMMONPLACE_REDIS_URL=stage.redis.url,
        COMMONPLACE_WORKER_CONCURRENCY="8",
        # A claim that was committed and not heard of is taken over after that.
        COMMONPLACE_WORKER_LEASE_SECONDS="20",
        **stage.asked.environ,
    )
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(process(tmp_path / f"worker-{number}", "-c", WORKER, **values))
            for number in range(2)
        ]
        yield workers
        assert [worker.child.returncode for worker in workers] == [None, None], "the workers lived through it"


async def test_redis_killed_and_emptied_during_2000_jobs_costs_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as running:
        clients = Clients(running.http)
        async with working(running, tmp_path), asking(clients) as posting:
            for outage in range(CHAOS):
                await running.has_completed(JOBS * (outage + 1) // (CHAOS + 3))
                running.redis.kill()
                clients.gone()
                before = await running.completed()
                assert before < JOBS
                # The work goes on by polling.
                await running.has_completed(min(before + 100, JOBS))
                await clients.met_outage(
                    ("/v1/events", 201, "queued_only"), ("/v1/search", 200, ""), ("/healthz", 200, "")
                )
                clients.returns()
                # In a thread: the clients go on meanwhile.
                await asyncio.to_thread(running.redis.start)

                async def is_heard() -> bool:
                    return await clients.post(FIRST) == "enqueued"

                await until(is_heard)
            await posting
            await running.has_completed(JOBS)
        await running.holds(clients)

    assert {seen[1] for seen in clients.answers} == {200, 201}, "nobody was turned away"
    assert clients.answers_away[("/v1/events", 201, "enqueued")] == 0, "nobody was told what is not so"


async def test_postgres_restarted_during_2000_jobs_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as running:
        clients = Clients(running.http)
        async with working(running, tmp_path), asking(clients) as posting:
            for outage in range(CHAOS):
                await running.has_completed(JOBS * (outage + 1) // (CHAOS + 3))
                assert await running.completed() < JOBS
                running.postgres.kill()
                clients.gone()
                await clients.met_outage(
                    ("/v1/events", 503, ""), ("/v1/search", 503, ""), ("/api/readiness", 503, ""), ("/healthz", 200, "")
                )
                clients.returns()
                await asyncio.to_thread(running.postgres.start)
            await posting
            await running.has_completed(JOBS)
        await running.holds(clients)

    assert {seen[:2] for seen in clients.answers_away} == {
        ("/v1/events", 503),
        ("/v1/search", 503),
        ("/api/readiness", 503),
        ("/healthz", 200),
    }
    assert {seen[1] for seen in clients.answers if seen[0] == "/healthz"} == {200}
    assert {seen[1] for seen in clients.answers} == {200, 201, 503}
