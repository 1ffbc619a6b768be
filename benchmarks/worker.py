"""
How fast one worker process turns queued jobs into memories, beside the same calls and commits without claiming.

    .venv/bin/python -m benchmarks.worker            every question, about a quarter of an hour on two cores
    .venv/bin/python -m benchmarks.worker --quick    a tenth of the sessions: a look, no measurement
    .venv/bin/python -m benchmarks.worker --only wait

Everything is real and on this machine: PostgreSQL with durable commits, Redis, api and worker processes, and a provider
over HTTP (`tests/fakes/provider.py`) that answers after a chosen latency. All of them share the machine's cores, the
provider included, so rates compare within a run only. The floor is a process that is handed sessions that are leased
already, calls the same generator on the same events and writes the same results: what claiming costs is the difference.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import psutil

from commonplace_runtime.domain.observations import SourceEvent
from commonplace_runtime.embedded import EmbeddedPostgres, EmbeddedRedis, die_with_parent, free_port
from commonplace_runtime.llm.build import build_generator
from commonplace_runtime.llm.ports import Batch
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.services.portion import Portion
from commonplace_runtime.services.results import results_of, spent_on
from commonplace_runtime.settings import load_settings
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.jobs import Claimed, ClaimedJob, Lease
from commonplace_runtime.store.pool import Pool, open_pool
from tests.fakes import provider

CONCURRENCY = 16
COMMAND = [sys.executable, "-m", "commonplace_runtime"]

_SESSIONS = """
WITH wanted AS (
    SELECT session, gen_random_uuid() AS event_id, gen_random_uuid() AS job_id, place
    FROM generate_series($3::integer + 1, $3::integer + $4::integer) AS session,
        generate_series(1, $5::integer) AS place
    ORDER BY session, place
), grouped AS (
    INSERT INTO commonplace.job_groups (team_id, project_id, session_key, available_at, waiting, waiting_since,
        leased_by, lease_until, lease_token)
    SELECT $1, $2, 'c:' || session, now() + make_interval(secs => CASE WHEN $6 THEN 86400 ELSE 0 END), $5::integer,
        now(), CASE WHEN $6 THEN 'floor' END, CASE WHEN $6 THEN now() + interval '1 day' END,
        CASE WHEN $6 THEN 1 ELSE 0 END
    FROM (SELECT DISTINCT session FROM wanted) AS each
), stored AS (
    INSERT INTO commonplace.events (id, team_id, project_id, content_session_id, source_adapter, idempotency_key,
        event_type, actor, payload, occurred_at)
    SELECT event_id, $1, $2, session::text, 'hook', event_id::text, 'tool_use', 'agent:bench', jsonb_build_object(
        'tool_name', 'Bash', 'cwd', '/srv/app',
        'tool_input', jsonb_build_object('command', 'pytest tests/test_' || session || '_' || place || '.py'),
        'tool_response', jsonb_build_object('exit_code', 1, 'stdout',
            repeat('tests/test_' || session || '.py::test_' || place || ' FAILED: 5433 == 5432' || chr(10), 12))),
        now()
    FROM wanted
)
INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, event_id, source_type, source_id, job_type, actor,
    status, attempts, locked_at, locked_by)
SELECT job_id, $1, $2, 'c:' || session, event_id, 'agent_event', event_id, 'observation_generate_for_event',
    'agent:bench', CASE WHEN $6 THEN 'processing' ELSE 'queued' END, CASE WHEN $6 THEN 1 ELSE 0 END,
    CASE WHEN $6 THEN now() END, CASE WHEN $6 THEN 'floor' END
FROM wanted ORDER BY session, place
"""
_LEASED = """
SELECT j.session_key, array_agg(j.id ORDER BY j.number) AS jobs, array_agg(e.id ORDER BY j.number) AS events,
    jsonb_agg(e.payload ORDER BY j.number) AS payloads, min(e.occurred_at) AS occurred_at
