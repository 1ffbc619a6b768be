"""
What a request costs, beside the same server with one statement and no more.

    .venv/bin/python -m benchmarks.http             every question, four seconds a cell: ten minutes and more
    .venv/bin/python -m benchmarks.http --quick     a second a cell: a look, no measurement
    .venv/bin/python -m benchmarks.http --only get,context --callers 16

Everything is real and on this machine: PostgreSQL with durable commits, the api as a process of its own, and a load
generator that shares the machine's cores with both, so rates compare within a run only; CPU time and ratios travel.
The floor (`benchmarks/http_floor.py`) runs beside the api on the same pool settings: an INSERT, an indexed SELECT, and
the MCP SDK with a tool that does nothing. Statements are counted in Postgres' own log, before the measurements.
"""

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import psutil
import uvloop

from benchmarks.http_floor import TABLES
from benchmarks.http_load import Load, load, request
from benchmarks.worker import COMMAND, cpu_seconds, postmaster, process
from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres, free_port
from commonplace_runtime.services.keep_index import MERGE_FROM, keep_indexes
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.store.pool import Pool, open_pool

_TEAM = UUID("00000000-0000-7000-8000-00000000beef")
_PROJECT = UUID("00000000-0000-7000-8000-00000000cafe")
_OTHER_TEAMS, _THEIR_MEMORIES = 1000, 100
_WORDS = (  # noqa: SIM905 - a few lines read better than sixty
    "queue lease worker retry budget session token cursor webhook ledger tenant region address shipment quote audit "
    "invoice carrier parcel refund customer stock price voucher deploy rollback migration index planner vacuum replica "
    "failover latency timeout backoff throttle schema column constraint trigger policy role secret probe ingress "
    "cluster node pod volume snapshot restore backup alert dashboard metric label histogram quantile sample"
).split()
_VOCABULARY = [first + second for second in _WORDS for first in _WORDS]
"""Made-up words; a memory draws the front ones far more often than the others, as language does."""
_MEMORIES = """
INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, title, content, keywords)
SELECT gen_random_uuid(), team, project, 'agent:bench', 'team', picked[1] || ' ' || picked[2] || ' ' || n,
    array_to_string(picked, ' ') || '. In src/' || picked[3] || '/' || picked[4] || '_' || n || '.py the '
        || array_to_string(picked[5:20], ' '), picked[1:4]
FROM unnest($1::uuid[], $2::uuid[]) AS places (team, project), generate_series(1, $3::integer) AS n,
    LATERAL (SELECT array_agg(($4::text[])[1 + floor(random() ^ 3 * cardinality($4::text[]))::integer]) AS picked
        FROM generate_series(1, 30 + 0 * n)) AS words
"""
_KEYS = """
INSERT INTO commonplace.api_keys (id, team_id, project_id, name, actor, scopes, token_id, token_hash, state)
SELECT gen_random_uuid(), team, project, 'bench', 'agent:bench', '{*}', md5(team::text),
    CASE WHEN team = $3 THEN $4 ELSE encode(sha256(team::text::bytea), 'hex') END, 'published'
FROM unnest($1::uuid[], $2::uuid[]) AS places (team, project)
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of request: who answers it (`floor` or `api`), with what status, and of how many events it is made."""

    name: str
    server: str
    requests: Sequence[bytes]
    status: int = 200
    events: int = 1


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one request of a cell costs: CPU in milliseconds, statements, and how it went."""

    load: Load
    server_cpu: float
    postgres_cpu: float
    statements: float

    @property
    def cpu(self) -> float:
        """Of the server and of Postgres."""
        return self.server_cpu + self.postgres_cpu

    def row(self, name: str, callers: int) -> str:
        """A line of the table."""
        rate = self.load.requests / self.load.seconds
        return (
            f"  {name:<24}{callers:>4}{rate:>9.0f}{self.load.p50:>8.1f}{self.load.p95:>8.1f}{self.load.p99:>8.1f}"
            f"{self.server_cpu:>9.2f}{self.postgres_cpu:>9.2f}{self.statements:>7.2f}"
        )


HEADER = f"  {'':<24}{'n':>4}{'req/s':>9}{'p50 ms':>8}{'p95 ms':>8}{'p99 ms':>8}{'api CPU':>9}{'PG CPU':>9}{'stmts':>7}"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A database with its team, and both servers before it."""

    pool: Pool
    postgres: psutil.Process
    log: Path
    servers: Mapping[str, tuple[int, psutil.Process]]
    token: str
    statements: dict[str, float] = field(default_factory=dict)

    async def measure(self, cell: Cell, *, callers: int, seconds: float) -> Cost:
        """Run one cell after a short warm-up."""
        port, server = self.servers[cell.server]
        ask = partial(load, port, cell.requests, callers=callers, status=cell.status)
        await ask(seconds=min(0.5, seconds / 4))
        await asyncio.sleep(0.3)  # what the warm-up left to do in the background is not the measurement's
        before = (cpu_seconds(server), cpu_seconds(self.postgres, with_children=True))
        result = await ask(seconds=seconds)
        after = (cpu_seconds(server), cpu_seconds(self.postgres, with_children=True))
        return Cost(
            load=result,
            server_cpu=1000 * (after[0] - before[0]) / result.requests,
            postgres_cpu=1000 * (after[1] - before[1]) / result.requests,
            statements=self.statements[cell.name],
        )

    async def count_statements(self, kinds: Sequence[Cell]) -> None:
        """Ask each a few times while Postgres writes down every statement that the bench's log-in sends."""
        for cell in kinds:
            port, _ = self.servers[cell.server]
            ask = partial(load, port, cell.requests, callers=1, seconds=0.3, status=cell.status)
            await self._log_statements("all")
            before = self._statements()
            asked = (await ask()).requests
            await self._log_statements("none")
            self.statements[cell.name] = (self._statements() - before) / asked

    async def _log_statements(self, which: str) -> None:
        await self.pool.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
        await self.pool.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(0.5)  # every backend has heard of it by then

    def _statements(self) -> int:
        return sum("execute __asyncpg" in line for line in self.log.read_text(errors="replace").splitlines())


