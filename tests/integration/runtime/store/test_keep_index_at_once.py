"""The index while everybody works on it at once, and after keepers that died between any two of their statements."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from commonplace_runtime.domain.errors import NotFound, Unavailable
from commonplace_runtime.domain.models import KeyId, Principal, ProjectId, Reach, Recall, TeamId
from commonplace_runtime.services import forget, keep_index
from commonplace_runtime.services.keep_index import keep_indexes, purge_project_index
from commonplace_runtime.services.search import recall_memories
from commonplace_runtime.store import search_index
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.search_index import Held, Project
from tests.factories import Team, make_key, make_session, make_team
from tests.index_audit import audit_index
from tests.indexed import hint, keep, text_of, write

STAYS = range(200)
"""Texts that nobody changes."""
_REBUILD = """
INSERT INTO commonplace.search_work (team_id, project_id, rebuild_from) VALUES ($1::text::uuid, $2::text::uuid, $3)
ON CONFLICT (team_id, project_id) WHERE rebuild_from IS NOT NULL DO NOTHING
"""


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred memories make several levels, and a purge or a compaction several transactions."""
    monkeypatch.setattr(keep_index, "MERGE_FROM", 8)
    monkeypatch.setattr(keep_index, "MERGE_MOST", 16)
    monkeypatch.setattr(keep_index, "MOST_ROWS", 40)
    monkeypatch.setattr(keep_index, "_DEAD_MOST", 10)
    monkeypatch.setattr(keep_index, "_DEAD_WORDS", 100)
    monkeypatch.setattr(keep_index, "_DROPPED_ROWS", 50)
    monkeypatch.setattr(keep_index, "next_rows", lambda rows, _seconds: rows)


class Tumult:
    """A team in which everybody works at once; each of its methods does one thing at random."""

    def __init__(self, admin_pool: Pool, runtime_pool: Pool, team: Team, key_id: str, sessions: list[str]) -> None:
        self.pool, self.runtime_pool, self.team, self.sessions = admin_pool, runtime_pool, team, sessions
        self.project = Project(team_id=team.id, project_id=team.project_id)
        self.living: list[UUID] = []
        self.next_number = len(STAYS)
        ids = {"key_id": KeyId(key_id), "team_id": TeamId(team.id)}
        self.reach = Reach(
            team_id=TeamId(team.id),
            key_id=KeyId(key_id),
            project_id=ProjectId(team.project_id),
            actor="human:ada",
            request_id="r",
        )
        self.principal = Principal(
            **ids,  # type: ignore[arg-type]
            team_slug=team.slug,
            project_id=ProjectId(team.project_id),
            project="default",
            actor="human:ada",
            scopes=frozenset(),
        )

    async def write(self, chance: random.Random) -> None:
        numbers = range(self.next_number, self.next_number + chance.choice([1, 1, 3, 20]))
        self.next_number = numbers.stop
        self.living += await write(
            self.pool,
            self.team,
            numbers,
            session=chance.choice([None, *self.sessions]),
            owner=chance.choice([None, None, "human:ada", "human:bob"]),
        )
        await hint(self.pool)

    async def change(self, chance: random.Random) -> None:
        some = chance.sample(self.living, min(len(self.living), chance.choice([1, 5])))
        change = chance.choice(
            [
                "content = content || ' changed'",
                "session_id = NULL",
                "visibility = CASE visibility WHEN 'team' THEN 'private' ELSE 'team' END",
                "importance = 1 - importance",
            ]
        )
        # In order: two who change several of the same would else wait for each other.
        await self.pool.execute(
            f"UPDATE commonplace.memories SET {change} WHERE id IN"
            " (SELECT id FROM commonplace.memories WHERE id = ANY ($1) ORDER BY id FOR UPDATE)",
            some,
        )

    async def delete(self, chance: random.Random) -> None:
        if not self.living:
            return
        gone = self.living.pop(chance.randrange(len(self.living)))
        try:
            await forget.delete_memory(self.runtime_pool, self.reach, str(gone))
        except NotFound:  # it is private and somebody else's
            await self.pool.execute("DELETE FROM commonplace.memories WHERE id = $1", gone)

    async def keep(self, _chance: random.Random) -> None:
        await keep_indexes(self.runtime_pool)

    async def purge(self, _chance: random.Random) -> None:
        await purge_project_index(self.runtime_pool, self.project)

    async def rebuild(self, chance: random.Random) -> None:
        await self.pool.execute(_REBUILD, self.team.id, self.team.project_id, chance.choice([-1, 0]))

    async def read(self, chance: random.Random) -> None:
        number = chance.choice(STAYS)
        wanted = Recall(mode="search", project=None, query=f"only{number}", limit=5)
        found = await recall_memories(self.runtime_pool, self.principal, wanted, request_id="r")
        assert [row["content"] for row in found] == [text_of(number)], "lost, or found twice"