FROM commonplace.jobs j JOIN commonplace.events e ON e.id = j.event_id
WHERE j.status = 'processing' AND j.locked_by = 'floor' GROUP BY j.session_key
"""
_WORK_LEFT = """
SELECT EXISTS (SELECT FROM commonplace.jobs WHERE source_type = 'agent_event' AND status = 'queued')
    OR EXISTS (SELECT FROM commonplace.jobs WHERE source_type = 'agent_event' AND status = 'processing')
"""
_TEAM = UUID("00000000-0000-7000-8000-00000000beef")
_PROJECT = UUID("00000000-0000-7000-8000-00000000cafe")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The servers of one run."""

    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    database: str

    @property
    def admin_url(self) -> str:
        return self.postgres.url(database=self.database)

    def environ(self, provider_url: str | None, **more: str) -> dict[str, str]:
        """Of an api or a worker; without a provider, rules make the memories."""
        chosen = {"COMMONPLACE_PROVIDER": "extractive"}
        if provider_url is not None:
            chosen = {
                "COMMONPLACE_PROVIDER": "anthropic",
                "ANTHROPIC_API_KEY": provider.KEY,
                "COMMONPLACE_PROVIDER_BASE_URL": provider_url,
            }
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/tmp"),
            "COMMONPLACE_DATABASE_URL": self.postgres.url(user="bench_runtime", database=self.database),
            "COMMONPLACE_REDIS_URL": self.redis.url,
            "COMMONPLACE_METRICS_PORT": "0",
            "COMMONPLACE_WORKER_CONCURRENCY": str(CONCURRENCY),
            "COMMONPLACE_LOG_LEVEL": "warning",
            **chosen,
            **more,
        }


@asynccontextmanager
async def fresh_database(postgres: EmbeddedPostgres, redis: EmbeddedRedis, name: str) -> AsyncIterator[Stage]:
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE DATABASE {name}")
    stage = Stage(postgres=postgres, redis=redis, database=name)
    async with await _pool(stage.admin_url) as pool:
        await migrate(pool, with_roles=True)
        if not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bench_runtime')"):
            await pool.execute("CREATE ROLE bench_runtime LOGIN IN ROLE commonplace_runtime")
        await pool.execute("INSERT INTO commonplace.teams (id, slug, name) VALUES ($1, 'bench', 'Bench')", _TEAM)
        await pool.execute(
            "INSERT INTO commonplace.projects (id, team_id, name) VALUES ($1, $2, 'default')", _PROJECT, _TEAM
        )
    try:
        yield stage
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


async def _pool(url: str) -> Pool:
    return await open_pool(url, size=4, connect_timeout=10, statement_timeout=600, application="benchmark")


async def queue(pool: Pool, sessions: int, events: int, *, first: int = 0, leased: bool = False) -> None:
    """Rows as an ingest leaves them; `leased`: as a claim leaves them."""
    for start in range(first, first + sessions, 50_000):
        await pool.execute(
            _SESSIONS, _TEAM, _PROJECT, start, min(50_000, first + sessions - start), events, leased, timeout=600
        )
    # The statistics that autovacuum would have by now.
    for table in ("jobs", "job_groups", "events"):
        await pool.execute(f"VACUUM ANALYZE commonplace.{table}", timeout=600)


@contextmanager
def process(
    command: Sequence[str], environ: dict[str, str] | None = None, *, quiet: bool = False
) -> Iterator[psutil.Process]:
    """A child that ends with us; `quiet`: what it writes is thrown away."""
    child = subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        preexec_fn=die_with_parent(15),  # noqa: PLW1509 - one async-signal-safe call
        cwd=Path(__file__).parents[1],
    )
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(40)
        except subprocess.TimeoutExpired:
            child.kill()


