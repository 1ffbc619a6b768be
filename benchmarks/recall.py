"""
How much of the evidence a search finds, by the index and by reading the rows as it was done before, and what it costs.

    .venv/bin/python -m benchmarks.recall                 among 2,000 and 20,000 other memories: about three minutes
    .venv/bin/python -m benchmarks.recall --filler 2000
    .venv/bin/python -m benchmarks.recall --rank          the scorer alone, at 1k, 10k and 100k memories

The questions are those of `benchmarks/questions`; weights were chosen on the half `dev` and are reported on both. A
question's recall@k is the share of its evidence among the first k memories; MRR is one over the place of the first.
Both rankings answer the same questions of the same database in turn, through row-level security and with audit. CPU is
what the kernel counted for the one backend (`schedstat`) and for this process, a search; a loaded machine inflates it.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Final
from uuid import NAMESPACE_OID, UUID, uuid5

from benchmarks.questions import CATEGORIES, Memory, Question, Set, written
from benchmarks.questions.made import filler, made
from commonplace_runtime.domain.models import KeyId, Principal, ProjectId, Recall, TeamId
from commonplace_runtime.domain.questions import hints_of
from commonplace_runtime.domain.ranking import Part, rank
from commonplace_runtime.embedded import EmbeddedPostgres
from commonplace_runtime.services.keep_index import keep_indexes
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.services.search import CANDIDATES, recall_memories
from commonplace_runtime.store import memories
from commonplace_runtime.store.pool import Pool, open_pool

_TEAM: Final = UUID("00000000-0000-7000-8000-00000000beef")
_KEY: Final = UUID("00000000-0000-7000-8000-00000000feed")
_DEPTHS: Final = (5, 10, 20)
_ROUNDS: Final = 3
_BATCH: Final = 500
_SESSIONS: Final = """
INSERT INTO commonplace.sessions (id, team_id, project_id, started_at)
SELECT s.id, $1, $2, s.at FROM unnest($3::uuid[], $4::timestamptz[]) AS s (id, at) ON CONFLICT DO NOTHING
"""
_MEMORIES: Final = """
INSERT INTO commonplace.memories (id, team_id, project_id, session_id, owner_actor, visibility, kind, title, content,
    keywords, created_at)
SELECT m.id, $1, $2, m.session_id, 'human:' || m.author, 'team', m.kind, m.title, m.content,
    string_to_array(m.keywords, ' '), m.at
FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[])
    AS m (id, session_id, author, kind, title, content, keywords, at)
"""
_SUPERSEDE: Final = """
UPDATE commonplace.memories m SET superseded_by = s.successor
FROM unnest($1::uuid[], $2::uuid[]) AS s (id, successor) WHERE m.id = s.id
"""

Search = Callable[[Pool, Principal, Recall], Awaitable[list[str]]]


async def by_index(pool: Pool, who: Principal, wanted: Recall) -> list[str]:
    """As the product searches."""
    return [row["id"] for row in await recall_memories(pool, who, wanted, request_id="benchmark")]


async def by_rows(pool: Pool, who: Principal, wanted: Recall) -> list[str]:
    """As it did before, and does while an index is being built."""
    rows = await memories.recall(pool, who, wanted, None, hints_of(wanted.query), request_id="benchmark")
    return [row["id"] for row in rows]


RANKINGS: Final[dict[str, Search]] = {"rows": by_rows, "index": by_index}


@dataclass(kw_only=True)
class Score:
    """Sums over questions: recall at each depth, and the reciprocal place of the first evidence."""

    recall: list[list[float]] = field(default_factory=list)
    first: list[float] = field(default_factory=list)

    def add(self, question: Question, found: Sequence[str]) -> None:
        """Count one answer: keys of memories, best first."""
        hits = [key in question.evidence for key in found]
        self.recall.append([sum(hits[:depth]) / len(question.evidence) for depth in _DEPTHS])
        self.first.append(1 / (hits.index(True) + 1) if any(hits) else 0.0)

    def row(self) -> str:
        """Percentages."""
        shares = [fmean(column) for column in zip(*self.recall, strict=True)]
        return "".join(f"{100 * share:>7.1f}" for share in [*shares, fmean(self.first)])


def _id(key: str, project: UUID) -> UUID:
    return uuid5(NAMESPACE_OID, f"{project}/{key}")


async def _load(pool: Pool, keeper: Pool, project: UUID, rows: Sequence[Memory]) -> None:
    """In order of time, as a team writes them; the keeper comes between."""
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        ids = [_id(memory.key, project) for memory in batch]
        sessions = [_id(f"session {memory.session}", project) for memory in batch]
        times = [memory.at for memory in batch]
        await pool.execute(_SESSIONS, _TEAM, project, sessions, times)
        columns = [[getattr(each, name) for each in batch] for name in ("author", "kind", "title", "content")]
        keywords = [" ".join(memory.keywords) for memory in batch]
        await pool.execute(_MEMORIES, _TEAM, project, ids, sessions, *columns, keywords, times)
        while await keep_indexes(keeper):
            pass
    pairs = [(_id(each.supersedes, project), _id(each.key, project)) for each in rows if each.supersedes]
    await pool.execute(_SUPERSEDE, *map(list, zip(*pairs, strict=True)))
    await pool.execute("VACUUM ANALYZE")


def _cpu(process: int) -> float:
    """Seconds on a core."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