async def _admin(postgres: EmbeddedPostgres, database: str) -> Pool:
    return await open_pool(
        postgres.url(database=database), size=2, connect_timeout=10, statement_timeout=600, application="benchmark"
    )


@contextmanager
def _servers(postgres: EmbeddedPostgres, database: str) -> Iterator[Mapping[str, tuple[int, psutil.Process]]]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/tmp"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "COMMONPLACE_DATABASE_URL": postgres.url(user="bench_runtime", database=database),
        "COMMONPLACE_METRICS_PORT": "0",
    }
    ports = {"floor": free_port(), "api": free_port()}
    commands = {
        "floor": [sys.executable, "-m", "benchmarks.http_floor", str(ports["floor"])],
        "api": [*COMMAND, "api"],
    }
    with ExitStack() as stack:
        yield {
            name: (
                ports[name],
                stack.enter_context(process(command, {**environ, "COMMONPLACE_PORT": str(ports[name])}, quiet=True)),
            )
            for name, command in commands.items()
        }


async def _answering(port: int) -> None:
    async with httpx2.AsyncClient() as client, asyncio.timeout(30):
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/healthz")
            except httpx2.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def site(postgres: EmbeddedPostgres, name: str, *, memories: int, other_teams: int) -> AsyncIterator[Site]:
    """A fresh database with so many memories in one project, beside so many other teams with theirs."""
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE DATABASE {name}")
    try:
        async with await _admin(postgres, name) as pool:
            token = await _fill(pool, memories, other_teams)
            await _keep_indexes(postgres, name)
            await pool.execute("VACUUM ANALYZE", timeout=600)
            with _servers(postgres, name) as servers:
                for port, _ in servers.values():
                    await _answering(port)
                log = postgres.data_dir / "postgres.log"
                yield Site(pool=pool, postgres=postmaster(postgres), log=log, servers=servers, token=token)
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


async def _fill(pool: Pool, memories: int, other_teams: int) -> str:
    await migrate(pool, with_roles=True)
    if not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bench_runtime')"):
        await pool.execute("CREATE ROLE bench_runtime LOGIN IN ROLE commonplace_runtime")
    await pool.execute("CREATE SCHEMA floor")
    await pool.execute(TABLES)
    await pool.execute("GRANT USAGE ON SCHEMA floor TO bench_runtime")
    await pool.execute("GRANT SELECT, INSERT ON floor.rows TO bench_runtime")
    teams = [_TEAM, *(uuid4() for _ in range(other_teams))]
    projects = [_PROJECT, *(uuid4() for _ in range(other_teams))]
    await pool.execute(
        "INSERT INTO commonplace.teams (id, slug, name) SELECT id, id::text, id::text FROM unnest($1::uuid[]) AS id",
        teams,
    )
    await pool.execute(
        "INSERT INTO commonplace.projects (id, team_id, name) SELECT project, team, 'default'"
        " FROM unnest($1::uuid[], $2::uuid[]) AS places (team, project)",
        teams,
        projects,
    )
    token = contract.make_token(random.randbytes(contract.TOKEN_ENTROPY_BYTES))
    await pool.execute(
        _KEYS,
        teams,
        projects,
        _TEAM,
        contract.hash_token(token),
    )
    await pool.execute(_MEMORIES, [_TEAM], [_PROJECT], memories, _VOCABULARY, timeout=600)
    if other_teams:
        await pool.execute(_MEMORIES, teams[1:], projects[1:], _THEIR_MEMORIES, _VOCABULARY, timeout=600)
    return token