@contextmanager
def fake_provider(latency: float) -> Iterator[str]:
    """The URL of a provider in a process of its own."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.provider", "--latency", str(latency)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(15),  # noqa: PLW1509 - one async-signal-safe call
        cwd=Path(__file__).parents[1],
    )
    try:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
    finally:
        child.terminate()
        child.wait(20)


def calls_made(url: str) -> int:
    return int(httpx2.get(f"{url}/calls/count").text)


def cpu_seconds(process_: psutil.Process, *, with_children: bool = False) -> float:
    times = [process_.cpu_times()]
    if with_children:
        for child in process_.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                times.append(child.cpu_times())
    return sum(each.user + each.system for each in times)


def postmaster(postgres: EmbeddedPostgres) -> psutil.Process:
    return psutil.Process(int((postgres.data_dir / "pgdata" / "postmaster.pid").read_text().split()[0]))


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What a run came to. CPU in milliseconds a job."""

    jobs: int
    calls: int
    seconds: float
    worker_cpu: float
    postgres_cpu: float
    statements: float
    busy: float

    def row(self, name: str) -> str:
        return (
            f"  {name:<34}{self.jobs / self.seconds:>9.0f}{self.calls / self.seconds:>9.0f}{self.worker_cpu:>9.2f}"
            f"{self.postgres_cpu:>9.2f}{self.statements:>9.2f}{100 * self.busy:>8.0f} %"
        )


HEADER = f"  {'':<34}{'jobs/s':>9}{'calls/s':>9}{'CPU ms':>9}{'PG ms':>9}{'stmts':>9}{'core':>10}"


async def measure(
    stage: Stage, pool: Pool, command: Sequence[str], environ: dict[str, str], jobs: int, url: str
) -> Rate:
    """Run `command` until no job is open. The clock runs from the first call to the last commit."""
    server = postmaster(stage.postgres)
    before_calls = calls_made(url)
    transactions = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    with process(command, environ) as child:
        while calls_made(url) == before_calls:  # noqa: ASYNC110 - another process makes them
            await asyncio.sleep(0.002)
        started, worker_before = time.monotonic(), cpu_seconds(child)
        postgres_before, statements_before = cpu_seconds(server, with_children=True), await pool.fetchval(transactions)
        looks = 0
        while await pool.fetchval(_WORK_LEFT):
            looks += 1
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - started
        worker_cpu = cpu_seconds(child) - worker_before
        postgres_cpu = cpu_seconds(server, with_children=True) - postgres_before
        calls = calls_made(url) - before_calls
    # A backend tells its statistics at its end at the latest.
    statements = await pool.fetchval(transactions) - statements_before - looks
    return Rate(
        jobs=jobs,
        calls=calls,
        seconds=seconds,
        worker_cpu=1000 * worker_cpu / jobs,
        postgres_cpu=1000 * postgres_cpu / jobs,
        statements=statements / jobs,
        busy=worker_cpu / seconds,
    )


async def throughput(postgres: EmbeddedPostgres, redis: EmbeddedRedis, scale: float) -> None:
    print("\nThroughput of one worker process, 16 sessions at once, and the floor in the same run")
    print(HEADER)
    shapes = [(int(1000 * scale), 5), (int(5000 * scale), 1)]
    for latency in (0.0, 0.05, 0.5):
        for sessions, events in shapes:
            rates = {}
            for kind in ("worker", "floor"):
                async with fresh_database(postgres, redis, f"bench_{kind}") as stage:
                    # At half a second a whole run of one event each would take minutes and say nothing more.
                    count = min(sessions, int(1000 * scale)) if latency >= 0.5 else sessions
                    async with await _pool(stage.admin_url) as pool:
                        await queue(pool, count, events, leased=kind == "floor")
                        with fake_provider(latency) as url:
                            command = (
                                [*COMMAND, "worker"]
                                if kind == "worker"
                                else [sys.executable, "-m", __spec__.name, "--floor"]
                            )
                            rate = await measure(stage, pool, command, stage.environ(url), count * events, url)
                rates[kind] = rate
                print(rate.row(f"{kind}, {latency * 1000:.0f} ms, {count} x {events}"), flush=True)
            worker, floor = rates["worker"], rates["floor"]
            share = worker.calls / worker.seconds / (floor.calls / floor.seconds)
            line = f"    worker / floor: {100 * share:.0f} % of the calls/s"
            if latency:
                ideal = CONCURRENCY / latency
                line += (
                    f"; {100 * worker.calls / worker.seconds / ideal:.0f} % of concurrency over latency ({ideal:.0f}/s)"
                )
            print(line, flush=True)