async def _ask(pool: Pool, project: UUID, whole: Set, keys: dict[str, str]) -> None:
    who = Principal(
        key_id=KeyId(str(_KEY)),
        team_id=TeamId(str(_TEAM)),
        team_slug="bench",
        project_id=ProjectId(str(project)),
        project=None,
        actor="agent:bench",
        scopes=frozenset({"*"}),
    )
    scores: dict[tuple[str, str], dict[str, Score]] = defaultdict(lambda: {name: Score() for name in RANKINGS})
    backend = await pool.fetchval("SELECT pg_backend_pid()")
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in RANKINGS}
    for turn in range(_ROUNDS):
        for name, search in RANKINGS.items():
            before = _cpu(backend), time.process_time()
            for question in whole.questions:
                wanted = Recall(mode="search", project=None, query=question.text, limit=_DEPTHS[-1])
                found = [keys.get(each, "") for each in await search(pool, who, wanted)]
                if not turn:
                    for category in (question.category, "all"):
                        scores[category, question.half][name].add(question, found)
            spent = _cpu(backend) - before[0], time.process_time() - before[1]
            costs[name].append((1000 * spent[0] / len(whole.questions), 1000 * spent[1] / len(whole.questions)))
    print(f"  {'':<22}{'':>5}" + "".join(f"{name:>28}" for name in RANKINGS))
    head = "".join(f"{f'@{depth}':>7}" for depth in _DEPTHS) + f"{'MRR':>7}"
    print(f"  {'recall, percent':<22}{'n':>5}" + head * len(RANKINGS))
    for category in (*CATEGORIES, "all"):
        for half in ("dev", "test"):
            row = scores[category, half]
            count = len(next(iter(row.values())).first)
            print(f"  {f'{category}, {half}':<22}{count:>5}" + "".join(score.row() for score in row.values()))
    for name, spent in costs.items():
        postgres, client = (min(column) for column in zip(*spent, strict=True))
        print(f"  CPU a search by {name}: {postgres:.2f} ms of Postgres, {client:.2f} ms of the process", flush=True)


async def _rank_alone(pool: Pool, project: UUID, whole: Set) -> None:
    parts: list[list[Part]] = []
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.team_id', $1, true)", str(_TEAM))
        for question in whole.questions:
            rows = await connection.fetch(
                "SELECT part, index_no, number, data FROM commonplace.search_parts($1, $2, 'agent:bench', $3)",
                _TEAM,
                [project],
                question.text,
            )
            parts.append([Part(*row) for row in rows])
    postings = fmean(sum(len(part.data) // 4 for part in each if part.part == "list") for each in parts)
    words = fmean(sum(len(part.data) // 4 for part in each if part.part == "words") for each in parts)
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for each in parts:
            rank(each, most=CANDIDATES)
        best = min(best, (time.process_time() - begun) / len(parts))
    print(f"    {words:.1f} words, {postings:,.0f} postings a question: {1000 * best:.3f} ms of CPU", flush=True)


async def run(postgres: EmbeddedPostgres, sizes: Sequence[int], *, rank_alone: bool) -> None:
    """Every size in a project of its own."""
    hand = written()
    rules = made(1, hand)
    whole = Set(memories=hand.memories + rules.memories, questions=hand.questions + rules.questions)
    url = postgres.url()
    async with await open_pool(url, size=2, connect_timeout=10, statement_timeout=600, application="admin") as admin:
        await migrate(admin, with_roles=True)
        await admin.execute("CREATE ROLE bench_runtime LOGIN IN ROLE commonplace_runtime")
        await admin.execute("INSERT INTO commonplace.teams (id, slug, name) VALUES ($1, 'bench', 'Bench')", _TEAM)
        runtime = postgres.url(user="bench_runtime")
        async with await open_pool(
            runtime, size=1, connect_timeout=10, statement_timeout=600, application="benchmark"
        ) as pool:
            for size in sizes:
                project = uuid5(NAMESPACE_OID, str(size))
                await admin.execute(
                    "INSERT INTO commonplace.projects (id, team_id, name) VALUES ($1, $2, $3)",
                    project,
                    _TEAM,
                    str(size),
                )
                rows = sorted([*whole.memories, *filler(2, hand, count=size)], key=lambda each: each.at)
                await _load(admin, pool, project, rows)
                print(f"\n{len(whole.memories)} memories with answers, {len(rows) - len(whole.memories):,} others")
                if rank_alone:
                    await _rank_alone(pool, project, whole)
                else:
                    await _ask(pool, project, whole, {str(_id(each.key, project)): each.key for each in rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filler", type=int, action="append", help="other memories (default: 2000 and 20000)")
    parser.add_argument("--rank", action="store_true", help="the scorer alone")
    chosen = parser.parse_args()
    sizes = chosen.filler or ([250, 9250, 99250] if chosen.rank else [2000, 20000])
    with EmbeddedPostgres(settings={"fsync": "off"}) as postgres:
        asyncio.run(run(postgres, sizes, rank_alone=chosen.rank))


if __name__ == "__main__":
    main()