@asynccontextmanager
async def tumult_of(admin_pool: Pool, runtime_pool: Pool) -> AsyncIterator[Tumult]:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    sessions = [await make_session(admin_pool, team, content_session_id=name) for name in ("one", "two", "three")]
    await write(admin_pool, team, STAYS, session=sessions[0])
    yield Tumult(admin_pool, runtime_pool, team, key.id, sessions)


async def test_nothing_is_lost_or_doubled_while_everybody_works_at_once(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact, compactions = Held.compact, 0

    async def counted(*arguments: Any, **named: Any) -> int | None:
        nonlocal compactions
        compactions += 1
        return await compact(*arguments, **named)

    monkeypatch.setattr(Held, "compact", counted)
    async with tumult_of(admin_pool, runtime_pool) as one, tumult_of(admin_pool, runtime_pool) as other:

        async def work(seed: int, tumult: Tumult, names: str, turns: int) -> None:
            chance = random.Random(seed)
            for _ in range(turns):
                try:
                    await getattr(tumult, chance.choice(names.split()))(chance)
                except Unavailable:
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            for place, tumult in enumerate((one, other)):
                tasks.create_task(work(10 * place, tumult, "write", 60))
                tasks.create_task(work(10 * place + 1, tumult, "write change", 60))
                tasks.create_task(work(10 * place + 2, tumult, "change delete", 60))
                tasks.create_task(work(10 * place + 3, tumult, "delete purge", 60))
                tasks.create_task(work(10 * place + 4, tumult, "read", 120))
                tasks.create_task(work(10 * place + 5, tumult, "keep keep keep keep rebuild", 40))
                tasks.create_task(work(10 * place + 6, tumult, "keep", 40))

        assert compactions > 0, "nothing was put together"
        await audit_index(admin_pool)
        await hint(admin_pool)
        await keep(runtime_pool)
        counts = await audit_index(admin_pool)
        assert counts["merged"] > len(STAYS)
        assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_purges") == 0
        for tumult in (one, other):
            for number in STAYS:
                await tumult.read(random.Random(number))


class Killed(BaseException):
    """The process is gone."""


async def test_a_keeper_may_die_between_any_two_statements(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 0

    def dying(name: str) -> None:
        real = getattr(Held, name)

        async def step(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return await real(*arguments, **named)

        monkeypatch.setattr(Held, name, step)

    for name in vars(Held):
        if not name.startswith("_"):
            dying(name)

    async def finish() -> int:
        """Keep the index with keepers that die after one statement, after two, up to five; how many died."""
        nonlocal left
        deaths = 0
        while True:
            left = deaths % 5 + 1
            try:
                while await keep_indexes(runtime_pool):
                    pass
            except Killed:
                deaths += 1
                await audit_index(admin_pool)
                continue
            return deaths

    async with tumult_of(admin_pool, runtime_pool) as tumult:
        chance = random.Random(1)
        deaths = 0
        for _ in range(4):
            for turn in (tumult.write, tumult.write, tumult.change, tumult.rebuild):
                await turn(chance)
            await admin_pool.execute("DELETE FROM commonplace.memories WHERE id = $1", tumult.living.pop())
            await hint(admin_pool)
            deaths += await finish()
        assert deaths > 30
        await admin_pool.execute("DELETE FROM commonplace.memories WHERE visibility = 'private'")
        deaths += await finish()
        assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_purges") == 0
        assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_work") == 0
        assert (await audit_index(admin_pool))["merged"] > len(STAYS) - 8


async def test_two_keepers_do_the_work_of_one(admin_pool: Pool, runtime_pool: Pool) -> None:
    async with tumult_of(admin_pool, runtime_pool):
        await hint(admin_pool)
        await asyncio.gather(*(keep(runtime_pool) for _ in range(4)))
        await hint(admin_pool)
        await keep(runtime_pool)
        counts = await audit_index(admin_pool)
        assert counts["tail"] < 8
        assert sum(counts.values()) == len(STAYS)


async def test_an_index_is_held_by_one_at_a_time(runtime_pool: Pool, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    project = Project(team_id=team.id, project_id=team.project_id)
    async with search_index.holding(runtime_pool, project) as held, search_index.holding(runtime_pool, project) as late:
        assert held is not None
        assert late is None


async def test_what_dies_after_its_segment_was_put_together_is_purged(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    ids = await write(admin_pool, team, range(300))
    await hint(admin_pool)
    await keep(runtime_pool)
    levels = await admin_pool.fetch("SELECT level FROM commonplace.search_segments ORDER BY segment")
    assert {row["level"] for row in levels} == {0, 1}
    await admin_pool.execute("DELETE FROM commonplace.memories WHERE id = ANY ($1)", ids[::7])
    await purge_project_index(runtime_pool, Project(team_id=team.id, project_id=team.project_id))
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_purges") == 0
    await audit_index(admin_pool)