async def floor() -> None:
    """The same calls and commits as a worker's, of sessions that are leased already."""
    settings = load_settings(os.environ)
    assert settings.database_url is not None
    generator = build_generator(settings)
    pool = await open_pool(
        settings.database_url.get_secret_value(), size=10, connect_timeout=10, statement_timeout=60, application="floor"
    )
    async with await _pool(os.environ["BENCH_ADMIN_URL"]) if "BENCH_ADMIN_URL" in os.environ else pool as reader:
        async with reader.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.team_id', $1, true)", str(_TEAM))
            sessions = await connection.fetch(_LEASED, timeout=120)
        waiting = list(reversed(sessions))

        async def work() -> None:
            while waiting:
                await _one(pool, generator, waiting.pop())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONCURRENCY):
                tasks.create_task(work())
        await asyncio.Event().wait()


async def _one(pool: Pool, generator: Any, row: Any) -> None:
    lease = Lease(team_id=_TEAM, project_id=_PROJECT, session_key=row["session_key"], token=1)
    events = [
        SourceEvent(
            event_type="tool_use",
            source_adapter="hook",
            platform_source=None,
            occurred_at=row["occurred_at"],
            payload=payload,
        )
        for payload in row["payloads"]
    ]
    jobs = [
        ClaimedJob(
            id=job,
            attempt=1,
            max_attempts=3,
            created_at=row["occurred_at"],
            source_type="agent_event",
            source_id=event_id,
            key_id=None,
            event_id=event_id,
            event=event,
        )
        for job, event_id, event in zip(row["jobs"], row["events"], events, strict=True)
    ]
    claimed = Claimed(lease=lease, project_name="default", limited=False, request="", state={}, recent=(), jobs=jobs)
    portion = Portion(
        jobs=jobs, events=events, stands_for=[[job] for job in jobs], skipped={}, digests=(), closing=None
    )
    generated = await generator.generate(Batch(project_name="default", events=events))
    spent = spent_on([generated], lambda *_: 1)
    await store.complete(pool, lease, results_of(claimed, portion, generated, spent=spent, seconds=0.1))


async def depth(postgres: EmbeddedPostgres, redis: EmbeddedRedis, scale: float) -> None:
    print("\nThroughput with a short and a long queue behind it: jobs/s over the middle of 1,000 jobs, rules only")
    rates = {}
    for queued in (1_000, int(500_000 * max(scale, 0.1))):
        async with fresh_database(postgres, redis, "bench_depth") as stage, await _pool(stage.admin_url) as pool:
            await queue(pool, queued, 1)
            seconds: list[float] = []
            for _ in range(3):
                done = await pool.fetchval(_COMPLETED)
                if queued - done < 1000:
                    await queue(pool, 1000, 1, first=1_000_000 + done)
                with process([*COMMAND, "worker"], stage.environ(None)):
                    while await pool.fetchval(_COMPLETED) - done < 1000:  # noqa: ASYNC110 - as above
                        await asyncio.sleep(0.05)
                times = await pool.fetchval(_TIMES, done)
                seconds.append((times[899] - times[99]).total_seconds())
            rates[queued] = 800 / median(seconds)
            print(f"  {queued:>7} queued: {rates[queued]:>6.0f} jobs/s (median of 3)", flush=True)
    short, long = rates.values()
    print(f"    long / short: {100 * long / short:.0f} %")