async def _keep_indexes(postgres: EmbeddedPostgres, database: str) -> None:
    """What the keepers of workers and apis have done by the time that anybody searches."""
    url = postgres.url(user="bench_runtime", database=database)
    async with await open_pool(url, size=1, connect_timeout=10, statement_timeout=60, application="benchmark") as pool:
        while await keep_indexes(pool):
            pass


async def _fill_tail(pool: Pool) -> int:
    """As many memories as may wait until a segment is made of them: how many waited before."""
    waiting: int = await pool.fetchval("SELECT count(*) FROM commonplace.search_tail WHERE team_id = $1", _TEAM)
    await pool.execute(_MEMORIES, [_TEAM], [_PROJECT], MERGE_FROM - 1 - waiting, _VOCABULARY)
    return waiting


def _event(place: int) -> dict[str, Any]:
    return {
        "projectId": str(_PROJECT),
        "sourceType": "hook",
        "eventType": "tool_use",
        "occurredAtEpoch": 1_790_000_000_000 + place,
        "contentSessionId": f"session-{place % 500}",
        "platformSource": "claude",
        "payload": {
            "tool_name": "Bash",
            "tool_input": {"command": f"pytest tests/test_{place}.py"},
            "tool_response": {"stdout": f"tests/test_{place}.py::test_it FAILED: 5433 == 5432\n" * 8, "exit_code": 1},
            "cwd": "/srv/app",
        },
    }


def _call(tool: str, **arguments: Any) -> bytes:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    return json.dumps(body).encode()


async def cells(it: Site) -> Sequence[Cell]:
    """Every kind of request, floors first."""
    ask = partial(request, token=it.token)
    mcp = {"Accept": "application/json, text/event-stream", "MCP_Protocol_Version": "2025-06-18"}
    rows = [row["id"] for row in await it.pool.fetch("SELECT id FROM floor.rows ORDER BY random() LIMIT 2000")]
    known = [
        row["id"]
        for row in await it.pool.fetch(
            "SELECT id FROM commonplace.memories WHERE team_id = $1 ORDER BY random() LIMIT 2000", _TEAM
        )
    ]
    chosen = random.Random(7)
    drawn = [[_VOCABULARY[int(chosen.random() ** 3 * len(_VOCABULARY))] for _ in range(4)] for _ in range(500)]
    questions = [" ".join(words) for words in drawn]
    counter = iter(range(10**9))
    # Fresh enough for the longest run: the same event again would be a duplicate, which costs less.
    events = [json.dumps(_event(next(counter))).encode() for _ in range(60_000)]
    with_jobs = [json.dumps(_event(next(counter))).encode() for _ in range(40_000)]
    batches = [
        json.dumps([_event(next(counter)) | {"contentSessionId": f"batch-{n % 200}"} for _ in range(50)]).encode()
        for n in range(1_500)
    ]
    batches_with_jobs = [
        json.dumps([_event(next(counter)) | {"contentSessionId": f"jobs-{n % 200}"} for _ in range(50)]).encode()
        for n in range(1_500)
    ]
    project = {"projectId": str(_PROJECT)}
    newest = json.dumps(project).encode()
    asked = [json.dumps(project | {"query": each}).encode() for each in questions]
    asked_for_ten = [json.dumps(project | {"query": each, "limit": 10}).encode() for each in questions]

    def cell(name: str, requests: Sequence[bytes], *, status: int = 200, events: int = 1) -> Cell:
        server = "floor" if name.startswith("floor") else "api"
        return Cell(name=name, server=server, requests=requests, status=status, events=events)

    return (
        cell("floor: INSERT", [ask("POST", "/insert", body=each) for each in events], status=201),
        cell("floor: SELECT", [ask("GET", f"/select/{each}") for each in rows]),
        cell("floor: MCP", [ask("POST", "/mcp", body=_call("nothing"), **mcp)]),
        cell("ingest", [ask("POST", "/v1/events?generate=false", body=each) for each in events], status=201),
        cell("ingest with job", [ask("POST", "/v1/events", body=each) for each in with_jobs], status=201),
        cell(
            "batch of 50",
            [ask("POST", "/v1/events/batch?generate=false", body=each) for each in batches],
            status=201,
            events=50,
        ),
        cell(
            "batch of 50 with jobs",
            [ask("POST", "/v1/events/batch", body=each) for each in batches_with_jobs],
            status=201,
            events=50,
        ),
        cell("get", [ask("GET", f"/v1/memories/{each}") for each in known]),
        cell("context, newest", [ask("POST", "/v1/context", body=newest)]),
        cell("context, 4 words", [ask("POST", "/v1/context", body=each) for each in asked]),
        cell("search, 4 words", [ask("POST", "/v1/search", body=each) for each in asked_for_ten]),
        cell("MCP recent", [ask("POST", "/v1/mcp", body=_call("recent", limit=10), **mcp)]),
    )


_LIMITS = (
    ("ingest", "floor: INSERT", 2.5),
    ("get", "floor: SELECT", 3.0),
    ("context, newest", "floor: SELECT", 3.0),
    ("context, 4 words", "floor: SELECT", 3.0),
)


def verdicts(costs: Mapping[str, Cost], kinds: Mapping[str, Cell]) -> Iterator[str]:
    """The targets that these costs have an answer to."""
    for name, floor, most in _LIMITS:
        if name in costs and floor in costs:
            ratio = costs[name].cpu / costs[floor].cpu
            yield f"{name}: {ratio:.2f} times its floor (at most {most}) {'ok' if ratio <= most else 'MISSED'}"
    if {"MCP recent", "floor: MCP", "context, newest"} <= costs.keys():
        most = costs["floor: MCP"].cpu + costs["context, newest"].cpu
        cpu = costs["MCP recent"].cpu
        yield f"MCP recent: {cpu:.2f} ms (the SDK + context: at most {most:.2f}) {'ok' if cpu <= most else 'MISSED'}"
    if {"batch of 50", "ingest"} <= costs.keys():
        rate = {
            name: kinds[name].events * costs[name].load.requests / costs[name].load.seconds
            for name in ("batch of 50", "ingest")
        }
        ratio = rate["batch of 50"] / rate["ingest"]
        met = "ok" if ratio >= 12 else "MISSED"
        yield f"batch of 50: {ratio:.1f} times the events/s of single ingest (at least 12) {met}"


async def _run(callers: Sequence[int], seconds: float, only: Sequence[str], sites: Sequence[str]) -> None:
    shapes = {
        "1k memories": (1_000, 0),
        "10k memories": (10_000, 0),
        f"10k memories beside {_OTHER_TEAMS:,} teams": (10_000, _OTHER_TEAMS),
    }
    alone: dict[tuple[str, int], Cost] = {}
    with EmbeddedPostgres(settings={"max_connections": "100", "shared_buffers": "256MB"}) as postgres:
        for place, (title, (memories, others)) in enumerate(shapes.items()):
            if sites and not any(each in title for each in sites):
                continue
            print(f"\n{title}", flush=True)
            async with site(postgres, f"bench_http_{place}", memories=memories, other_teams=others) as it:
                kinds = {cell.name: cell for cell in await cells(it)}
                wanted = [c for c in kinds.values() if not only or any(each in c.name for each in (*only, "floor"))]
                await it.count_statements(wanted)
                print(HEADER)
                for count in callers:
                    costs = {}
                    for cell in wanted:
                        costs[cell.name] = cost = await it.measure(cell, callers=count, seconds=seconds)
                        print(cost.row(cell.name, count), flush=True)
                    for line in verdicts(costs, kinds):
                        print(f"      {line}", flush=True)
                    for name, cost in costs.items():
                        if others and (before := alone.get((name, count))) and not name.startswith("floor"):
                            print(f"      {name}: {cost.cpu / before.cpu:.2f} times what it costs alone", flush=True)
                        alone[name, count] = cost
                await _measure_tail(
                    it, [cell for cell in wanted if cell.name.endswith("4 words")], alone, callers, seconds
                )


async def _measure_tail(
    it: Site, searches: Sequence[Cell], before: Mapping[tuple[str, int], Cost], callers: Sequence[int], seconds: float
) -> None:
    """The same questions where as much waits as may: a search looks at each word of what no segment has yet."""
    waited = await _fill_tail(it.pool) if searches else 0
    for count, cell in product(callers, searches):
        cost = await it.measure(cell, callers=count, seconds=seconds)
        print(cost.row(f"{cell.name} *", count), flush=True)
        more = cost.cpu / before[cell.name, count].cpu
        print(
            f"      * {more:.2f} times the above: {MERGE_FROM - 1} memories wait to be merged, {waited} did", flush=True
        )


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a second a cell")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each cell is asked for")
    parser.add_argument("--only", default="", help="parts of the cells' names, by comma")
    parser.add_argument("--sites", default="", help="parts of the databases' titles, by comma")
    parser.add_argument("--callers", default="1,16,64", help="how many connections at once, by comma")
    given = parser.parse_args()
    split = lambda text: [part for part in text.split(",") if part]  # noqa: E731
    uvloop.run(
        _run(
            [int(part) for part in split(given.callers)],
            1.0 if given.quick else given.seconds,
            split(given.only),
            split(given.sites),
        )
    )


if __name__ == "__main__":
    main()