_COMPLETED = """
SELECT count(*) FROM (
    SELECT FROM commonplace.jobs WHERE source_type = 'agent_event' AND status = 'completed' LIMIT 100000) AS found
"""
_TIMES = """
SELECT array_agg(completed_at ORDER BY completed_at) FROM (
    SELECT completed_at FROM commonplace.jobs WHERE status = 'completed' ORDER BY completed_at OFFSET $1 LIMIT 1000
) AS newest
"""


async def wait(postgres: EmbeddedPostgres, redis: EmbeddedRedis, scale: float) -> None:
    print("\nFrom an event to its memory at idle: POST /v1/events?wait=true, one at a time")
    async with fresh_database(postgres, redis, "bench_wait") as stage:
        token = await _key(stage)
        for name, latency in (("rules", None), ("a model that answers at once", 0.0), ("a model, 50 ms", 0.05)):
            with contextlib.ExitStack() as stack:
                url = None if latency is None else stack.enter_context(fake_provider(latency))
                port = free_port()
                stack.enter_context(process([*COMMAND, "api"], stage.environ(url, COMMONPLACE_PORT=str(port))))
                stack.enter_context(process([*COMMAND, "worker"], stage.environ(url)))
                client = stack.enter_context(
                    httpx2.Client(
                        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=40
                    )
                )
                await _until_ready(client)
                waited = [_post(client, f"{name}-{number}", wait=True) for number in range(int(300 * max(scale, 0.2)))][
                    20:
                ]
                stored = [_post(client, f"{name}-{number}-x", wait=False) for number in range(60)][20:]
            cuts = quantiles(waited, n=20)
            print(
                f"  {name:<30} p50 {1000 * median(waited):6.1f} ms   p95 {1000 * cuts[18]:6.1f} ms   "
                f"(storing alone: p50 {1000 * median(stored):.1f} ms)",
                flush=True,
            )


async def _key(stage: Stage) -> str:
    environ = {**stage.environ(None), "COMMONPLACE_ADMIN_DATABASE_URL": stage.admin_url}
    made = await asyncio.to_thread(
        subprocess.run,
        [*COMMAND, "keys", "create", "--team", "bench", "--project", "default", "--scope", "*"],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return str(json.loads(made.stdout)["key"])


async def _until_ready(client: httpx2.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if (
                client.get("/api/readiness").status_code == 200
                and _post(client, f"warm-{time.monotonic()}", wait=True) < 20
            ):
                return
        except httpx2.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit("the api did not become ready")
        await asyncio.sleep(0.1)


def _post(client: httpx2.Client, name: str, *, wait: bool) -> float:
    event = {
        "sourceType": "hook",
        "eventType": "assistant_message",
        "sourceEventId": name,
        "payload": {"last_assistant_message": f"We decided that {name} listens on port 5433, because 5432 is taken."},
    }
    started = time.perf_counter()
    answer = client.post("/v1/events", params={"wait": str(wait).lower()}, json=event)
    seconds = time.perf_counter() - started
    assert answer.status_code == 201, answer.text
    assert not wait or answer.json()["generationJob"]["status"] == "completed", answer.text
    return seconds


QUESTIONS = {"wait": wait, "throughput": throughput, "depth": depth}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the sessions")
    parser.add_argument("--only", choices=list(QUESTIONS), help="one question")
    parser.add_argument("--floor", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.floor:
        await floor()
        return
    settings = {"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "4GB"}
    with EmbeddedPostgres(settings=settings) as postgres, EmbeddedRedis() as redis:
        for name, question in QUESTIONS.items():
            if chosen.only in (None, name):
                await question(postgres, redis, 0.1 if chosen.quick else 1.0)


if __name__ == "__main__":
    asyncio.run(main())
